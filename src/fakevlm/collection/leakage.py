"""Benchmark images that may also be trained on, by content or likeness. Reported, never dropped."""

from array import array
from collections import Counter

import numpy as np
import pandas as pd

from fakevlm.collection.perceptual import nearest
from fakevlm.data.records import Record

COLUMNS = ["benchmark", "path", "train_path", "kind", "distance"]


class Leakage:
    """Collect the hashes of all images and compare them at the end.

    Args:
        distance: bits of 64 in which two perceptual hashes may differ.
    """

    def __init__(self, distance: int) -> None:
        self.distance = distance
        # By benchmark or "training": images without contrast, which are compared by content alone.
        self.flat: Counter[str] = Counter()
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
