"""Benchmark images that may also be trained on, by content or likeness. Reported, never dropped.

Likeness is that of pHash, as the `imagehash` package computes it: of the grey image at 32×32 the 8×8 lowest
frequencies, one bit each: above their median or not. Re-encoding and resizing flip few bits.
"""

from array import array
from collections import Counter

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn

from fakevlm.data.records import Record

COLUMNS = ["benchmark", "path", "train_path", "kind", "distance"]
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
    """Return each query's nearest reference, the first of several: (m,) indices, and (m,) bits that differ.

    `references` (n,) and `queries` (m,) are uint64 hashes. Where more than `distance` bits differ from all
    references both results are −1.
    """
    index, bits = np.full(len(queries), -1), np.full(len(queries), -1)
    rows = max(1, BLOCK // max(1, len(references)))
    for start in range(0, len(queries) if len(references) else 0, rows):
        block = slice(start, start + rows)
        apart = np.bitwise_count(queries[block, None] ^ references)
        index[block], bits[block] = apart.argmin(1), apart.min(1)
    index[bits > distance] = bits[bits > distance] = -1
    return index, bits


class Leakage:
    """Collect the hashes of all images, and compare them at the end, up to `distance` of 64 bits apart."""

    def __init__(self, distance: int) -> None:
        self.distance = distance
        self.flat = Counter[str]()  # by benchmark or "training": images compared by content alone
        self._content: dict[bytes, str] = {}  # path by content
        self._hashes, self._paths = array("Q"), []  # of the trainable images
        self._same: dict[tuple[str, str], str] = {}
        self._queries: dict[tuple[str, str], int] = {}

    def trained(self, record: Record, phash: int | None) -> None:
        """Note an image of the training corpora; those of a validation or test split are not trained on."""
        content = bytes.fromhex(record.sha256)
        if record.split not in (None, "train") or content in self._content:
            return
        self._content[content] = record.path
        if phash is None:
            self.flat["training"] += 1
        else:
            self._hashes.append(phash)
            self._paths.append(record.path)

    def tested(self, benchmark: str, record: Record, phash: int | None) -> None:
        """Note an image of a benchmark, once however many questions are asked about it."""
        key = (benchmark, record.path)
        if key in self._same or key in self._queries:
            return
        if path := self._content.get(bytes.fromhex(record.sha256)):
            self._same[key] = path
        elif phash is None:
            self.flat[benchmark] += 1
        else:
            self._queries[key] = phash

    def frame(self) -> pd.DataFrame:
        """Return a row for each benchmark image with a trainable counterpart, by benchmark and path.

        `kind` is `content` for the same bytes, else `perceptual`, with the nearest trainable image and its
        distance in bits.
        """
        rows = [(*key, path, "content", 0) for key, path in self._same.items()]
        queries = np.fromiter(self._queries.values(), np.uint64, len(self._queries))
        indices, distances = nearest(np.array(self._hashes, np.uint64), queries, self.distance)
        for key, index, bits in zip(self._queries, indices, distances, strict=True):
            if index >= 0:
                rows.append((*key, self._paths[index], "perceptual", int(bits)))
        return pd.DataFrame(sorted(rows), columns=COLUMNS)
