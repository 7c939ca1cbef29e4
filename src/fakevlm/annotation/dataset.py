"""The files of the stage `annotate`: FakeClue as shards and as the release's JSON, and all captions."""

import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakevlm.annotation.prompts import LABELS
from fakevlm.annotation.splits import SPLITS
from fakevlm.data.csv_files import read_csv, write_csv
from fakevlm.data.records import FAKE, REAL, Record, RecordWriter, to_fakeclue_row
from fakevlm.data.shards import Records, columns_of, without_images
from fakevlm.errors import UserError
from fakevlm.inference.predict import Columns

CANDIDATES = pa.schema([(name, pa.string()) for name in ("id", "annotator", "outcome", "text")])
_GROUP = 5_000  # captions in a row group


@dataclass(frozen=True)
class FakeClue:
    """The results of the stage, as tables without texts."""

    # A row an image, as collected: id, label, category, source, generator, group, split, sha256;
    # `annotators`, how many captioned it (outcome ok); `families`, how many the answer names.
    images: pd.DataFrame
    outcomes: pd.DataFrame  # requests by annotator (rows) and outcome (columns); empty if nobody was asked
    quality: pd.DataFrame  # see `quality.clue_quality`; empty without ground truth
    agreement: pd.DataFrame  # see `quality.agreement`
    metrics: dict  # the counts and main numbers, as in metrics.json


def compare_ids(images: pd.DataFrame, expected: Path, out: Path) -> str:
    """Return a sentence: whether FakeClue's ids and splits are those that a CSV lists.

    What differs goes to `differing_ids.csv`: id, split_listed, split_here. Raises `UserError` without a list.
    """
    if not expected.is_file():
        raise UserError(f"annotate.expected: {expected} is missing", "set it to null, or copy ids.csv there")
    listed = read_csv(expected)
    both = listed.merge(images[["id", "split"]], "outer", "id", suffixes=("_listed", "_here"))
    differing = both.fillna("absent").query("split_listed != split_here")
    write_csv(differing, out / "differing_ids.csv")
    here, there = f"FakeClue's {len(images):,} images", f"the {len(listed):,} of {expected.name}"
    if differing.empty:
        return f"{here} are exactly {there}, each in its split."
    first = ", ".join(f"{key} ({a} → {b})" for key, a, b in differing.head(3).to_numpy())
    what = f"{here} are not {there}: {len(differing):,} are missing, new or in another split"
    return f"{what}, first (listed → here) {first}. All are in {out.name}/differing_ids.csv."


def write_captions(out: Path, ids: pd.Series, answers: Mapping[str, Columns]) -> None:
    """Write all captions into `candidates.parquet`, image by image.

    `answers` has, by annotator, status and text of its answer about each image of `ids`.
    """
    tables = [
        pd.DataFrame({"id": ids, "annotator": name, "outcome": each["status"], "text": each["text"]})
        for name, each in answers.items()
    ]
    rows = pd.concat([pd.DataFrame(columns=CANDIDATES.names), *tables]).sort_index(kind="stable")
    table = pa.Table.from_pandas(rows, CANDIDATES, preserve_index=False).replace_schema_metadata()
    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out / "candidates.parquet", row_group_size=_GROUP)


def write_images(out: Path, images: Iterable[Record]) -> None:
    """Write images as shards, `fakeclue/<split>/`, and in the release's form, `data_json/<split>.json`.

    Each has a split, a category and one reference, its answer.
    """
    with ExitStack() as stack:
        shards = {split: stack.enter_context(RecordWriter(out / "fakeclue" / split)) for split in SPLITS}
        for record in images:
            shards[record.split].write(record)
    (out / "data_json").mkdir(exist_ok=True)
    for split in SPLITS:
        with (out / "data_json" / f"{split}.json").open("w", encoding="utf-8") as file:
            before = "["
            for record in without_images(Records(out / "fakeclue" / split)):
                # One element of `json.dumps(rows, indent=1)`.
                row = json.dumps(to_fakeclue_row(record, record.references[0]), indent=1, ensure_ascii=False)
                file.write(f"{before}\n{row}".replace("\n", "\n "))
                before = ","
            file.write("\n]\n" if before == "," else "[]\n")


def counts(images: pd.DataFrame) -> dict:
    """Return how many images FakeClue has by split, fake and real."""
    return {
        "images": {split: int((images["split"] == split).sum()) for split in SPLITS},
        "fake": int((images["label"] == FAKE).sum()),
        "real": int((images["label"] == REAL).sum()),
    }


def pick(fakeclue: FakeClue, folder: Path, label: int = FAKE) -> tuple[Record, dict[str, str]] | None:
    """Return a training image that all annotators captioned, and its captions by annotator (paper Fig. 2).

    Its answer names two families of artifacts or more, where there is such an image. Among these the least
    hash decides, so that the example is typical, good or bad. None if nobody was asked (profile `released`).
    `folder` is the stage's output. Raises `UserError` if all annotators captioned no such image.
    """
    if fakeclue.outcomes.empty:
        return None
    wanted = {"split": "train", "label": label, "annotators": len(fakeclue.outcomes)}
    images = fakeclue.images[(fakeclue.images[list(wanted)] == list(wanted.values())).all(axis=1)]
    if images.empty:
        what = f"no {LABELS[label]} image of the training split was captioned by every annotator"
        cure = "look at candidates.parquet; run the stage again: requests that ended in errors are repeated"
        raise UserError(what, cure)
    several = images["families"] >= 2
    chosen = (images[several] if several.any() else images).sort_values("sha256").iloc[0]
    train = Records(folder / "fakeclue" / "train")
    record = train[columns_of(train, ["id"])["id"].eq(chosen["id"]).argmax()]
    captions = pd.read_parquet(folder / "candidates.parquet", filters=[("id", "==", record.id)])
    return record, captions.set_index("annotator")["text"].to_dict()
