"""Layouts of pages: which block is where, in fractions of the page, so that one layout serves every size."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

STYLES = ("newspaper", "paper", "magazine")

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Block:
    """One block of a page; a renderer may set it by its finer class or go by its kind alone."""

    kind: str  # title, text, figure, caption, table, rule, header or footer
    box: Box  # left, top, right, bottom as fractions of the page's width and height
    name: str = field(default="", compare=False)  # finer class of the annotation, if any (`unordered list`)


def clipped(box: Sequence[float], least: float = 0.006) -> Box | None:
    """Return the box within the page, or None if next to nothing of it is left."""
    x0, y0, x1, y1 = (float(min(max(v, 0.0), 1.0)) for v in box)
    return (x0, y0, x1, y1) if x1 - x0 >= least and y1 - y0 >= least else None


def in_order(blocks: Iterable[Block]) -> list[Block]:
    """Sort blocks from top to bottom, left to right."""
    return sorted(blocks, key=lambda block: (block.box[1], block.box[0], block.kind))


def jitter(layout: Sequence[Block], rng: np.random.Generator) -> list[Block]:
    """Return a variation: maybe mirrored, margins moved, blocks nudged, a few changed or dropped.

    Blocks never grow beyond their old place by more than a gutter, so columns do not run into one another.
    """
    flip, scale = rng.random() < 0.5, rng.uniform(0.96, 1.0, 2)
    shift = rng.uniform(0.0, 1.0, 2) * (1.0 - scale)
    varied = []
    for block in layout:
        x0, y0, x1, y1 = block.box
        if flip:
            x0, x1 = 1.0 - x1, 1.0 - x0
        nudge = rng.normal(0.0, 0.004, 4)
        box = clipped(np.tile(shift, 2) + np.tile(scale, 2) * (x0, y0, x1, y1) + nudge)
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
