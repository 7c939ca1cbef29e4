"""Clue precision and recall against the ground truth, and agreement between annotators.

Only the miniature has ground truth; the paper could not measure the quality on real corpora. Precision and
recall are over (image, kind of artifact) pairs of fakes with visible artifacts; a refusal names nothing and
lowers recall. Images are counted one by one, and only sums are held.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations

import pandas as pd

from fakevlm.data.clues import KINDS, kinds_named
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.records import REAL

AGGREGATE = "aggregate"
QUALITY_COLUMNS = ["annotator", "precision", "recall", "f1", "n", "spurious_per_real", "n_real"]
AGREEMENT_COLUMNS = ["annotator_a", "annotator_b", "jaccard", "kappa", "n"]
_NOTHING: AbstractSet[str] = frozenset()


def named_kinds(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the kinds of artifact that each author's text about an image names."""
    return {author: kinds_named(text) for author, text in texts.items()}


class ClueQuality:
    """Precision, recall and F1 of the clues that each author names.

    Args:
        authors: the annotators and the aggregate.
    """

    def __init__(self, authors: Sequence[str]) -> None:
        self._authors = authors
        self._hits, self._named, self._spurious = Counter(), Counter(), Counter()
        self._true = self._visible = self._real = 0

    def add(self, truth: GroundTruth, named: Mapping[str, AbstractSet[str]]) -> None:
        """Count an image: the kinds that each author names; an author who is missing names none."""
        self._visible += bool(truth.kinds)
        self._true += len(truth.kinds)
        self._real += truth.label == REAL
        for author in self._authors:
            kinds = named.get(author, _NOTHING)
            if truth.kinds:
                self._hits[author] += len(kinds & truth.kinds)
                self._named[author] += len(kinds)
            if truth.label == REAL:
                self._spurious[author] += len(kinds)

    def table(self) -> pd.DataFrame:
        """Return a row an author, in their order; no rows if no fake with visible artifacts was counted.

        Returns:
            Columns `QUALITY_COLUMNS`: `n` fakes with visible artifacts; `spurious_per_real` the mean number
            of kinds of artifact claimed of a real image, over `n_real` images.
        """
        rows = []
        for author in self._authors if self._visible else ():
            hits, named = self._hits[author], self._named[author]
            spurious = self._spurious[author] / max(self._real, 1)
            f1 = 2 * hits / (named + self._true)
            scores = hits / max(named, 1), hits / self._true, f1
            rows.append((author, *scores, self._visible, spurious, self._real))
        return pd.DataFrame(rows, columns=QUALITY_COLUMNS)


def _kappa(counts: Counter[tuple[int, int, int]]) -> float:
    """Return Cohen's kappa of two annotators' yes or no to every kind of every image; NaN if it is undefined.

    Args:
        counts: images by (kinds that a names, kinds that b names, kinds that both name).
    """
    total = sum(counts.values()) * len(KINDS)
    a, b = sum(n * x for (x, _, _), n in counts.items()), sum(n * y for (_, y, _), n in counts.items())
    differ = sum(n * (x + y - 2 * both) for (x, y, both), n in counts.items())
    if not total:
        return math.nan
    chance = (a * b + (total - a) * (total - b)) / total**2
    return (1 - differ / total - chance) / (1 - chance) if chance < 1 else math.nan


class Agreement:
    """Agreement of pairs of annotators in the kinds of artifact that they name."""

    def __init__(self, annotators: Sequence[str]) -> None:
        # Counts of set sizes give the same sums in any order of images.
        self._pairs: dict[tuple[str, str], Counter[tuple[int, int, int]]] = {
            pair: Counter() for pair in combinations(annotators, 2)
        }

    def add(self, named: Mapping[str, AbstractSet[str]]) -> None:
        """Count a fake: the kinds that each annotator names; an annotator who is missing names none."""
        for (a, b), counts in self._pairs.items():
            x, y = named.get(a, _NOTHING), named.get(b, _NOTHING)
            counts[len(x), len(y), len(x & y)] += 1

    def table(self) -> pd.DataFrame:
        """Return a row a pair.

        Returns:
            Columns `AGREEMENT_COLUMNS`: the mean Jaccard index over the `n` images of which one of the two
            names something, and Cohen's kappa over all (image, kind) decisions.
        """
        rows = []
        for (a, b), counts in self._pairs.items():
            named = sorted((sizes, n) for sizes, n in counts.items() if sizes[0] + sizes[1])
            n = sum(count for _, count in named)
            overlap = sum(count * both / (x + y - both) for (x, y, both), count in named)
            rows.append((a, b, overlap / max(n, 1), _kappa(counts), n))
        return pd.DataFrame(rows, columns=AGREEMENT_COLUMNS)
