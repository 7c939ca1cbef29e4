"""Document pages (newspapers, scientific articles, magazines): their layouts, and how these are drawn."""

import numpy as np

from fakevlm.data.page_layout import STYLES, Block, in_order
from miniworld.canvas import Canvas, Colour, Part, shade
from miniworld.stagecraft import Box, Brief, Set, box

Column = tuple[float, float]  # left and right


def draw_page(c: Canvas, brief: Brief) -> Set:
    """Draw a page (newspaper, paper or magazine). Flaws: garbled rows of text, rows that wave."""
    style = brief.pick(*STYLES)
    layout: list[Block] = brief.layout or sample_layout(brief.rng, style)
    c.fill(brief.colour((0.08, 0.16), (0.0, 0.14), (0.86, 0.99)), Part.PAPER)
    ink = shade((60, 58, 66), brief.uniform(0.4, 1.3))
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (block.box for block in layout)]
    texts = [n for n, block in enumerate(layout) if block.kind in ("text", "table") and areas[n] > 0.03]
    texts = texts or list(range(len(layout)))
    garbled: list[int] = []
    if "garble" in brief.flaws:
        garbled = brief.rng.choice(texts, min(len(texts), 1 + brief.chance(0.5)), replace=False).tolist()
    waved = texts[brief.integer(len(texts))] if "bent" in brief.flaws else -1
    if waved in garbled:
        waved = next((n for n in texts if n not in garbled), waved)
    anchors: dict[str, Box] = {}
    for n, block in enumerate(layout):
        x0, y0, x1, y1 = block.box
        first, last = block.box[:2], block.box[2:]
        if block.kind == "figure":
            _figure(c, brief, block.box)
            anchors["figure"] = block.box
        elif block.kind == "rule":
            c.line([(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2)], 0.01, ink, Part.DETAIL)
        elif block.kind == "title":
            tall = min(0.055, max(0.03, (y1 - y0) * 0.5))
            y = y0 + tall / 2
            while y < y1 and y + tall / 2 < 1:
                end = x1 - brief.uniform(0, 0.25) * (x1 - x0)
                brief.write(c, x0, end, y, tall, shade(ink, 0.5), Part.TITLE)
                y += tall * 1.7
            anchors["title"] = block.box
        else:
            _rows(c, brief, block.box, ink, garbled=n in garbled, waved=n == waved)
            if block.kind == "table":
                c.outline(block.box, 0.008, ink, Part.DETAIL)
            anchors.setdefault("text", block.box)
        if n in garbled:
            old = brief.flawed.get("garble", block.box)
            brief.flawed["garble"] = box(old[:2], old[2:], first, last, pad=0.01)
        if n == waved:
            brief.flawed["bent"] = box(first, last, pad=0.02)
    parts = (Part.PAPER, Part.TEXT, Part.TITLE, Part.FIGURE)
    return Set(parts, (0.5, 0.5, 0.4, 0.42), anchors, {"subject": style}, paper=True)


def _rows(c: Canvas, brief: Brief, b: Box, ink: Colour, *, garbled: bool, waved: bool) -> None:
    x0, y0, x1, y1 = b
    tall, step = 0.016, 0.052 if garbled else 0.036
    phase, waves = brief.uniform(0, 6.28), brief.uniform(1.0, 1.7)
    y = y0 + tall
    while y < y1:
        if garbled:
            brief.scribble(c, x0, x1, y, tall * 1.1, ink)
        elif waved:
            t = np.linspace(0, 1, 16)
            amplitude = (0.028 + 0.016 * brief.flaws["bent"]) * min(1.0, (x1 - x0) / 0.35 + 0.3)
            ys = y + amplitude * np.sin(2 * np.pi * waves * t + phase)
            c.line(np.stack([x0 + t * (x1 - x0), ys], 1), 0.016, ink, Part.TEXT)
        else:
            brief.write(c, x0, x1 if y + step < y1 else x0 + 0.6 * (x1 - x0), y, tall, ink)
        y += step


def _figure(c: Canvas, brief: Brief, b: Box) -> None:
    """Draw a small picture: sky and hills, or a chart with bars."""
    x0, y0, x1, y1 = b
    u = brief.uniform
    if brief.chance(0.6):
        middle = y0 + u(0.45, 0.7) * (y1 - y0)
        c.rect(x0, y0, x1, middle, brief.colour((0.5, 0.62), (0.2, 0.5), (0.6, 0.9)), Part.FIGURE)
        c.rect(x0, middle, x1, y1, brief.colour((0.15, 0.38), (0.2, 0.6), (0.35, 0.65)), Part.FIGURE)
        hill = [(x0, middle), (x0 + u(0.2, 0.7) * (x1 - x0), y0 + 0.2 * (y1 - y0)), (x1, middle)]
        c.poly(hill, brief.colour((0.1, 0.6), (0.1, 0.5), (0.3, 0.7)), Part.FIGURE)
    else:
        c.rect(x0, y0, x1, y1, (235, 235, 232), Part.FIGURE)
        tone = brief.colour((0, 1), (0.4, 0.8), (0.4, 0.8))
        n = max(3, int((x1 - x0) / 0.06))
        for k in range(n):
            a = x0 + (k + 0.2) * (x1 - x0) / n
            c.rect(a, y1 - u(0.2, 0.9) * (y1 - y0), a + 0.6 * (x1 - x0) / n, y1, tone, Part.FIGURE)


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
