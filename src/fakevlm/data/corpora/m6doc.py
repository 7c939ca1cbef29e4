"""M6Doc (Cheng et al., CVPR 2023): 9,080 pages of seven document types with 237,116 boxes in 74 classes.

    <root>/annotations/instances_{train2017,val2017,test2017}.json   COCO; the last also instances_test.json
    <root>/{train2017,val2017,test2017}/<file>.jpg   the last also test

FakeClue uses newspapers, papers (scientific articles) and magazines; see `page_style`.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from fakevlm.data.corpora.files import SOURCES, inside
from fakevlm.data.corpora.imagefolders import Place
from fakevlm.data.page_layout import Block, clipped, in_order
from fakevlm.data.records import REAL

SOURCE = SOURCES["m6doc"]
_TABLES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
CATEGORIES = tuple(_TABLES["classes"])  # by category id
_KINDS = {name.lower(): kind for name, kind in _TABLES["classes"].items()}
_WORDS = {"newspaper": "newspaper", "magazine": "magazine", "paper": "paper", "article": "paper"}


@dataclass(frozen=True)
class Page:
    """One page: its image file, size in pixels, type (of `page_layout.STYLES`, or None) and layout."""

    file: Path
    width: int
    height: int
    style: str | None
    layout: tuple[Block, ...]

    @property
    def id(self) -> str:
        return f"doc/real/{self.file.name}"


def _plain(category: str) -> str:
    return category.lower().replace("_", " ").strip()


def block_kind(category: str) -> str:
    """Return the kind of block that a category stands for (`first-level title` → `title`), else `text`."""
    return _KINDS.get(_plain(category), "text")


def page_style(file: str, classes: Iterable[str]) -> str | None:
    """Return the type of a page: by a word in its file's name, else by most of its telling classes.

    M6Doc has no field for it. None for textbooks, tests, notes, books, and without a telling class.
    """
    stem = Path(file).stem.lower()
    if re.search(r"test.?paper|textbook", stem):
        return None
    for word, style in _WORDS.items():
        if word in stem:
            return style
    counts = Counter(classes)
    votes = {style: sum(counts[name] for name in names) for style, names in _TABLES["telling"].items()}
    other = sum(n for name, n in counts.items() if any(word in name for word in _TABLES["other"]))
    best = max(votes, key=lambda style: votes[style])
    return best if votes[best] > other else None


def _blocks(
    boxes: Iterable[Mapping[str, Any]], names: Mapping[int, str], width: float, height: float
) -> Iterator[Block]:
    """Yield the blocks of COCO's boxes in pixels; without crowd regions and specks."""
    for box in boxes:
        x, y, w, h = box["bbox"]
        if not math.isfinite(x + y + w + h):
            raise ValueError(f"bbox {box['bbox']}")
        place = clipped((x / width, y / height, (x + w) / width, (y + h) / height))
        if place is not None and not box.get("iscrowd"):
            name = names[box["category_id"]]
            yield Block(block_kind(name), place, _plain(name))


def pages(root: Path) -> Iterator[Page]:
    """Stream all pages in the files' order. Raises `UserError` if there is no file, or one is not COCO's."""
    files = {}
    for split, suffix in product(("test", "train", "val"), ("", "2017")):  # the second of two names counts
        if (file := root / f"annotations/instances_{split}{suffix}.json").is_file():
            files[split] = file
    if not files:
        raise SOURCE.error(f"no instances_*.json in {root / 'annotations'}")
    for split, file in files.items():
        folders = [root / f"{split}2017", root / split]
        folder = SOURCE.folder(next((f for f in folders if f.is_dir()), folders[0]))
        coco = SOURCE.json(file, dict)
        try:
            names = {category["id"]: category["name"] for category in coco["categories"]}
            by_image = defaultdict(list)
            for box in coco["annotations"]:
                by_image[box["image_id"]].append(box)
            if len({image["id"] for image in coco["images"]}) < len(coco["images"]):
                raise ValueError("two images have one id")
            for image in coco["images"]:
                name, width, height = image["file_name"], image["width"], image["height"]
                if not inside(name) or width <= 0 or height <= 0:
                    raise ValueError(f"image {name!r} of {width} x {height} pixels")
                boxes = by_image[image["id"]]
                style = page_style(name, [names[box["category_id"]] for box in boxes])
                layout = in_order(_blocks(boxes, names, width, height))
                yield Page(folder / name, int(width), int(height), style, tuple(layout))
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise SOURCE.error(f"{file} is not a COCO file ({error!r})") from error


def places(root: Path) -> Iterator[Place]:
    """Yield the pages of the three types."""
    fields = {"label": REAL, "source": "doc", "category": "doc"}
    yield from (Place(page.file, page.id, fields) for page in pages(root) if page.style is not None)
