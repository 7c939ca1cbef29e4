"""A detector that looks at frequencies alone, after Frank et al. (ICML 2020), "Leveraging Frequency Analysis for Deep Fake
Image Recognition": generators leave traces in the spectrum, which the discrete cosine transform (DCT) lays open.

As there: the two-dimensional DCT of the grey image, its logarithm, standardised, and a linear classifier. Beside the whole image's
spectrum, averaged in square bins, stand the mean and the maximum over the spectra of its 8 × 8 blocks, because an artifact
may cover a corner only.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn

from fakevlm.config.params import Params
from fakevlm.data.records import Record
from fakevlm.evaluation.experts.base import Expert, read, square, write
from fakevlm.evaluation.experts.linear import Linear, fit_records

BINS, BLOCK = 16, 8


def _crop(image: Image.Image, size: int) -> Image.Image:
    """The centre, unresized: resampling would rewrite the spectrum. Smaller images are left to `square`."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size)) if left >= 0 and top >= 0 else image


def spectrum(images: Sequence[Image.Image], size: int) -> np.ndarray:
    """Features of RGB images: (n, BINS² + 2 · BLOCK²) float32.

    Args:
        size: side of the centre crop in pixels, a multiple of BINS and BLOCK; smaller images are enlarged to it.
    """
    grey = np.stack([square(_crop(image, size), size) for image in images]).astype(np.float32).mean(-1)
    whole = np.log1p(np.abs(dctn(grey, axes=(1, 2), norm="ortho")))
    step, across = size // BINS, size // BLOCK
    bins = whole.reshape(-1, BINS, step, BINS, step).mean((2, 4))
    tiles = grey.reshape(-1, across, BLOCK, across, BLOCK).transpose(0, 1, 3, 2, 4)
    local = np.log1p(np.abs(dctn(tiles, axes=(3, 4), norm="ortho"))).reshape(len(grey), -1, BLOCK * BLOCK)
    return np.concatenate([bins.reshape(len(grey), -1), local.mean(1), local.max(1)], 1).astype(np.float32)


class Frequency(Expert):
    """Logistic regression on `spectrum`."""

    name, title = "frequency", "Frequency"

    def __init__(self, size: int, linear: Linear | None = None) -> None:
        self.size, self.linear = size, linear

    def fit(
        self,
        train: Sequence[Record],
        val: Sequence[Record],
        params: Params,
        seed: int,
        work: Path | None = None,
    ) -> pd.DataFrame:
        self.linear, log = fit_records(
            lambda images: spectrum(images, self.size),
            train,
            val,
            params.experts.batch_size,
            "Frequency: spectra",
        )
        return log

    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.linear(spectrum(images, self.size))

    def save(self, folder: Path) -> None:
        import torch

        tensors = {key: torch.from_numpy(value) for key, value in vars(self.linear).items()}
        write(folder, Frequency, tensors, {"size": self.size})

    @classmethod
    def load(cls, folder: Path) -> "Frequency":
        tensors, config = read(folder)
        return cls(config["size"], Linear(**{key: value.numpy() for key, value in tensors.items()}))
