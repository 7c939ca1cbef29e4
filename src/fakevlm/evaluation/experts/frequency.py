"""A detector of traces in the spectrum, after Frank et al. (ICML 2020), "Leveraging Frequency Analysis for
Deep Fake Image Recognition".

As there: the logarithm of the grey image's two-dimensional discrete cosine transform (DCT), standardised, and
a linear classifier. The image's spectrum is averaged in square bins. The mean and the maximum over the
spectra of its 8 × 8 blocks are added, because an artifact may cover a corner only.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.fft import dctn

from fakevlm.evaluation.experts.base import square
from fakevlm.evaluation.experts.linear import LinearExpert

BINS, BLOCK = 16, 8


def _crop(image: Image.Image, size: int) -> Image.Image:
    """Return the centre, unresized to keep the spectrum. Smaller images are left to `square`."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size)) if left >= 0 and top >= 0 else image


def spectrum(images: Sequence[Image.Image], size: int) -> np.ndarray:
    """Return features of RGB images: (n, BINS² + 2 · BLOCK²) float32.

    Args:
        images: n of them, any sizes.
        size: side of the centre crop in pixels, a multiple of BINS and BLOCK; smaller images are enlarged to
            it.
    """
    grey = np.stack([square(_crop(image, size), size) for image in images]).astype(np.float32).mean(-1)
    whole = np.log1p(np.abs(dctn(grey, axes=(1, 2), norm="ortho")))
    step, across = size // BINS, size // BLOCK
    bins = whole.reshape(-1, BINS, step, BINS, step).mean((2, 4))
    tiles = grey.reshape(-1, across, BLOCK, across, BLOCK).transpose(0, 1, 3, 2, 4)
    local = np.log1p(np.abs(dctn(tiles, axes=(3, 4), norm="ortho"))).reshape(len(grey), -1, BLOCK * BLOCK)
    return np.concatenate([bins.reshape(len(grey), -1), local.mean(1), local.max(1)], 1).astype(np.float32)


class Frequency(LinearExpert):
    """Logistic regression on `spectrum`."""

    name, title, setting = "frequency", "Frequency", "size"

    def __init__(self, size: int) -> None:
        self.size, self.linear = size, None

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        return spectrum(images, self.size)
