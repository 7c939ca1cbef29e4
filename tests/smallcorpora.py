"""Tiny corpora in the layouts and file formats of the real ones, for the tests."""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml
from PIL import Image

import tinyllava
from fakevlm.config.params import Params, load_params
from fakevlm.data.corpora import faces, ffpp, m6doc
from fakevlm.data.corpora.files import Unusable
from fakevlm.data.records import Record, encode, to_fakeclue_row

VALUES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))


def picture(seed: int, form: str = "JPEG", size: tuple[int, int] = (30, 20)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), form)


def put(root: Path, files: dict[str, bytes | str]) -> Path:
    """Write files by their paths below a folder; return the folder."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def parted(stream: Iterable[Record | Unusable]) -> tuple[list[Record], list[Unusable]]:
    """The records of a reader, and what it could not use."""
    rows = list(stream)
    return [r for r in rows if isinstance(r, Record)], [r for r in rows if isinstance(r, Unusable)]


def settings(**changes: Any) -> Params:
    """The default profile with no corpus at all, changed."""
    values = load_params().model_dump()
    section = values["collect"]
    section["corpora"] = dict.fromkeys(section["corpora"])
    section["benchmarks"] = dict.fromkeys(section["benchmarks"])
    section |= {"ground_truth": None, "synthetic_documents": 0, "synthetic_satellites": 0, "satellites": None}
    section["renderer"] = "miniature"
    for key, value in changes.items():
        place = next((section[s] for s in ("corpora", "benchmarks") if key in section[s]), section)
        place[key] = str(value) if isinstance(value, Path) else value
    return Params(**values)


def loki_tree(root: Path) -> Path:
    """Four images asked about both ways, one of them missing, two of them described."""
    rows = [
        {"image_path": path, "question_type": f"image_tf_image_{label}_ask_{way}_{path.split('/')[-2]}"}
        for path, label in VALUES["loki"]["labels"].items()
        for way in ("real", "fake")
    ]
    described = json.dumps(VALUES["loki"]["described"], ensure_ascii=False).encode("utf-16")
    put(root / "data_json/image", {"true_or_false.json": json.dumps(rows), "open_ended_vqa.json": described})
    images = {"sence/1.jpg": picture(1), "animals/2.png": picture(2, "PNG"), "person/4.jpg": picture(4)}
    return put(root / "image", images).parent


def m6doc_tree(root: Path) -> Path:
    """Four pages: a newspaper's, an exam's, a magazine's, and a newspaper's whose image is missing."""
    names, size = m6doc.CATEGORIES, {"width": 200, "height": 400}
    for split, pages in VALUES["m6doc"].items():
        images = [{"id": n, "file_name": name, **size} for n, name in enumerate(pages, 1)]
        annotations = [
            {"image_id": n, "category_id": names.index(name), "bbox": box, "iscrowd": int(name == "bill")}
            for n, boxes in enumerate(pages.values(), 1)
            for name, box in boxes
        ]
        categories = [{"id": n, "name": name} for n, name in enumerate(names)]
        coco = {"images": images, "annotations": annotations, "categories": categories}
        put(root, {f"annotations/instances_{split}2017.json": json.dumps(coco)})
    (root / "test2017").mkdir()
    files = ("train2017/0001.jpg", "train2017/0002.jpg", "val2017/magazine_7.jpg")
    return put(root, {file: picture(n) for n, file in enumerate(files, 1)})


def film(file: Path, n: int, colour: int = 0) -> None:
    """Write a video of `n` frames that grow brighter; those of another colour differ in their left half."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for k in range(n):
            pixels = np.full((32, 32, 3), 20 + 200 * k // max(1, n - 1), np.uint8)
            pixels[:, :16, 0] = (pixels[:, :16, 0].astype(int) + colour) % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))


def ffpp_tree(root: Path) -> Path:
    """Four originals and two videos of each method; one pair for training, one for testing."""
    splits = {"train": [["000", "003"]], "val": [], "test": [["007", "002"]]}
    put(root, {f"splits/{split}.json": json.dumps(pairs) for split, pairs in splits.items()})
    for n, video in enumerate(("000", "003", "007", "002")):
        film(root / f"original_sequences/youtube/c23/videos/{video}.mp4", 9, 16 * n)
    for m, method in enumerate(ffpp.METHODS):
        for n, video in enumerate(("000_003", "007_002")):
            film(root / f"manipulated_sequences/{method}/c23/videos/{video}.mp4", 5, 64 + 16 * (2 * m + n))
    return root


def ddvqa_tree(root: Path) -> Path:
    """Questions about `ffpp_tree`'s test videos, and about one that is not there."""
    return put(root, {f"test_set/{m}/{m}.json": json.dumps(rows) for m, rows in VALUES["ddvqa"].items()})


def posed(angle: float, zoom: float, right: float, down: float, size: int = 256) -> np.ndarray:
    """The five points of a face that is turned, zoomed and moved away from the template: (5, 2)."""
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return faces.template(size, 1.3) @ turn.T + (right, down)


def dlib_points(five: np.ndarray, count: int = 81) -> np.ndarray:
    """Landmarks in dlib's order that hold these five points."""
    points = np.full((count, 2), 3.0)
    points[faces.DLIB_FIVE] = five
    return points


def landmarks_tree(videos: Path, video: str, numbers: tuple[int, ...]) -> Path:
    """Write landmarks of a tilted face for some frames of a video; return their folder."""
    folder = videos.parent / "landmarks" / video
    folder.mkdir(parents=True)
    for number in numbers:
        np.save(folder / f"{number:03d}.npy", dlib_points(posed(0.2, 0.8, 12, 4, size=16)))
    return folder


# Folder of a fake and of a real image as the release names them, and their category.
RELEASE = (
    ("ff++/{}/c23/frames/{:03d}/{:03d}.png", ("fake/Deepfakes", "real/youtube"), "deepfake"),
    ("satellite/{}/{:03d}{:04d}.png", ("fake", "real"), "satellite"),
    ("doc/{}/magazine_en_{}/{}.png", ("fake", "real"), "doc"),
)


def release_rows(split: str, count: int) -> list[tuple[dict, bytes]]:
    """Rows of one split's JSON, clustered by kind as in the release, each with its image."""
    pairs = []
    for n, shown in enumerate(tinyllava.records(count, seed=len(split))):
        pattern, places, category = RELEASE[n * len(RELEASE) // count]
        # Two frames a video; the test split has frames of training videos, as the release has.
        path = pattern.format(places[shown.label], n // 4, n if split == "train" else 900 + n)
        record = Record(path, shown.image, shown.label, "x", path, category, width=32, height=32)
        pairs.append((to_fakeclue_row(record, tinyllava.ANSWERS[shown.label]), shown.image))
    return pairs


def make_release(root: Path, train: int = 36, test: int = 12) -> None:
    """Write the JSONs and the zips; one image is in train and in test, byte for byte."""
    (root / "data_json").mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        listed = release_rows(split, count)
        if split == "test":
            (twin, _), (_, image) = listed[-1], release_rows("train", train)[-1]
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
