"""One style for every figure: sizes for two columns, a palette safe for colour blindness, no dates.

Drawing functions are decorated with `@drawing`, take frames or records, and return a `Picture`: a Figure
that a notebook shows as a cell's last value. They do without pyplot, whose state would leak.
"""

import functools
import io
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fakevlm.data.records import encode

COLUMN, WIDE = 3.4, 7.0  # inches: one column and the full width of a two-column page
MAX_PNG = 600_000  # bytes

INK, QUIET, FAINT = "#1a1a1a", "#6b6b6b", "#d9d9d9"
# Okabe and Ito's palette, safe for the common kinds of colour blindness.
BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, GREY = "#56B4E9", "#CC79A7", "#8c8c8c"

FAKE_COLOUR, REAL_COLOUR = VERMILLION, BLUE
PAPER_COLOUR, RUN_COLOUR = GREY, GREEN
FAMILY_COLOURS = {"texture": ORANGE, "geometry": SKY, "lighting": PURPLE}
METHODS = {  # colour and marker
    "FakeVLM": (BLUE, "o"),
    "LLaVA + Linear Head": (ORANGE, "s"),
    "CNNSpot": (GREEN, "^"),
    "UnivFD": (PURPLE, "D"),
    "Frequency": (VERMILLION, "v"),
    "LLaVA (untuned)": (GREY, "x"),
}

STYLE = Path(__file__).with_name("report.mplstyle")  # over matplotlib's defaults, not the user's settings


class Picture(Figure):
    """A figure that knows how it is saved and shown."""

    def __init__(self, width: float, height: float, layout: str = "constrained") -> None:
        super().__init__(figsize=(width, height), layout=layout)
        FigureCanvasAgg(self)

    def png(self, dpi: int = 300) -> bytes:
        """Return PNG bytes without software, version or date; with a palette if there are few colours."""
        raw = io.BytesIO()
        with matplotlib.rc_context(fname=STYLE):
            self.savefig(raw, format="rgba", dpi=dpi)
        size = (int(self.bbox.width * dpi / self.dpi), int(self.bbox.height * dpi / self.dpi))
        image = Image.frombytes("RGBA", size, raw.getvalue()).convert("RGB")
        colours = image.getcolors(maxcolors=256)
        if colours is not None:
            image = image.quantize(len(colours), dither=Image.Dither.NONE)
        return encode(image, "PNG", dpi=(dpi, dpi))

    @functools.cached_property
    def svg(self) -> bytes:
        """SVG bytes without date or version; text as outlines, so that it looks the same everywhere."""
        out = io.BytesIO()
        with matplotlib.rc_context(fname=STYLE):
            self.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
        return re.sub(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]", b"", out.getvalue())  # no XML, and models write them

    def legend_above(self, *panels: Any, ncols: int, order: Sequence[str] = ()) -> None:
        """Add one legend of all panels above them; `order` sorts it by the names before a colon."""
        pairs = [pair for axes in panels for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
        if order:
            pairs.sort(key=lambda pair: order.index(pair[1].split(":")[0]))
        self.legend(*zip(*pairs, strict=True), loc="outside upper center", ncols=ncols)

    def empty(self, words: str, axes: Any = None) -> "Picture":
        """Return the picture with axes that say why they are empty."""
        axes = axes or self.subplots()
        axes.set_axis_off()
        place = {"ha": "center", "va": "center", "transform": axes.transAxes}
        axes.text(0.5, 0.5, words, color=QUIET, wrap=True, **place)
        return self

    def _repr_png_(self) -> bytes:
        return self.png(dpi=130)


def drawing(function: Callable[..., Picture]) -> Callable[..., Picture]:
    """Run a drawing function in the project's style, and leave matplotlib's settings as they were."""

    @functools.wraps(function)
    def styled(*args: Any, **kwargs: Any) -> Picture:
        with matplotlib.rc_context(fname=STYLE):
            picture = function(*args, **kwargs)
            # Lay out once and keep it: another pass or resolution would move things by a hair, and the
            # bytes of a file would depend on what was saved before it.
            picture.draw_without_rendering()
            picture.set_layout_engine(None)
            return picture

    return styled


def save(picture: Picture, folder: Path, name: str, dpi: int = 300) -> None:
    """Write `<name>.png` (at most 600 kB: fewer dots an inch where needed) and `<name>.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    for resolution in [r for r in (dpi, 250, 220, 200, 180, 160, 130, 100) if r <= dpi]:
        data = picture.png(resolution)
        if len(data) <= MAX_PNG:
            break
    (folder / f"{name}.png").write_bytes(data)
    (folder / f"{name}.svg").write_bytes(picture.svg)


def rows(axes: Any, names: Sequence[str]) -> None:
    """Name the rows of horizontal bars, the first at the top."""
    axes.set_yticks(np.arange(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


def direct_labels(axes: Any, values: Iterable[float], places: Iterable[float], texts: Iterable[str]) -> None:
    """Write a number beside the end of each horizontal bar that has a length."""
    style = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "ha": "left", "fontsize": 6.5}
    for value, y, text in zip(values, places, texts, strict=True):
        if np.isfinite(value):
            axes.annotate(text, (max(value, 0), y), **style)
