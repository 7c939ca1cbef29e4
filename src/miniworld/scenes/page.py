"""Document pages: titles, columns of text, figures, tables and rules, from a layout."""

import numpy as np

from fakevlm.data.page_layout import STYLES, Block
from miniworld.canvas import Canvas, Colour, Part, shade
from miniworld.page_layouts import sample_layout
from miniworld.stagecraft import Box, Brief, Set, box


def draw(c: Canvas, brief: Brief) -> Set:
    """Draw a page (newspaper, paper or magazine). Flaws: garbled rows of text, rows that wave."""
    style = brief.pick(*STYLES)
    layout: list[Block] = brief.layout or sample_layout(brief.rng, style)
    c.fill(brief.colour((0.08, 0.16), (0.0, 0.14), (0.86, 0.99)), Part.PAPER)
    ink = shade((60, 58, 66), brief.uniform(0.4, 1.3))
    texts = [
        n for n, block in enumerate(layout) if block.kind in ("text", "table") and _area(block.box) > 0.03
    ]
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


def _area(b: Box) -> float:
    return (b[2] - b[0]) * (b[3] - b[1])


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
