"""Do explanations name the artifacts that are there? Only a miniature can answer, because only there the truth is known.

Counted are *kinds* of artifact (`miniature.catalogue`), each at most once an image, on fakes with visible artifacts. A fake
that is taken for real names nothing and so loses recall; an artifact that is not there costs precision. The sums run over
all images (micro-average), so an image with three artifacts weighs three times in recall.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fakevlm.data.clues import KINDS, kinds_named
from fakevlm.data.ground_truth import GroundTruth

KIND_NAMES = tuple(KINDS)


@dataclass(frozen=True)
class Clues:
    """What is there and what is said, an image a row, a kind a column (`KIND_NAMES`).

    Attributes:
        rows: which of the given texts have a truth to compare with, as indices.
        true: (len(rows), kinds) bool.
        named: (len(rows), kinds) bool.
    """

    rows: np.ndarray
    true: np.ndarray
    named: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        """Kinds rightly named, (len(rows), kinds) bool."""
        return self.true & self.named


def clues(paths: Sequence[str], texts: Sequence[str], ground_truth: Mapping[str, GroundTruth]) -> Clues:
    """Compares each text with the truth of its image; images without truth or without visible artifacts are left out.

    Args:
        paths: the images' paths (a record's `path`).
        texts: what was said of them.
        ground_truth: from `data.ground_truth.read_ground_truth`.
    """
    rows = [n for n, path in enumerate(paths) if path in ground_truth and ground_truth[path].kinds]

    def table(sets: list[set[str]]) -> np.ndarray:
        cells = [[name in found for name in KIND_NAMES] for found in sets]
        return np.array(cells, dtype=bool).reshape(len(rows), len(KIND_NAMES))

    return Clues(
        rows=np.array(rows, dtype=int),
        true=table([ground_truth[paths[n]].kinds for n in rows]),
        named=table([kinds_named(texts[n] or "") for n in rows]),
    )
