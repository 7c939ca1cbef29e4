"""Figures 5, 6 and 7 (images with answers) and Figure 2's example (an image and its captions)."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.textpath import TextToPath
from PIL import Image

from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.records import Record
from fakevlm.reporting import style
from fakevlm.reporting.style import Picture, drawing
from fakevlm.reporting.texts import CATEGORY_NAMES, LABELS, METHOD, UNTUNED

MAX_LINES = 15
LEADING = 1.32  # line height over font size
SLACK = 0.97  # glyphs fitted to pixels are drawn a little wider than their outlines measure

Box = tuple[float, float, float, float]  # x0, y0, x1, y1 as fractions of width and height


@dataclass(frozen=True)
class Case:
    """One image and what was said about it."""

    id: str
    image: Image.Image
    label: int  # 1 real, 0 fake
    category: str | None  # as the data set has it, None where unknown
    words: str = ""  # FakeVLM's answer
    verdict: str = ""  # `fake`, `real` or `unparsed`, as read from it
    reference: str = ""
    question: str | None = None  # None for the standard question
    base_words: str | None = None  # the untuned base's answer, None where it was not asked
    base_verdict: str | None = None
    kinds: tuple[str, ...] = ()  # true artifacts, where known
    boxes: tuple[Box, ...] = ()  # their regions
    true_category: str | None = None  # where known; a classifier may have sorted the image wrongly
    decides: bool = True  # a question about a part of a face asks for no verdict on the image
    chosen: str = "random"  # or `failure`

    @classmethod
    def of(cls, record: Record, ground_truth: GroundTruth | None = None, **values: Any) -> "Case":
        """Return a record as a case, with its true artifacts where they are known; `values` go first."""
        standard: dict[str, Any] = {"reference": "".join(record.references[:1]), "image": record.pil()}
        standard |= {name: getattr(record, name) for name in ("id", "label", "category", "question")}
        if ground_truth:
            standard["kinds"] = tuple(dict.fromkeys(artifact.kind for artifact in ground_truth.artifacts))
            standard["boxes"] = tuple(artifact.region for artifact in ground_truth.artifacts)
            standard["true_category"] = ground_truth.category
        return cls(**(standard | values))

    @property
    def label_name(self) -> str:
        return LABELS[self.label]

    def about(self) -> str:
        """Return a line on the image: category, label and its true artifacts."""
        name = CATEGORY_NAMES.get(self.category or "", self.category or "")
        if self.true_category and self.true_category != self.category:
            name += f" (in truth {CATEGORY_NAMES.get(self.true_category, self.true_category)})"
        kinds = ", ".join(kind.replace("_", " ") for kind in self.kinds)
        return f"{name}, {self.label_name}".lstrip(", ") + (f": {kinds}" if kinds else "")


def mark(verdict: str, label_name: str, decides: bool = True) -> tuple[str, str]:
    """Return (words, colour) for a verdict, right or wrong; no mark where none was asked for."""
    if not decides:
        return "no verdict asked", style.QUIET
    if verdict == label_name:
        return f"✓ says {verdict}", style.GREEN
    return ("✗ no verdict" if verdict == "unparsed" else f"✗ says {verdict}"), style.VERMILLION


@drawing
def cases(items: Sequence[Case]) -> Picture:
    """Rows of cases: image with true artifacts framed, FakeVLM's words, reference, the base's words."""
    if not items:
        return Picture(style.WIDE, 0.8).empty("not evaluated in this profile")
    size, side, gap, pad = 6.3, 1.12, 0.13, 0.05
    step, small = size * LEADING / 72, size - 0.4
    column = (style.WIDE - side - 4.4 * gap) / 3
    lefts = [side + 2 * gap + i * (column + gap) for i in range(3)]
    rows = []
    for case in items:
        texts = (case.words, case.reference, "(not asked)" if case.base_words is None else case.base_words)
        cells = [wrap(text or "–", column * 72, size, lines=MAX_LINES) for text in texts]
        prompt = f"Q: {case.question}" if case.question else ""
        question = wrap(prompt, (style.WIDE - side - 3 * gap) * 72, size, slant="italic")
        about = wrap(case.about(), side * 72, small)
        lines = max(len(cells[0]) + 1, len(cells[1]), len(cells[2]) + 1) + len(question)
        height = max(lines * step + 0.06, side + 0.05 + len(about) * small * LEADING / 72) + 2 * pad
        rows.append((case, cells, question, about, height))
    top = sum(row[-1] for row in rows) + 0.04
    picture, frame = _canvas(top + 0.22)
    for left, text in zip(lefts, (METHOD, "Reference", UNTUNED), strict=True):
        frame.text(left, top + 0.17, text, va="top", fontsize=size + 1, fontweight="bold")
    for case, cells, question, about, height in rows:
        frame.plot([0.03, style.WIDE - 0.03], [top, top], color=style.FAINT, linewidth=0.7)
        y = top - pad
        _photo(picture, case, gap, y - side, side, 256)
        _lines(frame, gap, y - side - 0.05, about, small, color=style.QUIET)
        y = _lines(frame, lefts[0], y, question, size, fontstyle="italic", color=style.QUIET)
        for left, lines, verdict in zip(lefts, cells, (case.verdict, None, case.base_verdict), strict=True):
            start = y
            if verdict is not None:
                words, colour = mark(verdict, case.label_name, case.decides)
                _lines(frame, left, y, [words], size, fontweight="bold", color=colour)
                start -= step * 1.06
            _lines(frame, left, start, lines, size)
        top -= height
    return picture


@drawing
def example(case: Case, captions: Mapping[str, str]) -> Picture:
    """One image, its captions by annotator, and their aggregate, its reference (paper Fig. 2, equation 1)."""
    size, side, gap = 6.8, 1.65, 0.15
    column, leading = style.WIDE - side - 0.42, size * LEADING / 72
    texts = [(name, text, style.QUIET) for name, text in captions.items()]
    texts.append(("Aggregate: the training answer", case.reference, style.BLUE))
    wrapped = [wrap(text, (column - 0.14) * 72, size) for _, text, _ in texts]
    below = wrap(case.about(), side * 72, size)
    boxed = sum(0.30 + leading * len(lines) for lines in wrapped) + gap * (len(texts) - 1) + 0.14
    total = max(boxed, side + 0.2 + len(below) * leading)
    picture, frame = _canvas(total + 0.06)
    _photo(picture, case, 0.06, total - side, side, 330)
    _lines(frame, 0.06, total - side - 0.07, below, size)
    left, top = side + 0.34, total
    for (name, _, colour), lines in zip(texts, wrapped, strict=True):
        bottom = top - 0.30 - leading * len(lines)
        paint = {"boxstyle": "round,pad=0,rounding_size=0.05", "facecolor": "white", "edgecolor": colour}
        frame.add_patch(FancyBboxPatch((left, bottom), column, top - bottom, linewidth=1.0, **paint))
        _lines(frame, left + 0.07, top - 0.06, [name], size + 0.3, fontweight="bold", color=colour)
        _lines(frame, left + 0.07, top - 0.22, lines, size)
        above, top = top, bottom - gap
    x = left + column / 2  # an arrow from the captions to the aggregate, the last box
    arrow = {"arrowstyle": "-|>", "color": style.QUIET, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    frame.annotate("", (x, above), (x, above + gap), arrowprops=arrow)
    return picture


@functools.cache
def width(text: str, size: float, slant: str = "normal") -> float:
    """Return the drawn width of a text in points."""
    font = FontProperties(family="DejaVu Sans", size=size, style=slant)
    return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0] if text else 0.0


def wrap(text: str, points: float, size: float, *, slant: str = "normal", lines: int = 0) -> list[str]:
    """Break a text into lines no wider than `points`; a word too long for a line is cut into pieces.

    Return at most `lines`, the last one ending in "…" if words are left; 0 is no limit.
    """

    def fits(row: str) -> bool:
        return width(row, size, slant) <= points * SLACK

    rows: list[str] = []
    for paragraph in text.rstrip().split("\n") if text.strip() else []:
        row = ""
        for word in paragraph.split():
            if row and not fits(f"{row} {word}"):
                rows.append(row)
                row = ""
            row = f"{row} {word}" if row else word
            while not fits(row) and len(row) > 1:
                cut = max((n for n in range(1, len(row)) if fits(row[:n])), default=1)
                rows.append(row[:cut])
                row = row[cut:]
        rows.append(row)
    if lines and len(rows) > lines:
        last = rows[lines - 1]
        while last and not fits(last + " …"):
            last = last.rpartition(" ")[0] or last[:-1]
        rows = [*rows[: lines - 1], last + " …"]
    return rows


def resized(image: Image.Image, side: int) -> Image.Image:
    """Return the image in RGB, its longer side `side` pixels long."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    method = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    return image.convert("RGB").resize(size, method)


def _canvas(height: float) -> tuple[Picture, Any]:
    """Return a wide picture and axes over all of it whose units are inches from its lower left corner."""
    picture = Picture(style.WIDE, height, layout="none")
    frame = picture.add_axes((0, 0, 1, 1))
    frame.set_axis_off()
    frame.set(xlim=(0, style.WIDE), ylim=(0, height))
    return picture, frame


def _photo(picture: Picture, case: Case, x: float, y: float, side: float, pixels: int) -> None:
    """Draw a case's image, framed at its boxes, in a square of `side` inches whose lower left is (x, y)."""
    page = np.array([picture.get_figwidth(), picture.get_figheight()] * 2)
    axes: Any = picture.add_axes(tuple(np.array([x, y, side, side]) / page))
    image = np.asarray(resized(case.image, pixels))
    height, width = image.shape[:2]
    axes.imshow(image, interpolation="none", extent=(0, width, height, 0))
    for x0, y0, x1, y1 in case.boxes:
        corner, size = (x0 * width, y0 * height), ((x1 - x0) * width, (y1 - y0) * height)
        for colour, linewidth in (("white", 2.0), (style.VERMILLION, 1.0)):  # seen on dark and light ground
            axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=linewidth))
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set(visible=True, linewidth=0.6)


def _lines(axes: Any, x: float, y: float, lines: Sequence[str], size: float, **kwargs: Any) -> float:
    """Draw lines of text from y (inches) downwards; return where the next one would stand."""
    step = size * LEADING / 72
    for i, line in enumerate(lines):
        axes.text(x, y - i * step, line, va="top", fontsize=size, **kwargs)
    return y - len(lines) * step
