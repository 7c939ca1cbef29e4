"""A made-up FakeClue in the release's exact format, and profile `released` with tiny models."""

import json
import zipfile
from pathlib import Path

from fakevlm.config.params import Params, load_params
from fakevlm.data.records import Record, to_fakeclue_row
from tinyllava import ANSWERS, records

# Folder of a fake and of a real image as the release names them, and their category.
KINDS = (
    ("ff++/{}/c23/frames/{:03d}/{:03d}.png", ("fake/Deepfakes", "real/youtube"), "deepfake"),
    ("satellite/{}/{:03d}{:04d}.png", ("fake", "real"), "satellite"),
    ("doc/{}/magazine_en_{}/{}.png", ("fake", "real"), "doc"),
)


def rows(split: str, count: int) -> list[tuple[dict, bytes]]:
    """Rows of one split's JSON, clustered by kind as in the release, each with its image."""
    pairs = []
    for n, picture in enumerate(records(count, seed=len(split))):
        pattern, places, category = KINDS[n * len(KINDS) // count]
        # Two frames a video; the test split has frames of training videos, as the release has.
        path = pattern.format(places[picture.label], n // 4, n if split == "train" else 900 + n)
        record = Record(path, picture.image, picture.label, "x", path, category, width=32, height=32)
        pairs.append((to_fakeclue_row(record, ANSWERS[picture.label]), picture.image))
    return pairs


def make_release(root: Path, train: int = 36, test: int = 12) -> None:
    """Write the JSONs and the zips; one image is in train and in test, byte for byte."""
    (root / "data_json").mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        listed = rows(split, count)
        if split == "test":
            (twin, _), (_, image) = listed[-1], rows("train", train)[-1]
            listed[-1] = (twin, image)
        (root / f"data_json/{split}.json").write_text(json.dumps([row for row, _ in listed]))
        with zipfile.ZipFile(root / f"{split}.zip", "w") as archive:
            for row, image in listed:
                archive.writestr(row["image"], image)


def released(root: Path, base: Path, **benchmarks: Path) -> Params:
    """Profile `released` on a made-up release in `root`, with a tiny model for both models."""
    values = load_params("released").model_dump() | {"base": str(base)}
    folders = dict.fromkeys(("ffpp", "loki", "ddvqa")) | {key: str(path) for key, path in benchmarks.items()}
    values["collect"]["corpora"] |= {"fakeclue": str(root), "ffpp": folders.pop("ffpp")}
    values["collect"]["benchmarks"] |= folders
    values["collect"]["frames_per_video"] = 3
    values["annotate"]["val_fraction"] = 0.2
    values["evaluate"] |= {"model": str(base), "precision": "fp32", "batch_size": 8, "max_new_tokens": 4}
    values["evaluate"]["bootstrap"] = 20
    return Params(**values)
