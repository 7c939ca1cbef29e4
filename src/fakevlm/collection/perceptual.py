"""Perceptual hashes: 64 bits of how an image looks, and which of many are near which.

The hash is pHash as the `imagehash` package computes it: grey, 32×32, discrete cosine transform, the 8×8 lowest frequencies,
one bit each: above their median or not. Re-encoding, resizing and slight changes of brightness or colour flip few bits.

Neighbours are found by multi-index hashing (Norouzi et al., CVPR 2012): of d + 1 groups of bits, two hashes at distance d or less
share at least one whole group. So only hashes that share a group are compared: a sort and two binary searches a group. Comparing all
with all needs no index but n·m steps, 30 billion at a million images and 30,000 tests; `benchmarks/leakage_scaling.py` measures both.
Groups take every (d + 1)th bit: low frequencies, which look alike in most photographs, are spread over all of them.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from PIL import Image
from scipy.fft import dctn

BITS, SIDE, LOW = 64, 32, 8
# An orthonormal coefficient of a grey image rounded to whole levels is off by 0.29 (standard deviation 1/√12). Where half of the
# 63 are below this, most bits are a matter of rounding, and the hash says nothing.
WEAKEST_MEDIAN = 1.0
BLOCK = 1 << 20  # pairs compared at a time: some 50 MB


def phash(image: Image.Image) -> int | None:
    """The 64 bits, the lowest frequency first; None for an image without contrast to speak of."""
    grey = image.convert("L").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    low = dctn(np.asarray(grey, np.float64), norm="ortho")[:LOW, :LOW].ravel()
    if np.median(np.abs(low[1:])) < WEAKEST_MEDIAN:
        return None
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def _groups(distance: int) -> list[np.uint64]:
    """d + 1 masks that share out the 64 bits."""
    return [
        np.uint64(sum(1 << bit for bit in range(start, BITS, distance + 1))) for start in range(distance + 1)
    ]


def _candidates(
    known: np.ndarray, asked: np.ndarray, group: np.uint64
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(which asked, which known) of all pairs that share a group's bits, at most about `BLOCK` pairs at a time."""
    keys = known & group
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.searchsorted(keys, asked & group, "left")
    counts = np.searchsorted(keys, asked & group, "right") - first
    edges = np.flatnonzero(np.diff(np.cumsum(counts) // BLOCK, prepend=-1))
    for start, stop in pairwise([*edges, len(asked)]):
        number = counts[start:stop]
        who = np.repeat(np.arange(start, start + len(number)), number)
        inside = np.arange(len(who)) - np.repeat(np.cumsum(number) - number, number)
        yield who, order[np.repeat(first[start:stop], number) + inside]


def nearest(known: np.ndarray, asked: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """For every asked hash the nearest known one within a distance, the first of several as near.

    Args:
        known, asked: uint64 hashes.
        distance: the most bits that may differ.

    Returns:
        (index into known, distance) of each; −1 where there is none.
    """
    nothing = np.int64(BITS + 1) << 40
    best = np.full(
        len(asked), nothing
    )  # distance · 2^40 + index: the smallest is the nearest, then the first
    for group in _groups(distance) if len(known) else []:
        for who, which in _candidates(known, asked, group):
            apart = np.bitwise_count(known[which] ^ asked[who]).astype(np.int64)
            near = apart <= distance
            np.minimum.at(best, who[near], (apart[near] << 40) + which[near])
    found = best < nothing
    return np.where(found, best & ((1 << 40) - 1), -1), np.where(found, best >> 40, -1)
