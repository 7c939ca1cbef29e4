"""Page layouts: which block is where. First half of "layout first, content after" (paper section 3.1).

A layout is a list of blocks in fractions of the page, so that one layout serves every page size. Layouts come
from three places: sampled (`sample_layout`), read from COCO annotations such as M6Doc's (`layout_from_coco`),
or varied from another (`jitter`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

KINDS = ("title", "text", "figure", "caption", "table", "rule", "header", "footer")
STYLES = ("newspaper", "paper", "magazine")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Block:
    """One block of a page.

    Attributes:
        kind: one of `KINDS`.
        box: x0, y0, x1, y1 as fractions of the page's width and height, x0 < x1 and y0 < y1.
        name: the annotation's finer class, where there is one (`unordered list`, whose kind is text); a
            renderer may set it accordingly or go by the kind alone.
    """

    kind: str
    box: Box
    name: str = field(default="", compare=False)


# Words in M6Doc's class names, by the kind of block that they stand for; the first that fits counts. A class
# without any of them (options, questions, lists) is running text.
_WORDS = {
    "caption": ("caption", "table note"),
    "figure": (
        "figure",
        "mugshot",
        "advertisement",
        "picture",
        "image",
        "barcode",
        "qr code",
        "weather forecast",
    ),
    "table": ("table",),
    "rule": ("underscore", "sealing line"),
    "footer": ("page number", "footer"),
    "text": ("footnote",),
    "header": ("header", "folio"),
    "title": ("flag", "headline", "title", "subhead", "kicker"),
}
_NAMES = {"section": "header", "part": "title"}  # a newspaper's section in the page's head; a part's name


def _plain(category: str) -> str:
    return category.lower().replace("_", " ").strip()


def block_kind(category: str) -> str:
    """Return the kind of block that a COCO category name stands for (`first-level title` → `title`)."""
    name = _plain(category)
    matching = (kind for kind, words in _WORDS.items() if any(word in name for word in words))
    return _NAMES.get(name) or next(matching, "text")


def _clip(box: Sequence[float], least: float = 0.006) -> Box | None:
    """Return the box within the page, or None if next to nothing of it is left."""
    x0, y0, x1, y1 = (float(min(max(v, 0.0), 1.0)) for v in box)
    return (x0, y0, x1, y1) if x1 - x0 >= least and y1 - y0 >= least else None


def _in_order(blocks: Iterable[Block]) -> list[Block]:
    """Sort blocks from top to bottom, left to right."""
    return sorted(blocks, key=lambda block: (block.box[1], block.box[0], block.kind))


def layout_from_coco(
    annotations: Iterable[Mapping[str, Any]],
    categories: Iterable[Mapping[str, Any]],
    width: float,
    height: float,
) -> list[Block]:
    """The layout of one page from its COCO annotations.

    Args:
        annotations: the page's annotations: `bbox` [x, y, w, h] in pixels, `category_id`.
        categories: the file's categories: `id`, `name`.
        width, height: the page's size in pixels.

    Returns:
        Blocks from top to bottom, left to right. Boxes reaching over the page's edge are clipped, specks and
        crowd regions left out.
    """
    names = {c["id"]: str(c["name"]) for c in categories}
    blocks = []
    for annotation in annotations:
        if annotation.get("iscrowd"):
            continue
        x, y, w, h = annotation["bbox"]
        box = _clip((x / width, y / height, (x + w) / width, (y + h) / height))
        if box is not None:
            name = names.get(annotation["category_id"], "")
            blocks.append(Block(block_kind(name), box, _plain(name)))
    return _in_order(blocks)


def jitter(layout: Sequence[Block], rng: np.random.Generator) -> list[Block]:
    """Return a variation: maybe mirrored, margins moved, blocks nudged, a few changed or dropped.

    Blocks never grow beyond their old place by more than a gutter, so columns do not run into one another.
    """
    flip = rng.random() < 0.5
    scale = rng.uniform(0.96, 1.0, 2)
    shift = rng.uniform(0.0, 1.0, 2) * (1.0 - scale)
    varied = []
    for block in layout:
        x0, y0, x1, y1 = block.box
        if flip:
            x0, x1 = 1.0 - x1, 1.0 - x0
        nudge = rng.normal(0.0, 0.004, 4)
        box = _clip(np.tile(shift, 2) + np.tile(scale, 2) * (x0, y0, x1, y1) + nudge)
        kind, draw = block.kind, rng.random()
        if kind == "text" and draw < 0.03:
            kind = "figure"
        elif kind in ("figure", "table") and draw < 0.2:
            kind = "table" if kind == "figure" else "figure"
        elif kind in ("caption", "rule", "header", "footer") and draw < 0.05 and len(layout) > 3:
            continue
        if box is not None:
            varied.append(Block(kind, box, block.name if kind == block.kind else ""))
    return varied


def sample_layout(rng: np.random.Generator, style: str) -> list[Block]:
    """Return a layout in one of `STYLES`: `newspaper`, `paper` (a scientific article) or `magazine`."""
    makers = {"newspaper": _newspaper, "paper": _paper, "magazine": _magazine}
    if style not in makers:
        raise ValueError(f"style {style!r} is none of {STYLES}")
    return _in_order(makers[style](rng))


def _columns(left: float, right: float, n: int, gutter: float) -> list[tuple[float, float]]:
    width = (right - left - gutter * (n - 1)) / n
    return [(left + i * (width + gutter), left + i * (width + gutter) + width) for i in range(n)]


def _captioned(x0: float, x1: float, y: float, height: float) -> list[Block]:
    """Return a figure and the caption below it."""
    bottom = y + height
    return [Block("figure", (x0, y, x1, bottom)), Block("caption", (x0, bottom + 0.008, x1, bottom + 0.034))]


def _fill(
    rng: np.random.Generator, column: tuple[float, float], top: float, bottom: float, **rates: float
) -> list[Block]:
    """Fill a column with paragraphs, and at these rates with `figure`, `table` and `heading`."""
    figure, table = rates["figure"], rates["figure"] + rates.get("table", 0.0)
    (x0, x1), blocks, y, space = column, [], top, 0.016
    while bottom - y > 0.05:
        left, draw = bottom - y, rng.random()
        if draw < figure and left > 0.24:
            h = float(rng.uniform(0.13, min(0.26, left - 0.08)))
            blocks += _captioned(x0, x1, y, h)
            y += h + 0.034 + space
        elif draw < table and left > 0.2:
            h = float(rng.uniform(0.1, 0.17))
            blocks.append(Block("table", (x0, y, x1, y + h)))
            y += h + space
        elif draw < table + rates["heading"] and left > 0.16:
            blocks.append(Block("title", (x0, y, x0 + (x1 - x0) * rng.uniform(0.55, 1.0), y + 0.03)))
            y += 0.03 + 0.012
        else:
            h = float(min(rng.uniform(0.1, 0.3), left))
            h = left if left - h < 0.07 else h
            blocks.append(Block("text", (x0, y, x1, y + h)))
            y += h + space
    return blocks


def _newspaper(rng: np.random.Generator) -> list[Block]:
    m = float(rng.uniform(0.035, 0.06))
    y = float(rng.uniform(0.03, 0.045))
    if rng.random() < 0.55:  # a front page carries its flag, an inner page a running head
        h = float(rng.uniform(0.06, 0.09))
        head = Block("title", (0.5 - rng.uniform(0.22, 0.38), y, 0.5 + rng.uniform(0.22, 0.38), y + h))
    else:
        h = 0.025
        head = Block("header", (m, y, m + rng.uniform(0.3, 0.9 - m), y + h))
    y += h + 0.012
    blocks = [head, Block("rule", (m, y, 1 - m, y + 0.01))]
    y += 0.022
    n = int(rng.integers(3, 6))
    columns = _columns(m, 1 - m, n, 0.028)
    span = int(rng.integers(2, n + 1))
    first = int(rng.integers(0, n - span + 1))
    x0, x1 = columns[first][0], columns[first + span - 1][1]
    lead = float(rng.uniform(0.045, 0.075))
    blocks.append(Block("title", (x0, y, x1, y + lead)))
    below = y + lead + 0.014
    tops = [below if first <= i < first + span else y for i in range(n)]
    if rng.random() < 0.75:  # the lead picture hangs under the headline
        wide = int(rng.integers(max(1, span - 1), span + 1))
        h = float(rng.uniform(0.18, 0.28))
        blocks += _captioned(x0, columns[first + wide - 1][1], below, h)
        tops[first : first + wide] = [below + h + 0.05] * wide
    for column, top in zip(columns, tops, strict=True):
        blocks += _fill(rng, column, top, 0.955, figure=0.07, heading=0.22)
    return blocks


def _paper(rng: np.random.Generator) -> list[Block]:
    m = float(rng.uniform(0.09, 0.12))
    y = float(rng.uniform(0.05, 0.08))
    blocks = []
    if rng.random() < 0.5:  # the first page
        half = float(rng.uniform(0.25, 0.38))
        blocks.append(Block("title", (0.5 - half, y, 0.5 + half, y + 0.05)))
        blocks.append(Block("text", (0.5 - half * 0.7, y + 0.062, 0.5 + half * 0.7, y + 0.1)))
        y += 0.125
        if rng.random() < 0.5:
            blocks.append(Block("text", (m + 0.06, y, 0.94 - m, y + 0.1)))
            y += 0.12
    elif rng.random() < 0.6:
        blocks.append(Block("header", (m, y - 0.02, m + rng.uniform(0.25, 0.6), y)))
        y += 0.015
    if rng.random() < 0.45:
        kind, heights = ("figure", (0.16, 0.26)) if rng.random() < 0.7 else ("table", (0.12, 0.2))
        h = float(rng.uniform(*heights))
        blocks.append(Block(kind, (m, y, 1 - m, y + h)))
        blocks.append(Block("caption", (m, y + h + 0.01, 1 - m, y + h + 0.038)))
        y += h + 0.055
    n = 2 if rng.random() < 0.8 else 1
    for column in _columns(m, 1 - m, n, 0.035):
        blocks += _fill(rng, column, y, 0.925, figure=0.1, heading=0.2, table=0.08)
    number = 0.5 + float(rng.uniform(-0.01, 0.01))
    blocks.append(Block("footer", (number - 0.025, 0.948, number + 0.025, 0.968)))
    return blocks


def _magazine(rng: np.random.Generator) -> list[Block]:
    m = float(rng.uniform(0.05, 0.09))
    blocks, y = [], m
    if rng.random() < 0.6:  # a picture that bleeds to the page's edge
        h = float(rng.uniform(0.28, 0.45))
        blocks.append(Block("figure", (0.0, 0.0, 1.0, h)))
        y = h + 0.025
    half = float(rng.uniform(0.5, 0.9))
    h = float(rng.uniform(0.06, 0.1))
    blocks.append(Block("title", (m, y, m + half * (1 - 2 * m), y + h)))
    y += h + 0.015
    if rng.random() < 0.6:
        blocks.append(Block("caption", (m, y, m + 0.8 * (1 - 2 * m), y + 0.03)))
        y += 0.048
    for column in _columns(m, 1 - m, int(rng.integers(2, 4)), 0.04):
        blocks += _fill(rng, column, y, 0.92, figure=0.16, heading=0.12)
    x = m if rng.random() < 0.5 else 1 - m - 0.1
    blocks.append(Block("footer", (x, 0.945, x + 0.1, 0.965)))
    return blocks
