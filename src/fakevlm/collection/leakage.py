"""Which benchmark images are among those that may be trained on: the same bytes, or nearly the same picture. Reported, never dropped."""

from array import array
from collections import Counter

import numpy as np
import pandas as pd

from fakevlm.collection.ondisk import DiskDict
from fakevlm.collection.perceptual import nearest
from fakevlm.data.records import Record

COLUMNS = ["benchmark", "path", "train_path", "kind", "distance"]


class Leakage:
    """Sees every image once, keeps its hashes, and compares at the end.

    Kept are a content hash and a path for each trainable image on disk, and 8 bytes for its perceptual hash in memory.

    Args:
        distance: bits of 64 in which two perceptual hashes may differ.

    Attributes:
        flat: benchmark, or "training" → images whose perceptual hash would say nothing; they are compared by content alone.
    """

    def __init__(self, distance: int) -> None:
        self.distance = distance
        self.flat: Counter[str] = Counter()
        self._content = DiskDict()  # path by the content's hash
        self._paths = DiskDict()  # path by the place in `_hashes`
        self._hashes = array("Q")
        self._same: dict[tuple[str, str], str] = {}
        self._asked: dict[tuple[str, str], int] = {}

    def trained(self, record: Record, looks: int | None) -> None:
        """Notes an image of the training corpora; those of a corpus's own validation and test split are not trainable.

        Args:
            looks: the image's perceptual hash (`phash`).
        """
        if record.split not in (None, "train"):
            return
        if not self._content.add(bytes.fromhex(record.sha256), record.path):
            return
        if looks is None:
            self.flat["training"] += 1
        else:
            self._paths.add(len(self._hashes), record.path)
            self._hashes.append(looks)

    def tested(self, benchmark: str, record: Record, looks: int | None) -> None:
        """Notes an image of a benchmark, once however many questions are asked about it."""
        key = (benchmark, record.path)
        if key in self._same or key in self._asked:
            return
        if path := self._content.get(bytes.fromhex(record.sha256)):
            self._same[key] = path
        elif looks is None:
            self.flat[benchmark] += 1
        else:
            self._asked[key] = looks

    def frame(self) -> pd.DataFrame:
        """One row for each benchmark image that has its like among the trainable ones, by benchmark and path.

        `kind` is `content` for the same bytes, else `perceptual`, with the nearest trainable image and its distance in bits.
        """
        rows = [(*key, path, "content", 0) for key, path in self._same.items()]
        asked = np.fromiter(self._asked.values(), np.uint64, len(self._asked))
        found = nearest(np.array(self._hashes, np.uint64), asked, self.distance)
        for key, which, apart in zip(self._asked, *found, strict=True):
            if which >= 0:
                rows.append((*key, self._paths.get(int(which)), "perceptual", int(apart)))
        return pd.DataFrame(sorted(rows), columns=COLUMNS)
