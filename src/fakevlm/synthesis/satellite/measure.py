"""Flaws of generated aerial images, measured: the miniature's ground truth where nobody drew the flaws.

A kind is reported only where an image goes beyond what 98 of 100 real aerial images show anywhere in them.
"""

import cv2
import numpy as np

from fakevlm.config.params import Satellites
from fakevlm.data.ground_truth import Artifact
from fakevlm.synthesis.satellite.aerials import enlarged, layout_map

# Kinds of the clue lexicon, and in how many parts their windows divide an image's side; windows half overlap.
PARTS = {
    "smooth": 8,  # hardly any detail of a pixel or two
    "speckle": 3,  # fine detail in colour that brightness does not share
    "grid": 3,  # one spatial frequency that stands out of the fine detail
    "tint": 3,  # a hue that differs from the map's
    "bent": 1,  # edges that run in all directions, where streets and roofs keep to two
}
PERCENTILE = 98.0
_LONGEST = 6.0  # pixels; slower waves than this are the scene's own
_NEAR, _AROUND = 5, 11  # frequencies a side: what a wave spreads over, and the ring it is compared with
_WEAKEST = 0.6  # strength of an artifact at its threshold, as the weakest that the miniature draws

# By kind: the value that 98 of 100 real images stay below in every window, and the median of the images'
# highest values: its distance to the limit is the unit of strength.
Thresholds = dict[str, tuple[float, float]]


def _windows(size: int, part: int) -> np.ndarray:
    """Return windows of a square image, row by row: (n, 4) left, top, right, bottom."""
    side = size // part
    starts = np.linspace(0, size - side, 2 * part - 1).round().astype(int)
    return np.array([(x, y, x + side, y + side) for y in starts for x in starts])


def _peak(grey: np.ndarray) -> float:
    """Return the log of a short wave's power over that of the frequencies around it, at its highest."""
    # Roads and houses have much power in short waves too, but spread over many frequencies.
    side = len(grey)
    hann = np.hanning(side)
    power = np.fft.fftshift(np.abs(np.fft.fft2((grey - grey.mean()) * hann[:, None] * hann)) ** 2)
    near, around = (cv2.blur(power, (n, n), borderType=cv2.BORDER_REFLECT) * n**2 for n in (_NEAR, _AROUND))
    ring = (around - near) / (_AROUND**2 - _NEAR**2)
    frequency = np.fft.fftshift(np.fft.fftfreq(side))
    short = np.hypot(frequency[:, None], frequency) >= 1 / _LONGEST
    return float(np.log((near[short] / _NEAR**2 + 1) / (ring[short] + 1)).max())


def _disorder(grey: np.ndarray) -> float:
    """Return the share of edges that do not keep to two directions at right angles, by strength."""
    soft = cv2.GaussianBlur(grey, (0, 0), 1.0)
    dx, dy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    strength = np.hypot(dx, dy)
    turned = strength * np.exp(4j * np.arctan2(dy, dx))  # right angles fall together at four times the angle
    return 1 - float(np.abs(turned.sum()) / (strength.sum() + 1e-6))


def measures(pixels: np.ndarray, layout: np.ndarray, cell: int) -> dict[str, np.ndarray]:
    """Return how far each window of an image (size, size, 3) uint8 RGB goes, by kind; higher is worse.

    The layout is the map that the image was made after, or a real image's own (`aerials.layout_map`), whose
    cells are `cell` pixels a side.
    """
    image = pixels.astype(np.float32)
    grey = image.mean(-1)
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 1.0)
    detail = np.abs(cv2.GaussianBlur(grey, (0, 0), 0.8) - cv2.GaussianBlur(grey, (0, 0), 2.5))
    opponent = np.stack([image[..., 0] - image[..., 1], image[..., 2] - image[..., 1]], -1)
    colour = opponent - cv2.GaussianBlur(opponent, (0, 0), 1.0)
    shift = image - enlarged(layout, cell).astype(np.float32)
    shift -= shift.mean(-1, keepdims=True)  # brightness aside
    of_window = {
        "smooth": lambda window: -np.log(np.median(detail[window]) + 0.1),
        "speckle": lambda window: np.log(colour[window].std() + 0.1),
        "grid": lambda window: _peak(fine[window]),
        "tint": lambda window: np.linalg.norm(shift[window].mean((0, 1))),
        "bent": lambda window: _disorder(grey[window]),
    }
    results = {}
    for kind, part in PARTS.items():
        windows = [np.s_[top:bottom, left:right] for left, top, right, bottom in _windows(len(pixels), part)]
        results[kind] = np.array([of_window[kind](window) for window in windows], float)
    return results


def thresholds(pixels: np.ndarray, settings: Satellites) -> Thresholds:
    """Return thresholds from real images (n, size, size, 3) uint8, at most about a thousand of them."""
    some = pixels[:: 1 + len(pixels) // 1000]
    results = [measures(image, layout_map(image, settings), settings.cell) for image in some]
    worst = {kind: [values[kind].max() for values in results] for kind in PARTS}
    return {kind: (float(np.percentile(v, PERCENTILE)), float(np.median(v))) for kind, v in worst.items()}


def artifacts(pixels: np.ndarray, layout: np.ndarray, cell: int, limits: Thresholds) -> list[Artifact]:
    """Return the measured artifacts of a generated image (arguments as `measures`).

    The region is the box around all windows that exceed the limit; the strength is 0.6 at the limit and 1
    from as far beyond it as the usual real image stays below it.
    """
    results = []
    for kind, values in measures(pixels, layout, cell).items():
        limit, usual = limits[kind]
        beyond = _windows(len(pixels), PARTS[kind])[values > limit]
        if len(beyond):
            box = [*beyond[:, :2].min(0).tolist(), *beyond[:, 2:].max(0).tolist()]
            share = min(1.0, float(values.max() - limit) / max(limit - usual, 1e-6))
            region = tuple(round(v / len(pixels), 3) for v in box)
            results.append(Artifact(kind, region, round(_WEAKEST + (1 - _WEAKEST) * share, 3)))
    return results
