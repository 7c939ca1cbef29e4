"""Flaws of generated aerial images, measured: the miniature's ground truth where nobody drew the flaws.

A kind is reported only where an image goes beyond what 98 of 100 real aerial images show anywhere in them.
Five kinds of the clue lexicon are measured:

* `smooth`: hardly any detail of a pixel or two in a small window,
* `speckle`: fine detail in colour that brightness does not share,
* `grid`: one spatial frequency that stands out of the fine detail,
* `tint`: a hue that differs from the map's,
* `bent`: edges that run in all directions, where streets and roofs keep to two.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fakevlm.data.ground_truth import Artifact
from fakevlm.synthesis.satellite.aerials import enlarged, layout_map

# A window's side by kind, as a part of the image's; windows half overlap.
PARTS = {"smooth": 8, "speckle": 3, "grid": 3, "tint": 3, "bent": 1}
PERCENTILE = 98.0
_LONGEST = 6.0  # pixels; slower waves than this are the scene's own
_NEAR, _AROUND = 5, 11  # frequencies a side: what a wave spreads over, and the ring it is compared with
_WEAKEST = 0.6  # strength of an artifact at its threshold, as the weakest that the miniature draws


def _windows(size: int, part: int) -> list[tuple[slice, slice]]:
    """Return windows of a square image, row by row."""
    side = size // part
    starts = np.linspace(0, size - side, 2 * part - 1).round().astype(int).tolist()
    return [(slice(y, y + side), slice(x, x + side)) for y in starts for x in starts]


def _blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (0, 0), sigma)


def _peak(grey: np.ndarray) -> float:
    """Return how far a short wave rises above its like: the log of its power over that of a ring about it.

    Roads and houses have much power in short waves too, but spread over many that are alike.
    """
    side = len(grey)
    hann = np.hanning(side)
    power = np.fft.fftshift(np.abs(np.fft.fft2((grey - grey.mean()) * hann[:, None] * hann)) ** 2)
    near, around = (cv2.blur(power, (n, n), borderType=cv2.BORDER_REFLECT) * n**2 for n in (_NEAR, _AROUND))
    ring = (around - near) / (_AROUND**2 - _NEAR**2)
    frequency = np.fft.fftshift(np.fft.fftfreq(side))
    short = np.hypot(frequency[:, None], frequency) >= 1 / _LONGEST
    return float(np.log((near[short] / _NEAR**2 + 1) / (ring[short] + 1)).max())


def _disorder(grey: np.ndarray) -> float:
    """Return how little edges keep to two directions at right angles: 0 all of them do, 1 none."""
    soft = _blurred(grey, 1.0)
    dx, dy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    strength = np.hypot(dx, dy)
    turned = strength * np.exp(4j * np.arctan2(dy, dx))  # right angles fall together at four times the angle
    return 1 - float(np.abs(turned.sum()) / (strength.sum() + 1e-6))


def measures(pixels: np.ndarray, layout: np.ndarray, cell: int) -> dict[str, np.ndarray]:
    """Return how far each window of an image goes, by kind (keys of `PARTS`); higher is worse.

    Args:
        pixels: (size, size, 3) uint8 RGB.
        layout: the map that the image was made after, or a real image's own (see `aerials.layout_map`).
        cell: pixels a side of a cell of the map.
    """
    image = pixels.astype(np.float32)
    grey = image.mean(-1)
    fine = grey - _blurred(grey, 1.0)
    detail = np.abs(_blurred(grey, 0.8) - _blurred(grey, 2.5))
    opponent = np.stack([image[..., 0] - image[..., 1], image[..., 2] - image[..., 1]], -1)
    colour = opponent - _blurred(opponent, 1.0)
    shift = image - enlarged(layout, cell).astype(np.float32)
    shift -= shift.mean(-1, keepdims=True)  # brightness aside
    of_window = {
        "smooth": lambda window: -np.log(np.median(detail[window]) + 0.1),
        "speckle": lambda window: np.log(colour[window].std() + 0.1),
        "grid": lambda window: _peak(fine[window]),
        "tint": lambda window: np.linalg.norm(shift[window].mean((0, 1))),
        "bent": lambda window: _disorder(grey[window]),
    }
    size = len(pixels)
    return {
        kind: np.array([of_window[kind](window) for window in _windows(size, part)], np.float64)
        for kind, part in PARTS.items()
    }


@dataclass(frozen=True)
class Thresholds:
    """What real aerial images show at most, by kind.

    Attributes:
        limit: the value that 98 of 100 real images stay below in every window.
        usual: the median of the images' highest values: the distance to `limit` is the unit of strength.
    """

    limit: dict[str, float]
    usual: dict[str, float]


def thresholds(pixels: np.ndarray, cell: int, levels: int, most: int = 1000) -> Thresholds:
    """Return thresholds from real images (n, size, size, 3) uint8, at most about `most` of them."""
    some = pixels[:: 1 + len(pixels) // most]
    results = [measures(image, layout_map(image, cell, levels), cell) for image in some]
    worst = {kind: [values[kind].max() for values in results] for kind in PARTS}
    return Thresholds(
        {kind: float(np.percentile(values, PERCENTILE)) for kind, values in worst.items()},
        {kind: float(np.median(values)) for kind, values in worst.items()},
    )


def artifacts(pixels: np.ndarray, layout: np.ndarray, cell: int, limits: Thresholds) -> list[Artifact]:
    """Return the measured artifacts of a generated image (arguments as `measures`).

    The region is the box around all windows that exceed; the strength is 0.6 at the threshold and
    1 from as far beyond it as the usual real image stays below it.
    """
    size, results = len(pixels), []
    for kind, values in measures(pixels, layout, cell).items():
        limit, usual = limits.limit[kind], limits.usual[kind]
        windows = _windows(size, PARTS[kind])
        beyond = [window for window, value in zip(windows, values, strict=True) if value > limit]
        if beyond:
            top, left = min(rows.start for rows, _ in beyond), min(columns.start for _, columns in beyond)
            bottom, right = max(rows.stop for rows, _ in beyond), max(columns.stop for _, columns in beyond)
            share = min(1.0, float(values.max() - limit) / max(limit - usual, 1e-6))
            region = tuple(round(v / size, 3) for v in (left, top, right, bottom))
            results.append(Artifact(kind, region, round(_WEAKEST + (1 - _WEAKEST) * share, 3)))
    return results
