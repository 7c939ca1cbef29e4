"""Writing too small to read: rows of strokes with even height and spacing, or (the flaw) an irregular scribble."""

import numpy as np

from miniworld.canvas import Canvas, Colour, Part


def row(
    c: Canvas,
    rng: np.random.Generator,
    x0: float,
    x1: float,
    y: float,
    height: float,
    ink: Colour,
    part: Part = Part.TEXT,
) -> None:
    """One honest row: words as even bars of strokes on one baseline, y its middle."""
    x = x0
    while x < x1 - 0.012:
        word = min(float(rng.uniform(0.03, 0.085)), x1 - x)
        c.rect(x, y - height / 2, x + word, y + height / 2, ink, part)
        x += word + 0.016


def garbled_row(
    c: Canvas,
    rng: np.random.Generator,
    x0: float,
    x1: float,
    y: float,
    height: float,
    ink: Colour,
    part: Part = Part.TEXT,
) -> None:
    """One garbled row: a scribble of loops that leaves the baseline, with blots of uneven size."""
    n = max(8, int((x1 - x0) / 0.011))
    t = np.linspace(0, 1, n)
    ys = y + rng.uniform(-1, 1, n) * height * 1.5
    xs = x0 + t * (x1 - x0) + rng.uniform(-0.008, 0.008, n)
    c.line(list(zip(xs.tolist(), ys.tolist(), strict=True)), 0.009, ink, part)
    for _ in range(max(1, int((x1 - x0) / 0.12))):
        r = float(rng.uniform(0.5, 1.1)) * height
        c.ellipse(
            float(rng.uniform(x0, x1)), y + float(rng.uniform(-0.4, 0.4)) * height, r, r * 0.8, ink, part
        )
