"""`figures/report.html`: one page that needs no other file, with every table and figure."""

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import FileSystemLoader
from markupsafe import Markup, escape
from PIL import Image

from fakevlm.reporting.case_figures import Case, mark
from fakevlm.reporting.style import Picture
from fakevlm.reporting.texts import environment

TEMPLATES = Path(__file__).with_name("templates")
CSS = {"key": "key", "paper": "paper", "run": "run-cell", "release": "release"}
LARGEST = 640  # pixels of an inlined photograph's longer side


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: the file's stem in figures/.
        number: e.g. `Figure 3`.
        title: in a few words, also for screen readers.
        part: the report's section: data, training, results or cases.
        caption: what to see in it.
        picture: the figure itself.
        cases: of the part `cases`: the page shows these as text and images instead of the picture.
        dpi: of the PNG.
    """

    name: str
    number: str
    title: str
    part: str
    caption: str
    picture: Picture
    cases: list[Case] = field(default_factory=list)
    dpi: int = 300


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def photograph(image: Image.Image) -> str:
    """Return an image as a data URI: a small one enlarged to 288 px (browsers differ), a large one less."""
    image = image.convert("RGB")
    side = max(image.size)
    target = min(max(side, 288), LARGEST)
    if target != side:
        size = (max(1, round(image.width * target / side)), max(1, round(image.height * target / side)))
        image = image.resize(size, Image.Resampling.BICUBIC if target > side else Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90, subsampling=0)
    return data_uri(out.getvalue(), "jpeg")


def _case(case: Case) -> dict[str, Any]:
    """Return a case for the template: strings, and boxes (left, top, width, height) in percent."""
    boxes = [[round(100 * v, 1) for v in (x0, y0, x1 - x0, y1 - y0)] for x0, y0, x1, y1 in case.boxes]
    values = {k: v for k, v in asdict(case).items() if k not in ("image", "boxes")}
    return values | {
        "boxes": boxes,
        "about": case.about(),
        "truth": case.truth,
        "uri": photograph(case.image),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    shown_as_cases = figure.part == "cases"
    return {
        **{key: getattr(figure, key) for key in ("name", "number", "title", "caption", "part")},
        "wide": figure.picture.get_figwidth() > 4,
        "uri": "" if shown_as_cases else data_uri(figure.picture.svg, "svg+xml"),
        "shown_as_cases": shown_as_cases,
        "cases": [_case(case) for case in figure.cases],
    }


def _code(text: str) -> Markup:
    """A note with its `back-quoted` pieces as code and *starred* ones emphasised."""
    pieces = str(escape(text)).split("`")
    marked = "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(pieces))
    parts = marked.split("*")
    if len(parts) % 2 == 0:  # an unpaired star is a star
        return Markup(marked)
    return Markup("".join(f"<em>{p}</em>" if i % 2 else p for i, p in enumerate(parts)))


def _interval(cell: str) -> Markup:
    """A cell's interval in small print on a line of its own."""
    value, bracket, rest = cell.partition(" [")
    return Markup(f"{escape(value)}<br><small>[{escape(rest)}</small>") if bracket else Markup(escape(cell))


def render(figures: Sequence[Figure], **context: Any) -> str:
    """Return the page. `context` holds what the template names: profile, paper, tables and so on."""
    jinja = environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    return jinja.get_template("report.html.j2").render(
        figures=[_figure(figure) for figure in figures],
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        css=CSS,
        code=_code,
        interval=_interval,
        mark=mark,
        short=lambda value: f"{value:.3f}".rstrip("0").rstrip("."),
        parameters=yaml.safe_dump(context.pop("parameters"), sort_keys=False, allow_unicode=True),
        **context,
    )
