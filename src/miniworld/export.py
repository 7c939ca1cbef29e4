"""Writes the miniature's corpora in the layouts of the real ones: `fakevlm world --out embedded --seed 17`.

Beside the corpora comes `truth.jsonl`, the ground truth, which no real corpus has. A few files are broken on
purpose, as in every real download: one cut off, one empty, one that is not an image. All images are JPEG: in
the real GenImage the file format gives the label away. Equal seed and sizes make equal bytes."""

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from fakevlm.data.corpora import m6doc
from fakevlm.data.ground_truth import GroundTruth, write_ground_truth
from fakevlm.data.page_layout import Block, jitter, sample_layout
from fakevlm.data.records import FAKE
from fakevlm.errors import UserError
from fakevlm.progress import track
from miniworld import export_faces, export_words, world
from miniworld.export_plan import PLAN, Job, Sizes, jobs

CORPORA = ("genimage", "chameleon", "cvusa", "vigor", "m6doc", "ffpp", "loki", "dmimage", "ddvqa")
SIZE = 96  # pixels a side
T, R = TypeVar("T"), TypeVar("R")

# M6Doc's class for each kind of block; rules become "underscore", its class for printed blank lines.
_CLASS = {
    "newspaper": {"title": "headline", "header": "folio", "footer": "page number"},
    "paper": {"title": "section title", "header": "header", "footer": "page number"},
    "magazine": {"title": "headline", "header": "folio", "footer": "folio"},
}
_COMMON = {
    "text": "paragraph",
    "figure": "figure",
    "caption": "caption",
    "table": "table",
    "rule": "underscore",
}


def paint(job: Job) -> tuple[str, bytes, GroundTruth, list[Block] | None]:
    """Return one picture: (file, JPEG, ground truth, layout if it is a page)."""
    rng = np.random.default_rng(job.seed)
    options = dict(job.options)
    if job.page is not None:
        options["layout"] = jitter(sample_layout(rng, job.page), rng)
        options["variant"] = job.page
    shot = world.shoot(job.category, rng, size=SIZE, **options)
    classes = PLAN["classes"].get(shot.facts.get("subject", ""), ((0, ""),))
    index, synset = classes[job.seed[-1] % len(classes)]

    def fill(name: str) -> str:
        name = name.replace("<index3>", f"{index:03d}").replace("<index>", str(index))
        return name.replace("<synset>", synset)

    truth = GroundTruth(fill(job.path), shot.label, shot.category, shot.artifacts, shot.qualities)
    return fill(job.file), shot.jpeg, truth, options.get("layout")


def _alone() -> None:
    cv2.setNumThreads(1)


def _run(work: Callable[[T], R], items: list[T], workers: int, desc: str, unit: str = "img") -> Iterator[R]:
    """Yield the results in the items' order, from at most `workers` processes."""
    if workers <= 1:
        yield from (work(item) for item in track(items, desc, unit=unit))
        return
    with multiprocessing.Pool(workers, initializer=_alone) as pool:
        yield from track(pool.imap(work, items, chunksize=16), desc, total=len(items), unit=unit)


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def _json(file: Path, content: Any, encoding: str = "utf-8") -> None:
    _write(file, (json.dumps(content, separators=(",", ":")) + "\n").encode(encoding))


def _write_cvusa_splits(out: Path, files: list[str]) -> None:
    """Write four in five for training; the rows name street views and annotations too."""
    rows: dict[str, list[str]] = {"train": [], "val": []}
    for n, file in enumerate(files):
        name = Path(file).stem
        row = f"bingmap/19/{name}.jpg,streetview/panos/{name}.jpg,streetview/annotations/{name}.png\n"
        rows["val" if n % 5 == 4 else "train"].append(row)
    for split, lines in rows.items():
        _write(out / "cvusa" / "splits" / f"{split}-19zl.csv", "".join(lines).encode())


def _write_coco(out: Path, pages: Iterable[tuple[str, list[Block]]]) -> None:
    """Write M6Doc's annotation files: boxes in pixels, classes by their numbers."""
    categories = [{"supercategory": "", "id": n, "name": name} for n, name in enumerate(m6doc.CATEGORIES)]
    number = {name: n for n, name in enumerate(m6doc.CATEGORIES)}
    splits: dict[str, dict[str, list[dict]]] = {}
    for file, layout in pages:
        _, split, name = file.split("/")
        coco = splits.setdefault(split, {"images": [], "annotations": []})
        page = len(coco["images"]) + 1
        coco["images"].append({"id": page, "file_name": name, "width": SIZE, "height": SIZE})
        names = _COMMON | _CLASS[name.split("_")[0]]
        for block in layout:
            x0, y0, x1, y1 = (v * SIZE for v in block.box)
            bbox = [round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2)]
            row = {
                "id": len(coco["annotations"]) + 1,
                "image_id": page,
                "category_id": number[names[block.kind]],
            }
            row |= {"bbox": bbox, "area": round(bbox[2] * bbox[3], 2), "iscrowd": 0}
            coco["annotations"].append(row)
    for split, coco in splits.items():
        _json(out / "m6doc" / "annotations" / f"instances_{split}.json", coco | {"categories": categories})


def _write_loki(out: Path, truths: list[GroundTruth], seed: int) -> None:
    """Write both JSON files of LOKI; people described two of three fakes that show something."""
    rows: list[dict[str, Any]] = []
    described: list[dict[str, Any]] = []
    for n, truth in enumerate(truths):
        path = truth.path.removeprefix("loki/")
        kind, category = ("fake" if truth.label == FAKE else "real"), path.split("/")[1]
        for wanted, words in (("fake", "generated by AI"), ("real", "a real one")):
            row = {
                "image_path": path,
                "question": f"Is this image {words}?",
                "answer": "Yes" if wanted == kind else "No",
            }
            row |= {"metric": "open-ended", "modality": "image-text"}
            row |= {"question_type": f"image_tf_image_{kind}_ask_{wanted}_{category}", "choices": None}
            rows.append(row | {"id": len(rows)})
        if truth.artifacts and n % 3:
            problems = export_words.loki_problems(truth, SIZE, np.random.default_rng([seed, 11, n]))
            row = {"image_path": path, "question": "What is wrong with this image?"}
            row |= {"metric": "image-model-as-judge", "modality": "image-text", "problems": problems}
            described.append(row | {"id": len(described)})
    folder = out / "loki" / "data_json" / "image"
    _json(folder / "true_or_false.json", rows)
    _json(folder / "open_ended_vqa.json", described, encoding="utf-16")


def _spoil(out: Path, files: list[str], copies: int) -> None:
    """Copy photographs to a second generator and add broken files, as the real corpus has them."""
    photographs = [f for f in files if f.startswith("genimage/Midjourney/train/nature/")][:copies]
    for file in photographs:
        shutil.copyfile(out / file, out / file.replace("/Midjourney/", "/BigGAN/"))
    whole = (out / next(f for f in files if "/ADM/train/ai/" in f)).read_bytes()
    _write(out / "genimage/ADM/train/ai/416_adm_45.JPEG", whole[: len(whole) // 2])
    _write(out / "genimage/Wukong/train/nature/n02099601_404.JPEG", b"")
    page = b"<html><body>503 Service Unavailable</body></html>\n"
    _write(out / "genimage/GLIDE/train/nature/n02099601_503.JPEG", page)


def export(out: Path, seed: int = 17, sizes: Sizes | None = None, workers: int = 1) -> dict[str, int]:
    """Write all corpora and `truth.jsonl` below `out`, in place of old ones; other files are left alone.

    Returns:
        bytes by corpus, and of the truth.

    Raises:
        UserError: the number of videos is odd.
    """
    sizes = sizes or Sizes()
    if sizes.videos % 2:
        raise UserError(f"{sizes.videos} videos do not make pairs", "take an even number")
    for corpus in CORPORA:
        shutil.rmtree(out / corpus, ignore_errors=True)
    files, ground_truth, layouts = [], [], {}
    for file, data, truth, layout in _run(paint, jobs(sizes, seed), workers, "painting"):
        _write(out / file, data)
        files.append(file)
        ground_truth.append(truth)
        if layout is not None:
            layouts[file] = layout
    faces: list[GroundTruth] = []
    videos = export_faces.video_jobs(sizes.videos, sizes.frames, seed)
    for file, data, frames in _run(export_faces.film, videos, workers, "filming", unit="video"):
        _write(out / file, data)
        faces += frames
    export_faces.write_splits(out, sizes.videos, seed)
    export_faces.write_ddvqa(out, sizes.videos, seed, faces)
    _write_cvusa_splits(out, [f for f in files if f.startswith("cvusa/")])
    _write_coco(out, [(f, layout) for f, layout in layouts.items() if f.startswith("m6doc/")])
    _write_loki(out, [t for t in ground_truth if t.path.startswith("loki/")], seed)
    _spoil(out, files, sizes.copies)
    write_ground_truth(sorted([*ground_truth, *faces], key=lambda t: t.path), out / "truth.jsonl")
    weights = {c: sum(f.stat().st_size for f in (out / c).rglob("*") if f.is_file()) for c in CORPORA}
    return weights | {"truth.jsonl": (out / "truth.jsonl").stat().st_size}
