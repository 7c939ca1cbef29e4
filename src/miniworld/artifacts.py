"""Artifacts put into a finished picture, such as generators leave in texture, shape and light.

Pictures are (H, W, 3) float32 in 0..255, boxes in pixels. A change of the surface sees `soft`, the ellipse it
stays inside, (H, W, 1) in 0..1; the others find a place of their own and return it as well. Flaws of the
drawing itself (extra legs, bent lines) are drawn by the scenes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from miniworld.stagecraft import Set

PixelBox = tuple[int, int, int, int]


@dataclass
class Place:
    """Where artifacts may sit: the subject's mask (H, W) bool, the scene's set, the light's side."""

    mask: np.ndarray
    set: Set
    light: int
    rng: np.random.Generator

    @property
    def size(self) -> int:
        return self.mask.shape[0]

    def box(self, low: float, high: float, *, anywhere: bool = False) -> PixelBox:
        """Return a box of random size (fractions of the image), centred on the subject or an anchor."""
        n, rng = self.size, self.rng
        w, h = (int(n * rng.uniform(low, high)) for _ in range(2))
        if anywhere:
            return self.clip(int(rng.integers(0, n - w)), int(rng.integers(0, n - h)), w, h)
        if self.set.anchors and rng.random() < 0.6:
            names = sorted(self.set.anchors)
            x0, y0, x1, y1 = self.set.anchors[names[int(rng.integers(len(names)))]]
            cx = int(n * rng.uniform(x0, x1) * 0.5 + n * (x0 + x1) * 0.25)
            cy = int(n * rng.uniform(y0, y1) * 0.5 + n * (y0 + y1) * 0.25)
        else:
            cx, cy = self.point()
        return self.clip(cx - w // 2, cy - h // 2, w, h)

    def point(self) -> tuple[int, int]:
        """Return a random pixel (x, y) of the subject; the middle of the image if it has none."""
        ys, xs = np.nonzero(self.mask)
        if not len(xs):
            return self.size // 2, self.size // 2
        k = int(self.rng.integers(len(xs)))
        return int(xs[k]), int(ys[k])

    def clip(self, x: int, y: int, w: int, h: int) -> PixelBox:
        """Return the box of this size nearest to (x, y) that lies inside the image."""
        x, y = min(max(x, 0), self.size - w), min(max(y, 0), self.size - h)
        return x, y, x + w, y + h


def _blend(img: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    return img * (1 - share) + other * share


def _moved(img: np.ndarray, dx: int, dy: int) -> np.ndarray:
    size = img.shape[1::-1]
    return cv2.warpAffine(img, np.float32([[1, 0, dx], [0, 1, dy]]), size, borderMode=cv2.BORDER_REFLECT)


def _soft(size: int, b: PixelBox) -> np.ndarray:
    """Return a soft ellipse filling the box, (size, size, 1) in 0..1."""
    x0, y0, x1, y1 = b
    ys, xs = np.ogrid[0:size, 0:size]
    d = ((xs - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2 + ((ys - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2
    return np.clip((1.15 - d) / 0.3, 0, 1).astype(np.float32)[..., None]


def smooth(img: np.ndarray, soft: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    return _blend(img, cv2.GaussianBlur(img, (0, 0), 1.8 + 1.6 * strength), soft * (0.75 + 0.25 * strength))


def grid(img: np.ndarray, soft: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    ys, xs = np.indices(img.shape[:2])
    period = int(rng.integers(3, 6))
    if rng.random() < 0.5:
        pattern = (((xs // (period // 2 + 1)) + (ys // (period // 2 + 1))) % 2) * 2.0 - 1
    else:
        pattern = ((xs % period == 0) | (ys % period == 0)) * 2.0 - 0.8
    return img + (pattern * (17 + 13 * strength))[..., None].astype(np.float32) * soft


def smear(img: np.ndarray, soft: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    length, angle = int(11 + 8 * strength), np.deg2rad(rng.uniform(0, 180))
    kernel = np.zeros((length, length), np.float32)
    half = (length - 1) / 2
    dx, dy = np.cos(angle) * half, np.sin(angle) * half
    cv2.line(kernel, (round(half - dx), round(half - dy)), (round(half + dx), round(half + dy)), 1.0, 1)
    return _blend(img, cv2.filter2D(img, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT), soft)


def speckle(img: np.ndarray, soft: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    dots = rng.random(img.shape[:2]) < 0.1 + 0.1 * strength
    colours = np.where(rng.random(img.shape) < 0.5, 25.0, 240.0).astype(np.float32)
    return np.where((soft > 0.5) & dots[..., None], colours, img)


def melt(img: np.ndarray, soft: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    field = cv2.GaussianBlur(rng.standard_normal((*img.shape[:2], 2)).astype(np.float32), (0, 0), 3.2)
    field /= np.abs(field).max() + 1e-6
    shift = field * soft * (15 + 8 * strength)
    shift[..., 1] -= np.abs(shift[..., 1]) * 0.6  # things run downwards
    ys, xs = np.indices(img.shape[:2], np.float32)
    x, y = xs + shift[..., 0], ys + shift[..., 1]
    warped = cv2.remap(img, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return _blend(img, cv2.GaussianBlur(warped, (0, 0), 0.8), soft * 0.9)


def tint(img: np.ndarray, soft: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    casts = np.float32([[70, -45, 55], [-50, 60, -45], [-45, 35, 75], [80, 10, -70]])
    return img + soft * (casts[int(rng.integers(len(casts)))] * (0.95 + 0.35 * strength))


def banding(img: np.ndarray, place: Place, strength: float) -> tuple[np.ndarray, PixelBox]:
    b = place.box(0.5, 0.8, anywhere=True)
    step = 48 + 26 * strength
    flat = np.floor(cv2.GaussianBlur(img, (0, 0), 1.2) / step) * step + step / 2
    return _blend(img, flat, _soft(place.size, b)), b


def ringing(img: np.ndarray, soft: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    edge = img - cv2.GaussianBlur(img, (0, 0), 2.0)
    echo = np.zeros_like(img)
    for k in (1, 2, 3):
        for dx, dy in ((4 * k, 0), (-4 * k, 0), (0, 4 * k), (0, -4 * k)):
            echo += np.roll(edge, (dy, dx), (0, 1)) * (0.5 + 0.25 * strength) / k
    return img + echo * soft


def repeat(img: np.ndarray, place: Place, strength: float) -> tuple[np.ndarray, PixelBox]:
    rng = place.rng
    tile, cols, rows = int(rng.integers(9, 13)), int(rng.integers(3, 5)), 3
    x, y, *_ = place.clip(*place.point(), tile, tile)
    patch = img[y : y + tile, x : x + tile].copy()
    patch = patch + (patch - patch.mean((0, 1))) * (0.6 + 0.4 * strength)  # the seams must show at this size
    w, h = cols * tile, rows * tile
    b = place.clip(int(x - w / 2 + rng.integers(-12, 13)), int(y - h / 2 + rng.integers(-12, 13)), w, h)
    out = img.copy()
    out[b[1] : b[3], b[0] : b[2]] = np.tile(patch, (rows, cols, 1))
    return out, b


def duplicate(img: np.ndarray, place: Place, strength: float) -> tuple[np.ndarray, PixelBox]:
    n, rng = place.size, place.rng
    x0, y0, x1, y1 = place.box(0.24, 0.34)
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.05)
    dx, dy = int(np.cos(angle) * (x1 - x0) * reach), int(np.sin(angle) * (y1 - y0) * reach)
    if not (x0 + dx >= 0 and x1 + dx <= n):
        dx = -dx
    if not (y0 + dy >= 0 and y1 + dy <= n):
        dy = -dy
    target = place.clip(x0 + dx, y0 + dy, x1 - x0, y1 - y0)
    cut = np.minimum(1, _soft(n, target) * 3) * (0.8 + 0.2 * strength)  # a cut-out, whose rim shows
    out = _blend(img, _moved(img, dx, dy), cut)
    out = out * (1 - (0.3 + 0.2 * strength) * 4 * cut * (1 - cut))  # as a line around it
    return out, (min(x0, target[0]), min(y0, target[1]), max(x1, target[2]), max(y1, target[3]))


def misaligned(img: np.ndarray, place: Place, strength: float) -> tuple[np.ndarray, PixelBox]:
    n, rng = place.size, place.rng
    shift = round(8 + 5 * strength) * (-1 if rng.random() < 0.5 else 1)
    x, y, rx, ry = place.set.centre
    out = img.copy()
    seam = np.float32(0.55 - 0.2 * strength)  # pieces that do not meet leave a dark line
    if place.set.paper or rng.random() < 0.5:  # everything below a line moves sideways
        cut = int(n * (y + rng.uniform(-0.35, 0.35) * ry))
        out[cut:] = np.roll(img[cut:], shift, axis=1)
        out[cut] *= seam
        return out, place.clip(0, cut - 8, n, 16)
    cut = int(n * (x + rng.uniform(-0.35, 0.35) * rx))
    out[:, cut:] = np.roll(img[:, cut:], shift, axis=0)
    return out, place.clip(cut - 8, 0, 16, n)


def halo(img: np.ndarray, place: Place, strength: float) -> tuple[np.ndarray, PixelBox]:
    mask = place.mask.astype(np.uint8)
    width = 2 + round(strength)
    ring = cv2.dilate(mask, np.ones((2 * width + 1, 2 * width + 1), np.uint8)) - mask
    soft = cv2.GaussianBlur(ring.astype(np.float32), (0, 0), 0.8)[..., None] * (0.62 + 0.3 * strength)
    ys, xs = np.nonzero(ring)
    b = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
    return img * (1 - soft) + np.float32([250, 250, 240]) * soft, b


def glare(img: np.ndarray, place: Place, strength: float) -> tuple[np.ndarray, PixelBox]:
    n = place.size
    radius = n * place.rng.uniform(0.075, 0.105)
    x, y, rx, ry = place.set.centre
    side = 0 if place.set.paper else -place.light  # on the dark side of the subject
    cx = n * (x + side * rx * place.rng.uniform(0.3, 0.7)) if side else place.point()[0]
    cy = n * (y + ry * place.rng.uniform(-0.5, 0.6)) if side else place.point()[1]
    ys, xs = np.ogrid[0:n, 0:n]
    distance = ((xs - cx) ** 2 + (ys - cy) ** 2) / (2 * (radius * 0.75) ** 2)
    spot = np.exp(-(distance**1.4)).astype(np.float32)[..., None]
    r = int(radius * 1.3)
    b = place.clip(int(cx) - r, int(cy) - r, 2 * r, 2 * r)
    return img + (255 - img) * spot * (0.85 + 0.15 * strength), b


def floating(img: np.ndarray, place: Place, strength: float) -> tuple[np.ndarray, PixelBox]:
    n, rng = place.size, place.rng
    x0, y0, x1, y1 = place.box(0.16, 0.24)
    tx = int(rng.integers(2, max(3, n - (x1 - x0) - 2)))
    ty = int(rng.integers(1, max(2, int(n * 0.2))))
    b = place.clip(tx, ty, x1 - x0, y1 - y0)
    return _blend(img, _moved(img, tx - x0, ty - y0), _soft(n, b) * (0.8 + 0.2 * strength)), b


class Maker(NamedTuple):
    """How a kind of artifact is put in."""

    visible: float  # least mean absolute change inside the box (grey levels); nobody could see less
    tries: int  # places tried at least, of which the one that changes most is taken
    # (image, ellipse, rng, strength) -> image; without `extent` (image, place, strength) -> (image, box)
    change: Callable[..., Any]
    extent: tuple[float, float] | None = None  # width and height of the ellipse, fractions of the image

    def draw(self, img: np.ndarray, place: Place, strength: float) -> tuple[np.ndarray, PixelBox]:
        """Return the changed picture and the box where the artifact can be seen."""
        if self.extent is None:
            return self.change(img, place, strength)
        b = place.box(*self.extent)
        return self.change(img, _soft(place.size, b), place.rng, strength), b


MAKERS = {
    "smooth": Maker(3.4, 2, smooth, (0.32, 0.5)),
    "grid": Maker(5.0, 1, grid, (0.3, 0.5)),
    "smear": Maker(5.0, 3, smear, (0.34, 0.52)),
    "repeat": Maker(13.0, 4, repeat),
    "speckle": Maker(5.0, 1, speckle, (0.26, 0.42)),
    "duplicate": Maker(15.0, 6, duplicate),
    "melt": Maker(6.5, 3, melt, (0.4, 0.56)),
    "misaligned": Maker(6.0, 3, misaligned),
    "halo": Maker(3.0, 1, halo),
    "tint": Maker(5.0, 1, tint, (0.34, 0.5)),
    "glare": Maker(26.0, 3, glare),
    "banding": Maker(7.0, 1, banding),
    "ringing": Maker(6.0, 2, ringing, (0.45, 0.65)),
    "float": Maker(9.0, 3, floating),
}


def apply(img: np.ndarray, kind: str, place: Place, strength: float) -> tuple[np.ndarray, PixelBox] | None:
    """Return the picture with one artifact and its box; None if it can be seen in none of nine places."""
    maker = MAKERS[kind]
    most, best = -1.0, None
    for attempt in range(9):
        out, b = maker.draw(img, place, strength)
        inside = np.s_[b[1] : b[3], b[0] : b[2]]
        change = float(np.abs(np.clip(out[inside], 0, 255) - img[inside]).mean())
        if change > most:
            most, best = change, (out, b)
        if attempt + 1 >= maker.tries and most >= maker.visible:
            return best
    return None
