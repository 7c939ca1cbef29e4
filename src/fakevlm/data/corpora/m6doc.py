"""M6Doc (Cheng et al., CVPR 2023): 9,080 pages of seven document types with 237,116 boxes in 74 classes.

    <root>/annotations/instances_{train2017,val2017,test2017}.json   COCO; the last also instances_test.json
    <root>/{train2017,val2017,test2017}/<file>.jpg   the last also test

FakeClue uses newspapers, papers (scientific articles) and magazines. No field holds a page's type: see
`page_style`. Synthetic documents get their layouts here too (`usable_layouts`).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakevlm.data.corpora.files import SOURCES, Drawn, Unusable, load
from fakevlm.data.page_layout import STYLES, Block, layout_from_coco
from fakevlm.data.records import REAL, Record

SOURCE = SOURCES["m6doc"]

# Class names by category id; 0 is the background, which is never annotated.
CATEGORIES = tuple(Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines())

_WORDS = {"newspaper": "newspaper", "magazine": "magazine", "paper": "paper", "article": "paper"}
# Classes that only, or nearly only, one type of document has.
_NEWS = "headline, flag, dateline, jump line, kicker, subhead, teasers, byline, index"
_SCIENCE = "institute, section title, sub section title, reference, table caption, algorithm, title"
_GLOSSY = "drop cap, lead, breakout, credit, mugshot, inside, editor's note, folio"
_TELLING = {"newspaper": _NEWS.split(", "), "paper": _SCIENCE.split(", "), "magazine": _GLOSSY.split(", ")}
_OTHER = ("question", "option", "level title", "chapter title", "examinee", "sealing", "matching", "answer")


@dataclass(frozen=True)
class Page:
    """One page: its image file, size in pixels, type (one of `STYLES` or None) and layout."""

    file: Path
    width: int
    height: int
    style: str | None
    layout: tuple[Block, ...]

    @property
    def id(self) -> str:
        return f"doc/real/{self.file.name}"


def page_style(file: str, classes: Iterable[str]) -> str | None:
    """Return the type of a page: by a word in its file's name, else by most of its telling classes.

    None for textbooks, tests, notes, books, and for pages without a telling class.
    """
    stem = Path(file).stem.lower()
    if re.search(r"test.?paper|textbook", stem):
        return None
    for word, style in _WORDS.items():
        if word in stem:
            return style
    counts = Counter(classes)
    votes = {style: sum(counts[name] for name in names) for style, names in _TELLING.items()}
    other = sum(n for name, n in counts.items() if any(word in name for word in _OTHER))
    best = max(votes, key=lambda style: votes[style])
    return best if votes[best] > other else None


def pages(root: Path) -> Iterator[Page]:
    """Stream all pages of all annotation files, in the files' order.

    Raises:
        UserError: no annotation file, or one is not COCO's JSON.
    """
    files = sorted((root / "annotations").glob("instances_*.json"))
    if not files:
        raise SOURCE.error(f"no instances_*.json in {root / 'annotations'}")
    for file in files:
        split = file.stem.removeprefix("instances_")
        folders = [root / name for name in (split, f"{split}2017", split.removesuffix("2017"))]
        folder = SOURCE.folder(next((f for f in folders if f.is_dir()), folders[0]))
        coco = SOURCE.json(file, dict)
        try:
            names = {category["id"]: category["name"] for category in coco["categories"]}
            by_image = defaultdict(list)
            for box in coco["annotations"]:
                by_image[box["image_id"]].append(box)
            for image in coco["images"]:
                name, width, height = image["file_name"], image["width"], image["height"]
                boxes = by_image[image["id"]]
                style = page_style(name, [names[box["category_id"]] for box in boxes])
                layout = layout_from_coco(boxes, coco["categories"], width, height)
                yield Page(folder / name, int(width), int(height), style, tuple(layout))
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise SOURCE.error(f"{file} is not a COCO file ({error!r})") from error


def read(
    root: Path, drawn: Drawn | None = None, styles: Collection[str] | None = STYLES
) -> Iterator[Record | Unusable]:
    """Stream the pages of the given types (None: all); a missing image is unusable, drawn or not."""
    for page in pages(root):
        if styles is not None and page.style not in styles:
            continue
        if page.file.is_file():
            yield from load(page.file, page.id, drawn, label=REAL, source="doc", category="doc")
        else:
            yield Unusable("m6doc", page.file.relative_to(root).as_posix(), "named in the JSON but missing")


def usable_layouts(root: Path, styles: Sequence[str] = STYLES) -> list[Page]:
    """Return the pages whose layouts can be filled: of the given types, with at least three blocks."""
    return [page for page in pages(root) if page.style in styles and len(page.layout) >= 3]
