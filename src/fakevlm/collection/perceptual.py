"""Perceptual hashes: 64 bits of how an image looks, and the nearest of many hashes.

The hash is pHash as the `imagehash` package computes it: grey, 32×32, discrete cosine transform, the 8×8
lowest frequencies, one bit each: above their median or not. Re-encoding, resizing and slight changes of
brightness or colour flip few bits.
"""

import numpy as np
from PIL import Image
from scipy.fft import dctn

SIDE, LOW = 32, 8
# An orthonormal coefficient of a grey image rounded to whole levels is off by 0.29 (standard deviation
# 1/√12). Where half of the 63 are below this, most bits are a matter of rounding, and the hash says nothing.
WEAKEST_MEDIAN = 1.0
BLOCK = 1 << 22  # pairs compared at a time: 36 MB


def phash(image: Image.Image) -> int | None:
    """Return the 64 bits, the lowest frequency first; None for an image with next to no contrast."""
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    low = dctn(np.asarray(grey, np.float64), norm="ortho")[:LOW, :LOW].ravel()
    if np.median(np.abs(low[1:])) < WEAKEST_MEDIAN:
        return None
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def nearest(references: np.ndarray, queries: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Compare all with all; return for every query the nearest reference, the first of several as near.

    Args:
        references, queries: (n,) and (m,) uint64 hashes.
        distance: the most bits that may differ.

    Returns:
        (m,) index into `references` and (m,) number of bits that differ; −1 where no reference is near
        enough.
    """
    index, bits = np.full(len(queries), -1), np.full(len(queries), -1)
    rows = max(1, BLOCK // max(1, len(references)))
    for start in range(0, len(queries) if len(references) else 0, rows):
        block = slice(start, start + rows)
        apart = np.bitwise_count(queries[block, None] ^ references)
        first = apart.argmin(1)
        index[block], bits[block] = first, np.take_along_axis(apart, first[:, None], 1)[:, 0]
    index[bits > distance] = bits[bits > distance] = -1
    return index, bits
