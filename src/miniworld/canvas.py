"""Drawing surface for procedural scenes: anti-aliased shapes, and what part each pixel shows.

Shapes are drawn at twice the final size and averaged down. From the parts come textures, shading, masks and
the dense targets of the base's pretraining."""

from collections.abc import Sequence
from enum import IntEnum
from functools import cache

import cv2
import numpy as np

cv2.setNumThreads(1)  # images are small; processes share the cores

Colour = tuple[float, float, float]
Point = tuple[float, float]
_SHIFT = 4  # fractional bits of cv2's sub-pixel coordinates

Part = IntEnum(  # what a pixel shows
    "Part",
    "BACKGROUND SKY GROUND SHADOW BODY HEAD LIMB EYE MOUTH HAIR CLOTH WALL OPENING ROOF TREE POLE ROAD FIELD "
    "WATER PAPER TEXT TITLE FIGURE THING DETAIL LABEL SKIN MOUNTAIN",
    start=0,
)


class Canvas:
    """Colours `rgb` (N, N, 3) and `parts` (N, N), uint8, N = 2 size. Coordinates are in 0..1, y downwards."""

    def __init__(self, size: int) -> None:
        self.size, self.n = size, 2 * size
        self.rgb = np.zeros((self.n, self.n, 3), np.uint8)
        self.parts = np.zeros((self.n, self.n), np.uint8)

    def _points(self, points: Sequence[Point]) -> np.ndarray:
        return np.round(np.asarray(points, np.float64) * (self.n << _SHIFT)).astype(np.int32)

    def fill(self, colour: Colour, part: Part) -> None:
        self.rgb[:] = colour
        self.parts[:] = part

    def poly(self, points: Sequence[Point], colour: Colour, part: Part) -> None:
        pts = self._points(points)
        cv2.fillPoly(self.rgb, [pts], colour, cv2.LINE_AA, _SHIFT)
        cv2.fillPoly(self.parts, [pts], int(part), cv2.LINE_8, _SHIFT)

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, part: Part) -> None:
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, part)

    def taper(
        self, x: float, y0: float, half0: float, y1: float, half1: float, colour: Colour, part: Part
    ) -> None:
        """Draw a trapezoid that is symmetric about x; its half widths at y0 and y1 are half0 and half1."""
        self.poly([(x - half0, y0), (x + half0, y0), (x + half1, y1), (x - half1, y1)], colour, part)

    def outline(self, b: Sequence[float], width: float, colour: Colour, part: Part) -> None:
        """Draw the outline of a box (x0, y0, x1, y1)."""
        x0, y0, x1, y1 = b
        self.line([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)], width, colour, part)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, part: Part, angle: float = 0.0
    ) -> None:
        t, a = np.linspace(0, 2 * np.pi, 28, endpoint=False), np.deg2rad(angle)
        u, v = rx * np.cos(t), ry * np.sin(t)
        points = np.stack([x + u * np.cos(a) - v * np.sin(a), y + u * np.sin(a) + v * np.cos(a)], 1)
        self.poly(points, colour, part)

    def line(self, points: Sequence[Point], width: float, colour: Colour, part: Part) -> None:
        """Draw an open line through `points`; `width` in unit coordinates."""
        pts, thick = self._points(points), max(1, round(width * self.n))
        cv2.polylines(self.rgb, [pts], False, colour, thick, cv2.LINE_AA, _SHIFT)
        cv2.polylines(self.parts, [pts], False, int(part), thick, cv2.LINE_8, _SHIFT)

    def gradient(self, top: Colour, bottom: Colour, y0: float, y1: float, part: Part) -> None:
        """Draw a vertical gradient over the band y0..y1, full width."""
        a, b = int(y0 * self.n), max(int(y0 * self.n) + 1, int(np.ceil(y1 * self.n)))
        t = np.linspace(0, 1, b - a)[:, None, None]
        self.rgb[a:b] = (1 - t) * np.array(top) + t * np.array(bottom)
        self.parts[a:b] = part

    def shadow(self, x: float, y: float, below: int = 0) -> Colour:
        """Return the colour of a shadow on the ground at (x, y), or some pixels below."""
        px, py = min(max(int(x * self.n), 0), self.n - 1), min(max(int(y * self.n) + below, 0), self.n - 1)
        return tuple(float(v) * 0.42 for v in self.rgb[py, px])

    def down(self) -> tuple[np.ndarray, np.ndarray]:
        """Return colours (size, size, 3) float32 in 0..255 and parts (size, size) uint8, averaged down."""
        rgb = cv2.resize(self.rgb, (self.size, self.size), interpolation=cv2.INTER_AREA).astype(np.float32)
        return rgb, self.parts[::2, ::2].copy()


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour made darker (< 1) or lighter (> 1)."""
    return tuple(float(min(255.0, max(0.0, c * factor))) for c in colour)  # type: ignore[return-value]


@cache
def _noise_bank() -> dict[str, list[np.ndarray]]:
    """Return four unit-variance noise tiles (256, 256) of each kind, blurred by (x, y) pixels."""
    rng = np.random.default_rng(20_251_127)
    bank: dict[str, list[np.ndarray]] = {}
    for kind, blur in {"white": None, "fine": (0.8, 0.8), "coarse": (5, 5), "streak": (3.0, 0.6)}.items():
        tiles = list(rng.standard_normal((4, 256, 256)).astype(np.float32))
        if blur:
            tiles = [cv2.GaussianBlur(t, (0, 0), blur[0], None, blur[1], cv2.BORDER_REFLECT) for t in tiles]
        bank[kind] = [tile / tile.std() for tile in tiles]
    return bank


def noise(rng: np.random.Generator, kind: str, size: int) -> np.ndarray:
    """Return a (size, size) float32 crop of unit-variance noise: `white`, `fine`, `coarse` or `streak`."""
    tile = _noise_bank()[kind][rng.integers(4)]
    y, x = rng.integers(0, 256 - size + 1, 2)
    crop = tile[y : y + size, x : x + size]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    if kind != "streak" and rng.random() < 0.5:
        crop = crop.T
    return crop
