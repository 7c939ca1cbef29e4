"""Figures 5, 6 and 7: cases with the image, the model's words and verdict, the reference, and the untuned base's words."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from fakevlm.reporting import style
from fakevlm.reporting.example_figure import LEADING, show
from fakevlm.reporting.style import Picture, drawing
from fakevlm.reporting.words import CATEGORY_NAMES, LABELS, wrap

MAX_LINES = 15


@dataclass(frozen=True)
class Case:
    """One image and what was said about it.

    Attributes:
        id: the record's id.
        image: the picture itself.
        label: 1 real, 0 fake.
        category: of the image, as the data set has it, None where unknown.
        true_category: the same where the truth is known; a classifier may have sorted the image wrongly.
        question: what was asked, None for the standard question.
        words: FakeVLM's answer.
        verdict: `fake`, `real` or `unparsed`, as read from it.
        reference: the reference answer, empty where there is none.
        base_words: the untuned base's answer, None where it was not asked.
        base_verdict: its verdict.
        kinds: true artifacts, where known.
        boxes: their regions, x0, y0, x1, y1 as fractions.
        decides: whether the question asks for a verdict on the image; one about a part of a face does not.
        chosen: how the case was drawn, e.g. `random` or `failure`.
    """

    id: str
    image: Image.Image
    label: int
    category: str | None
    words: str
    verdict: str
    reference: str = ""
    question: str | None = None
    base_words: str | None = None
    base_verdict: str | None = None
    kinds: tuple[str, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = field(default_factory=tuple)
    true_category: str | None = None
    decides: bool = True
    chosen: str = "random"

    @property
    def truth(self) -> str:
        return LABELS[self.label]

    @property
    def correct(self) -> bool:
        return self.verdict == self.truth

    def about(self) -> str:
        """A line on the image: category, truth and its true artifacts."""
        name = CATEGORY_NAMES.get(self.category or "", self.category or "")
        if self.true_category and self.true_category != self.category:
            name += f" (in truth {CATEGORY_NAMES.get(self.true_category, self.true_category)})"
        kinds = ", ".join(kind.replace("_", " ") for kind in self.kinds)
        return f"{name}, {self.truth}".lstrip(", ") + (f": {kinds}" if kinds else "")


def mark(verdict: str, truth: str, decides: bool = True) -> tuple[str, str]:
    """(words, colour) that say what a verdict was and whether it is right; no mark where none was asked for."""
    if not decides:
        return "no verdict asked", style.QUIET
    if verdict == truth:
        return f"✓ says {verdict}", style.GREEN
    return ("✗ no verdict" if verdict == "unparsed" else f"✗ says {verdict}"), style.VERMILLION


@drawing
def cases(items: Sequence[Case], *, method: str = "FakeVLM", base: str = "LLaVA (untuned)") -> Picture:
    """Rows of cases: image, the method's words, the reference, the untuned base's words; verdicts marked right or wrong.

    Long answers end in "…" after 15 lines. True regions of artifacts are framed.
    """
    if not items:
        picture = Picture(style.WIDE, 0.8)
        style.empty(picture.subplots(), "not evaluated in this profile")
        return picture
    size, side, gap, pad = 6.3, 1.12, 0.13, 0.05
    step = size * LEADING / 72
    texts = [method, "Reference", base]
    width = (style.WIDE - side - 4.4 * gap) / 3
    rows = []
    for case in items:
        base_words = case.base_words if case.base_words is not None else "(not asked)"
        cells = [
            wrap(t or "–", width * 72, size, lines=MAX_LINES)
            for t in (case.words, case.reference, base_words)
        ]
        question = (
            wrap(f"Q: {case.question}", (style.WIDE - side - 3 * gap) * 72, size, style="italic")
            if case.question
            else []
        )
        about = wrap(case.about(), side * 72, size - 0.4)
        lines = max(len(cells[0]) + 1, len(cells[1]), len(cells[2]) + 1) + len(question)
        height = max(lines * step + 0.06, side + 0.05 + len(about) * (size - 0.4) * LEADING / 72) + 2 * pad
        rows.append((case, cells, question, about, height))
    head = 0.22
    total = head + sum(row[-1] for row in rows) + 0.04
    picture = Picture(style.WIDE, total, layout="none")
    frame = picture.add_axes((0, 0, 1, 1))
    frame.set_axis_off()
    frame.set_xlim(0, style.WIDE)
    frame.set_ylim(0, total)
    lefts = [side + 2 * gap + i * (width + gap) for i in range(3)]
    for left, text in zip(lefts, texts, strict=True):
        frame.text(left, total - 0.05, text, va="top", fontsize=size + 1, fontweight="bold")
    top = total - head
    for case, cells, question, about, height in rows:
        frame.plot([0.03, style.WIDE - 0.03], [top, top], color=style.FAINT, linewidth=0.7)
        y = top - pad
        photo = picture.add_axes((gap / style.WIDE, (y - side) / total, side / style.WIDE, side / total))
        show(photo, case.image, case.boxes, side=256)
        for i, line in enumerate(about):
            frame.text(
                gap,
                y - side - 0.05 - i * (size - 0.4) * LEADING / 72,
                line,
                va="top",
                fontsize=size - 0.4,
                color=style.QUIET,
            )
        for i, line in enumerate(question):
            frame.text(
                lefts[0], y - i * step, line, va="top", fontsize=size, fontstyle="italic", color=style.QUIET
            )
        y -= len(question) * step
        verdicts = [case.verdict, None, case.base_verdict]
        for left, lines, verdict in zip(lefts, cells, verdicts, strict=True):
            start = y
            if verdict is not None:
                words, colour = mark(verdict, case.truth, case.decides)
                frame.text(left, start, words, va="top", fontsize=size, fontweight="bold", color=colour)
                start -= step * 1.06
            for i, line in enumerate(lines):
                frame.text(left, start - i * step, line, va="top", fontsize=size)
        top -= height
    return picture
