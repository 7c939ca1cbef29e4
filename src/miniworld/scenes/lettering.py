"""Writing too small to read.

Rows of strokes with even height and spacing, or (the flaw) an irregular scribble.
"""

import numpy as np

from miniworld.canvas import Canvas, Colour, Part


def row(
    c: Canvas, rng: np.random.Generator, x0: float, x1: float, y: float, height: float, ink: Colour,
    part: Part = Part.TEXT,
) -> None:  # fmt: skip
    """Draw one honest row: words as bars on one baseline, y its middle."""
    x = x0
    while x < x1 - 0.012:
        word = min(float(rng.uniform(0.03, 0.085)), x1 - x)
        c.rect(x, y - height / 2, x + word, y + height / 2, ink, part)
        x += word + 0.016


def garbled_row(
    c: Canvas, rng: np.random.Generator, x0: float, x1: float, y: float, height: float, ink: Colour
) -> None:
    """Draw one garbled row: a scribble of loops that leaves the baseline, with blots of uneven size."""
    n = max(8, int((x1 - x0) / 0.011))
    ys = y + rng.uniform(-1, 1, n) * height * 1.5
    xs = x0 + np.linspace(0, 1, n) * (x1 - x0) + rng.uniform(-0.008, 0.008, n)
    c.line(np.stack([xs, ys], 1), 0.009, ink, Part.TEXT)
    for _ in range(max(1, int((x1 - x0) / 0.12))):
        r = float(rng.uniform(0.5, 1.1)) * height
        x, dy = float(rng.uniform(x0, x1)), float(rng.uniform(-0.4, 0.4)) * height
        c.ellipse(x, y + dy, r, r * 0.8, ink, Part.TEXT)
