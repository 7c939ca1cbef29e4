"""Text measured and wrapped by its drawn width."""

import functools

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

_PATHS = TextToPath()


@functools.cache
def width(text: str, size: float, weight: str = "normal", style: str = "normal") -> float:
    """The drawn width of a text in points."""
    if not text:
        return 0.0
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight, style=style)
    return _PATHS.get_text_width_height_descent(text, font, ismath=False)[0]


SLACK = 0.97  # glyphs fitted to pixels are drawn a little wider than their outlines measure


def wrap(
    text: str, points: float, size: float, *, weight: str = "normal", style: str = "normal", lines: int = 0
) -> list[str]:
    """Breaks a text into lines no wider than `points`; a word too long for a line is cut into pieces.

    Args:
        lines: at most so many, the last one ending in "…" if words are left; 0 for no limit.
    """
    points *= SLACK
    rows: list[str] = []
    for paragraph in text.split("\n"):
        row = ""
        for word in paragraph.split():
            trial = f"{row} {word}" if row else word
            if width(trial, size, weight, style) <= points:
                row = trial
                continue
            if row:
                rows.append(row)
            while width(word, size, weight, style) > points and len(word) > 1:
                cut = len(word) - 1
                while cut > 1 and width(word[:cut], size, weight, style) > points:
                    cut -= 1
                rows.append(word[:cut])
                word = word[cut:]
            row = word
        rows.append(row)
    while rows and not rows[-1]:
        rows.pop()
    if lines and len(rows) > lines:
        last = rows[lines - 1]
        while last and width(last + " …", size, weight, style) > points:
            last = last[:-1].rstrip()
        rows = [*rows[: lines - 1], last + " …"]
    return rows
