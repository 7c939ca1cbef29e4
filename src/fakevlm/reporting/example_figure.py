"""Figure 2's example: one image, what each annotator wrote about it, and the aggregate that becomes the training answer."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from fakevlm.reporting import style
from fakevlm.reporting.style import Picture, drawing
from fakevlm.reporting.words import wrap

LEADING = 1.32  # line height over font size


def enlarged(image: Image.Image, side: int = 330) -> np.ndarray:
    """The image as an RGB array whose longer side is `side` pixels: small ones enlarged smoothly, large ones reduced."""
    image = image.convert("RGB")
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    method = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    return np.asarray(image.resize(size, method))


def show(
    axes, image: Image.Image, boxes: Sequence[tuple[float, float, float, float]] = (), side: int = 330
) -> None:
    """Draws an image, `side` pixels large, and frames around `boxes` (x0, y0, x1, y1 as fractions of width and height)."""
    pixels = enlarged(image, side)
    height, width = pixels.shape[:2]
    axes.imshow(pixels, interpolation="none", extent=(0, width, height, 0))
    for x0, y0, x1, y1 in boxes:
        corner, size = (x0 * width, y0 * height), ((x1 - x0) * width, (y1 - y0) * height)
        # White under colour: visible on dark and on light ground.
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=2.0))
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=style.VERMILLION, linewidth=1.0))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(True)
    axes.spines[:].set_linewidth(0.6)


def _box(
    axes, x: float, top: float, width: float, lines: list[str], title: str, colour: str, size: float
) -> float:
    """A titled box of text in inches; returns its bottom."""
    step = size * LEADING / 72
    height = 0.30 + step * len(lines)
    axes.add_patch(
        FancyBboxPatch(
            (x, top - height),
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.05",
            facecolor="white",
            edgecolor=colour,
            linewidth=1.0,
        )
    )
    axes.text(x + 0.07, top - 0.06, title, va="top", fontsize=size + 0.3, fontweight="bold", color=colour)
    for i, line in enumerate(lines):
        axes.text(x + 0.07, top - 0.22 - i * step, line, va="top", fontsize=size)
    return top - height


@drawing
def example(
    image: Image.Image,
    captions: Mapping[str, str],
    aggregate: str,
    *,
    title: str = "",
    boxes: Sequence[tuple[float, float, float, float]] = (),
) -> Picture:
    """One image, the annotators' captions of it, and their aggregate (paper Fig. 2 and equation 1).

    Args:
        captions: annotator → caption, drawn in this order.
        aggregate: the answer made of them.
        title: a line under the image, e.g. its category and label.
        boxes: true regions of artifacts as fractions x0, y0, x1, y1, where known.
    """
    size, side, gap = 6.8, 1.65, 0.15
    width = style.WIDE - side - 0.42
    inner = (width - 0.14) * 72
    texts = [(name, wrap(text, inner, size), style.QUIET) for name, text in captions.items()]
    texts.append(("Aggregate: the training answer", wrap(aggregate, inner, size), style.BLUE))
    heights = [0.30 + size * LEADING / 72 * len(lines) for _, lines, _ in texts]
    below = wrap(title, side * 72, size)
    total = max(sum(heights) + gap * (len(texts) - 1) + 0.14, side + 0.2 + len(below) * size * LEADING / 72)
    picture = Picture(style.WIDE, total + 0.06, layout="none")
    frame = picture.add_axes((0, 0, 1, 1))
    frame.set_axis_off()
    frame.set_xlim(0, style.WIDE)
    frame.set_ylim(0, total + 0.06)
    top = total
    photo = picture.add_axes(
        (0.06 / style.WIDE, (top - side) / (total + 0.06), side / style.WIDE, side / (total + 0.06))
    )
    show(photo, image, boxes)
    for i, line in enumerate(below):
        frame.text(0.06, top - side - 0.07 - i * size * LEADING / 72, line, va="top", fontsize=size)
    left, bottoms = side + 0.34, []
    for name, lines, colour in texts:
        bottom = _box(frame, left, top, width, lines, name, colour, size)
        top = bottom - gap
        bottoms.append(bottom)
    if len(bottoms) > 1:
        # From the captions to the aggregate.
        x, above = left + width / 2, bottoms[-2]
        arrow = {"arrowstyle": "-|>", "color": style.QUIET, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
        frame.annotate("", (x, above - gap), (x, above), arrowprops=arrow)
    return picture
