"""How good the annotations are: what the paper could not measure, because nobody knows the clues of real corpora.

Where the truth is known (the miniature), the kinds of artifact that a text names are compared with those that are there.
Precision and recall are over (image, kind) pairs of fakes with visible artifacts; a refusal names nothing and costs recall.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import pandas as pd

from fakevlm.miniature.catalogue import KINDS, kinds_named
from fakevlm.miniature.truth import Truth
from fakevlm.records import REAL

AGGREGATE = "aggregate"
QUALITY_COLUMNS = ("annotator", "precision", "recall", "f1", "n", "spurious_per_real", "n_real")
AGREEMENT_COLUMNS = ("annotator_a", "annotator_b", "jaccard", "kappa", "n")


def named_kinds(texts: Mapping[str, str]) -> dict[str, set[str]]:
    """The kinds of artifact named in each text; equal texts are read once."""
    read = {text: kinds_named(text) for text in set(texts.values())}
    return {key: read[text] for key, text in texts.items()}


def clue_quality(texts: Mapping[str, Mapping[str, str]], truths: Mapping[str, Truth]) -> pd.DataFrame:
    """Precision, recall and F1 of the clues that each author names; rows in the order of `texts`.

    Args:
        texts: by author (an annotator, the aggregate), the text by image id; a missing image counts as empty.
        truths: by image id, what is known. Empty gives an empty table.

    Returns:
        Columns `QUALITY_COLUMNS`: n fakes with visible artifacts; `spurious_per_real`, the mean number of kinds of
        artifact claimed of a real image, over `n_real` images.
    """
    visible = sorted(key for key, truth in truths.items() if truth.kinds)
    real = sorted(key for key, truth in truths.items() if truth.label == REAL)
    rows = []
    for author, written in texts.items() if visible else ():
        named = named_kinds(written)
        hits = sum(len(named.get(key, set()) & truths[key].kinds) for key in visible)
        said = sum(len(named.get(key, set())) for key in visible)
        there = sum(len(truths[key].kinds) for key in visible)
        spurious = sum(len(named.get(key, set())) for key in real)
        rows.append(
            {
                "annotator": author,
                "precision": hits / max(said, 1),
                "recall": hits / there,
                "f1": 2 * hits / (said + there),
                "n": len(visible),
                "spurious_per_real": spurious / max(len(real), 1),
                "n_real": len(real),
            }
        )
    return pd.DataFrame(rows, columns=list(QUALITY_COLUMNS))


def _kappa(pairs: Sequence[tuple[set[str], set[str]]]) -> float:
    """Cohen's kappa of two annotators' yes or no to every kind of every image; NaN where chance leaves no room."""
    total = len(pairs) * len(KINDS)
    a, b = sum(len(x) for x, _ in pairs), sum(len(y) for _, y in pairs)
    differ = sum(len(x ^ y) for x, y in pairs)
    if not total:
        return float("nan")
    chance = (a * b + (total - a) * (total - b)) / total**2
    return (1 - differ / total - chance) / (1 - chance) if chance < 1 else float("nan")


def agreement(texts: Mapping[str, Mapping[str, str]], fakes: Sequence[str]) -> pd.DataFrame:
    """How far annotators agree in the kinds of artifact that they name, pair by pair; needs no truth.

    Args:
        texts: by annotator, the caption by image id.
        fakes: ids of the fakes to compare on.

    Returns:
        Columns `AGREEMENT_COLUMNS`: the mean Jaccard index over the n images of which at least one of the two names
        something, and Cohen's kappa over all (image, kind) decisions.
    """
    named = {author: named_kinds(written) for author, written in texts.items()}
    rows = []
    for a, b in combinations(texts, 2):
        pairs = [(named[a].get(key, set()), named[b].get(key, set())) for key in fakes]
        overlaps = [len(x & y) / len(x | y) for x, y in pairs if x | y]
        rows.append(
            {
                "annotator_a": a,
                "annotator_b": b,
                "jaccard": sum(overlaps) / max(len(overlaps), 1),
                "kappa": _kappa(pairs),
                "n": len(overlaps),
            }
        )
    return pd.DataFrame(rows, columns=list(AGREEMENT_COLUMNS))
