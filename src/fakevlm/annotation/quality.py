"""How good the annotations are: what the paper could not measure, because nobody knows the clues of real corpora.

Where the truth is known (the miniature), the kinds of artifact that a text names are compared with those that are there.
Precision and recall are over (image, kind) pairs of fakes with visible artifacts; a refusal names nothing and costs recall.
Images are counted one by one; only sums are held.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import combinations

import pandas as pd

from fakevlm.data.clues import KINDS, kinds_named
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.records import REAL

AGGREGATE = "aggregate"
QUALITY_COLUMNS = ("annotator", "precision", "recall", "f1", "n", "spurious_per_real", "n_real")
AGREEMENT_COLUMNS = ("annotator_a", "annotator_b", "jaccard", "kappa", "n")
_NOTHING: AbstractSet[str] = frozenset()


def named_kinds(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """The kinds of artifact that each author's text about one image names."""
    return {author: kinds_named(text) for author, text in texts.items()}


class ClueQuality:
    """Precision, recall and F1 of the clues that each author names.

    Args:
        authors: the annotators, the aggregate.
    """

    def __init__(self, authors: Sequence[str]) -> None:
        self._authors = authors
        self._hits, self._said, self._spurious = Counter(), Counter(), Counter()
        self._there = self._visible = self._real = 0

    def add(self, truth: GroundTruth, named: Mapping[str, AbstractSet[str]]) -> None:
        """Counts an image of which the truth is known: the kinds that each author names; who is missing names none."""
        self._visible += bool(truth.kinds)
        self._there += len(truth.kinds)
        self._real += truth.label == REAL
        for author in self._authors:
            kinds = named.get(author, _NOTHING)
            if truth.kinds:
                self._hits[author] += len(kinds & truth.kinds)
                self._said[author] += len(kinds)
            if truth.label == REAL:
                self._spurious[author] += len(kinds)

    def table(self) -> pd.DataFrame:
        """A row an author, in their order; none if no image with visible artifacts is known.

        Returns:
            Columns `QUALITY_COLUMNS`: n fakes with visible artifacts; `spurious_per_real`, the mean number of kinds of
            artifact claimed of a real image, over `n_real` images.
        """
        rows = []
        for author in self._authors if self._visible else ():
            hits, said = self._hits[author], self._said[author]
            rows.append(
                {
                    "annotator": author,
                    "precision": hits / max(said, 1),
                    "recall": hits / self._there,
                    "f1": 2 * hits / (said + self._there),
                    "n": self._visible,
                    "spurious_per_real": self._spurious[author] / max(self._real, 1),
                    "n_real": self._real,
                }
            )
        return pd.DataFrame(rows, columns=list(QUALITY_COLUMNS))


def _kappa(pairs: Counter[tuple[int, int, int]]) -> float:
    """Cohen's kappa of two annotators' yes or no to every kind of every image; NaN where chance leaves no room.

    Args:
        pairs: how many images there are for each (kinds that a names, kinds that b names, kinds that both name).
    """
    total = sum(pairs.values()) * len(KINDS)
    a, b = sum(n * x for (x, _, _), n in pairs.items()), sum(n * y for (_, y, _), n in pairs.items())
    differ = sum(n * (x + y - 2 * both) for (x, y, both), n in pairs.items())
    if not total:
        return float("nan")
    chance = (a * b + (total - a) * (total - b)) / total**2
    return (1 - differ / total - chance) / (1 - chance) if chance < 1 else float("nan")


class Agreement:
    """How far annotators agree in the kinds of artifact that they name, pair by pair; needs no truth.

    Args:
        annotators: their names.
    """

    def __init__(self, annotators: Sequence[str]) -> None:
        # Numbers of kinds decide everything, and there are few: sums come out the same in any order of images.
        self._pairs: dict[tuple[str, str], Counter[tuple[int, int, int]]] = {
            pair: Counter() for pair in combinations(annotators, 2)
        }

    def add(self, named: Mapping[str, AbstractSet[str]]) -> None:
        """Counts a fake: the kinds that each annotator names; who is missing names none."""
        for (a, b), pairs in self._pairs.items():
            x, y = named.get(a, _NOTHING), named.get(b, _NOTHING)
            pairs[len(x), len(y), len(x & y)] += 1

    def table(self) -> pd.DataFrame:
        """A row a pair.

        Returns:
            Columns `AGREEMENT_COLUMNS`: the mean Jaccard index over the n images of which at least one of the two names
            something, and Cohen's kappa over all (image, kind) decisions.
        """
        rows = []
        for (a, b), pairs in self._pairs.items():
            some = sorted(((x, y, both), n) for (x, y, both), n in pairs.items() if x + y)
            n = sum(count for _, count in some)
            overlap = sum(count * both / (x + y - both) for (x, y, both), count in some)
            rows.append(
                {
                    "annotator_a": a,
                    "annotator_b": b,
                    "jaccard": overlap / max(n, 1),
                    "kappa": _kappa(pairs),
                    "n": n,
                }
            )
        return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))
