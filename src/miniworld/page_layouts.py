"""Layouts of drawn pages: newspapers, papers (scientific articles) and magazines."""

import numpy as np

from fakevlm.data.page_layout import Block, in_order

Column = tuple[float, float]  # left and right


def sample_layout(rng: np.random.Generator, style: str) -> list[Block]:
    """Return a layout in one of `page_layout.STYLES`."""
    makers = {"newspaper": _newspaper, "paper": _paper, "magazine": _magazine}
    return in_order(makers[style](rng))


def _columns(margin: float, n: int, gutter: float) -> list[Column]:
    width = (1 - margin - margin - gutter * (n - 1)) / n
    return [(margin + i * (width + gutter), margin + i * (width + gutter) + width) for i in range(n)]


def _captioned(x0: float, x1: float, y: float, height: float) -> list[Block]:
    """Return a figure and the caption below it."""
    bottom = y + height
    return [Block("figure", (x0, y, x1, bottom)), Block("caption", (x0, bottom + 0.008, x1, bottom + 0.034))]


def _fill(
    rng: np.random.Generator, column: Column, y: float, bottom: float,
    *, figure: float, heading: float, table: float = 0.0,
) -> list[Block]:  # fmt: skip
    """Fill a column from `y` to `bottom` with paragraphs, and with the others at these rates."""
    (x0, x1), blocks, space = column, [], 0.016
    while bottom - y > 0.05:
        left, draw = bottom - y, rng.random()
        if draw < figure and left > 0.24:
            h = rng.uniform(0.13, min(0.26, left - 0.08))
            blocks += _captioned(x0, x1, y, h)
            y += h + 0.034 + space
        elif draw < figure + table and left > 0.2:
            h = rng.uniform(0.1, 0.17)
            blocks.append(Block("table", (x0, y, x1, y + h)))
            y += h + space
        elif draw < figure + table + heading and left > 0.16:
            blocks.append(Block("title", (x0, y, x0 + (x1 - x0) * rng.uniform(0.55, 1.0), y + 0.03)))
            y += 0.03 + 0.012
        else:
            h = min(rng.uniform(0.1, 0.3), left)
            h = left if left - h < 0.07 else h
            blocks.append(Block("text", (x0, y, x1, y + h)))
            y += h + space
    return blocks


def _newspaper(rng: np.random.Generator) -> list[Block]:
    m, y = rng.uniform(0.035, 0.06), rng.uniform(0.03, 0.045)
    if rng.random() < 0.55:  # a front page carries its flag, an inner page a running head
        h = rng.uniform(0.06, 0.09)
        head = Block("title", (0.5 - rng.uniform(0.22, 0.38), y, 0.5 + rng.uniform(0.22, 0.38), y + h))
    else:
        h = 0.025
        head = Block("header", (m, y, m + rng.uniform(0.3, 0.9 - m), y + h))
    y += h + 0.012
    blocks = [head, Block("rule", (m, y, 1 - m, y + 0.01))]
    y += 0.022
    n = int(rng.integers(3, 6))
    columns = _columns(m, n, 0.028)
    span = int(rng.integers(2, n + 1))
    first = int(rng.integers(0, n - span + 1))
    x0, x1 = columns[first][0], columns[first + span - 1][1]
    lead = rng.uniform(0.045, 0.075)
    blocks.append(Block("title", (x0, y, x1, y + lead)))
    below = y + lead + 0.014
    tops = [below if first <= i < first + span else y for i in range(n)]
    if rng.random() < 0.75:  # the lead picture hangs under the headline
        wide = int(rng.integers(max(1, span - 1), span + 1))
        h = rng.uniform(0.18, 0.28)
        blocks += _captioned(x0, columns[first + wide - 1][1], below, h)
        tops[first : first + wide] = [below + h + 0.05] * wide
    for column, top in zip(columns, tops, strict=True):
        blocks += _fill(rng, column, top, 0.955, figure=0.07, heading=0.22)
    return blocks


def _paper(rng: np.random.Generator) -> list[Block]:
    m, y = rng.uniform(0.09, 0.12), rng.uniform(0.05, 0.08)
    blocks = []
    if rng.random() < 0.5:  # the first page
        half = rng.uniform(0.25, 0.38)
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
        h = rng.uniform(*heights)
        blocks.append(Block(kind, (m, y, 1 - m, y + h)))
        blocks.append(Block("caption", (m, y + h + 0.01, 1 - m, y + h + 0.038)))
        y += h + 0.055
    for column in _columns(m, 2 if rng.random() < 0.8 else 1, 0.035):
        blocks += _fill(rng, column, y, 0.925, figure=0.1, heading=0.2, table=0.08)
    number = 0.5 + rng.uniform(-0.01, 0.01)
    return [*blocks, Block("footer", (number - 0.025, 0.948, number + 0.025, 0.968))]


def _magazine(rng: np.random.Generator) -> list[Block]:
    m = rng.uniform(0.05, 0.09)
    blocks, y = [], m
    if rng.random() < 0.6:  # a picture that bleeds to the page's edge
        h = rng.uniform(0.28, 0.45)
        blocks.append(Block("figure", (0.0, 0.0, 1.0, h)))
        y = h + 0.025
    half, h = rng.uniform(0.5, 0.9), rng.uniform(0.06, 0.1)
    blocks.append(Block("title", (m, y, m + half * (1 - 2 * m), y + h)))
    y += h + 0.015
    if rng.random() < 0.6:
        blocks.append(Block("caption", (m, y, m + 0.8 * (1 - 2 * m), y + 0.03)))
        y += 0.048
    for column in _columns(m, int(rng.integers(2, 4)), 0.04):
        blocks += _fill(rng, column, y, 0.92, figure=0.16, heading=0.12)
    x = m if rng.random() < 0.5 else 1 - m - 0.1
    return [*blocks, Block("footer", (x, 0.945, x + 0.1, 0.965))]
