"""Words in figures: measured and wrapped by their drawn width, and the names that things have in print."""

import functools

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

BENCHMARKS = {
    "fakeclue": "FakeClue",
    "loki": "LOKI",
    "dmimage": "DMimage",
    "ddvqa": "DD-VQA",
    "ffpp": "FF++",
}
METRICS = {
    "acc": "Acc",
    "f1": "F1",
    "f1_real": "F1 (real)",
    "f1_fake": "F1 (fake)",
    "f1_macro": "F1 (macro)",
    "auc": "AUC",
    "rouge_l": "ROUGE-L",
    "css": "CSS",
    "clue_precision": "Clue precision",
    "clue_recall": "Clue recall",
    "unparsed": "Unparsed",
}
CATEGORY_NAMES = {
    "animal": "animals",
    "human": "people",
    "object": "objects",
    "scene": "scenery",
    "satellite": "satellite",
    "doc": "documents",
    "deepfake": "deepfake",
    "medicine": "medicine",
}
LABELS = {0: "fake", 1: "real"}

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


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def count(number: int | float) -> str:
    """1234567 → "1,234,567"."""
    return f"{int(number):,}"
