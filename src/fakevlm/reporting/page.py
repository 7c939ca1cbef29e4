"""`figures/report.html`: one page that needs no other file, with every table and figure."""

import base64
import io
import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from markupsafe import Markup, escape
from PIL import Image

from fakevlm.reporting.case_figures import Case, mark, resized
from fakevlm.reporting.style import Picture
from fakevlm.reporting.texts import TEMPLATES, environment

SMALLEST, LARGEST = 288, 640  # pixels of an inlined photograph's longer side; browsers differ in enlarging


@dataclass(frozen=True)
class Figure:
    """One figure of the report."""

    name: str  # the file's stem in figures/
    number: str  # e.g. `Figure 3`
    title: str  # in a few words, also for screen readers
    part: str  # the report's section: data, training, results or cases
    caption: str
    picture: Picture
    cases: list[Case] = field(default_factory=list)  # shown as text and images instead of the picture
    dpi: int = 300  # of the PNG


def data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def photograph(image: Image.Image) -> str:
    """Return an image as a data URI of a JPEG."""
    out = io.BytesIO()
    image = resized(image, min(max(*image.size, SMALLEST), LARGEST))
    image.save(out, "JPEG", quality=90, subsampling=0)
    return data_uri(out.getvalue(), "jpeg")


def code(text: str) -> Markup:
    """Return a note with its `back-quoted` pieces as code and *starred* ones emphasised."""
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*([^*]*)\*", r"<em>\1</em>", text))


def interval(cell: str) -> Markup:
    """Return a cell with its interval in small print on a line of its own."""
    return Markup(re.sub(r" (\[.*)", r"<br><small>\1</small>", str(escape(cell))))


def short(value: float) -> str:
    """1.500 → "1.5"."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def render(parameters: dict[str, Any], **context: Any) -> str:
    """Return the page. `context` holds what the template names: profile, figures, tables and so on."""
    jinja = environment(autoescape=True)
    jinja.filters |= {f.__name__: f for f in (data_uri, photograph, code, interval, short)}
    return jinja.get_template("report.html.j2").render(
        style=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        mark=mark,
        parameters=yaml.safe_dump(parameters, sort_keys=False, allow_unicode=True),
        **context,
    )
