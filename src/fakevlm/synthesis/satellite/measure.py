"""What can be seen of a generated image's flaws, measured: the miniature's truth where nobody drew the flaws.

These are measurements, not knowledge. A kind is claimed only where an image goes beyond what 98 of 100 real aerial images show anywhere
in them; a generated image that stays within that shows nothing, as far as these measures see. They see four kinds of the catalogue:

* `smooth`: hardly any fine detail in a window,
* `speckle`: fine detail in colour that brightness does not share,
* `grid`: one spatial frequency that stands out of the fine detail,
* `tint`: a hue that differs from the map's.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from fakevlm.miniature.truth import Artifact
from fakevlm.synthesis.satellite.aerials import enlarged, layout_map

KINDS = ("smooth", "speckle", "grid", "tint")
PERCENTILE = 98.0
_WINDOWS = 5  # a side; each is a third of the image, half overlapping the next
_LONGEST = 6.0  # pixels; slower waves than this are the scene's own
_NEAR, _AROUND = (
    5,
    11,
)  # frequencies a side: what a window's wave spreads over, and the ring it is held against
_WEAKEST = 0.6  # strength of an artifact at its threshold, as the weakest that the miniature draws


def _places(size: int) -> list[tuple[int, int, int]]:
    """(y, x, side) of all windows, row by row."""
    side = size // 3
    starts = np.linspace(0, size - side, _WINDOWS).round().astype(int)
    return [(int(y), int(x), side) for y in starts for x in starts]


def _fine(pixels: np.ndarray) -> np.ndarray:
    return pixels - cv2.GaussianBlur(pixels, (0, 0), 1.0)


def _peak(grey: np.ndarray) -> float:
    """How far a short wave rises above those like it: the log of the power around it over the power in a ring about that.

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


def measures(pixels: np.ndarray, layout: np.ndarray, cell: int) -> np.ndarray:
    """How far each window of an image goes in each kind, higher being worse: (len(KINDS), windows) float64.

    Args:
        pixels: (size, size, 3) uint8 RGB.
        layout: the map that the image was made after, or a real image's own (see `aerials.layout_map`).
        cell: pixels a side of a cell of the map.
    """
    image = pixels.astype(np.float32)
    grey = image.mean(-1)
    fine = _fine(grey)
    opponent = np.stack([image[..., 0] - image[..., 1], image[..., 2] - image[..., 1]], -1)
    colour = _fine(opponent)
    shift = image - enlarged(layout, cell).astype(np.float32)
    found = []
    for y, x, side in _places(len(pixels)):
        window = slice(y, y + side), slice(x, x + side)
        moved = shift[window].mean((0, 1))
        found.append(
            (
                -np.log(fine[window].std() + 0.1),
                np.log(colour[window].std() + 0.1),
                _peak(fine[window]),
                np.linalg.norm(moved - moved.mean()),  # brightness aside
            )
        )
    return np.array(found, np.float64).T


@dataclass(frozen=True)
class Thresholds:
    """What real aerial images show at most.

    Attributes:
        limit: by kind, the value that 98 of 100 real images stay below in every window.
        usual: by kind, the median of the images' highest values: the distance to `limit` is the unit of strength.
    """

    limit: np.ndarray
    usual: np.ndarray


def thresholds(pixels: np.ndarray, cell: int, levels: int, most: int = 1000) -> Thresholds:
    """Thresholds from real images (n, size, size, 3) uint8, at most about `most` of them."""
    some = pixels[:: 1 + len(pixels) // most]
    worst = np.stack([measures(image, layout_map(image, cell, levels), cell).max(-1) for image in some])
    return Thresholds(np.percentile(worst, PERCENTILE, axis=0), np.median(worst, axis=0))


def artifacts(pixels: np.ndarray, layout: np.ndarray, cell: int, known: Thresholds) -> list[Artifact]:
    """The measured artifacts of a generated image (arguments as `measures`): region and strength of every kind that exceeds.

    The region is the box around all windows that exceed; the strength is 0.6 at the threshold and
    1 from as far beyond it as the usual real image stays below it.
    """
    size, places = len(pixels), _places(len(pixels))
    found = []
    for kind, values, limit, usual in zip(
        KINDS, measures(pixels, layout, cell), known.limit, known.usual, strict=True
    ):
        beyond = [
            (x, y, x + side, y + side) for (y, x, side), v in zip(places, values, strict=True) if v > limit
        ]
        if beyond:
            corners = np.array(beyond) / size
            region = (*corners[:, :2].min(0), *corners[:, 2:].max(0))
            share = min(1.0, float(values.max() - limit) / max(float(limit - usual), 1e-6))
            strength = _WEAKEST + (1 - _WEAKEST) * share
            found.append(Artifact(kind, tuple(round(float(v), 3) for v in region), round(strength, 3)))
    return found
