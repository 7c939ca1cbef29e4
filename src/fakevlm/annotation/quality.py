"""Clue precision and recall against the ground truth, and agreement between annotators.

Only the miniature has ground truth; the paper could not measure the quality on real corpora. A text is
reduced to the kinds of artifact that it names (`kinds_row`). A refusal names nothing and lowers recall.
"""

from collections.abc import Collection, Sequence
from itertools import combinations

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from fakevlm.data.clues import KINDS
from fakevlm.data.records import REAL

AGGREGATE = "aggregate"
QUALITY_COLUMNS = ["annotator", "precision", "recall", "f1", "n", "spurious_per_real", "n_real"]
AGREEMENT_COLUMNS = ["annotator_a", "annotator_b", "jaccard", "kappa", "n"]


def kinds_row(kinds: Collection[str]) -> np.ndarray:
    """Return (len(KINDS),) bool: which kinds of artifact are among `kinds`."""
    return np.array([kind in kinds for kind in KINDS])


def clue_quality(
    authors: Sequence[str], named: np.ndarray, ground_truth: np.ndarray, labels: np.ndarray
) -> pd.DataFrame:
    """Return precision, recall and F1 of each author's clues, over (image, kind of artifact) pairs.

    `named` (images, authors, kinds) and `ground_truth` (images, kinds) are bool: kinds named, true kinds;
    `labels` (images,) are 1 real, 0 fake. The result has a row an author with `QUALITY_COLUMNS`, over the `n`
    images with visible artifacts; no rows if there are none. `spurious_per_real` is the mean number of kinds
    claimed of `n_real` real images.
    """
    visible, real = ground_truth.any(axis=1), labels == REAL
    if not visible.any():
        return pd.DataFrame(columns=QUALITY_COLUMNS)
    right = (named & ground_truth[:, None])[visible].sum(axis=(0, 2))
    claimed, true = named[visible].sum(axis=(0, 2)), ground_truth.sum()
    table = {
        "annotator": authors,
        "precision": right / np.maximum(claimed, 1),
        "recall": right / true,
        "f1": 2 * right / (claimed + true),
        "n": visible.sum(),
        "spurious_per_real": named[real].sum(axis=(0, 2)) / max(real.sum(), 1),
        "n_real": real.sum(),
    }
    return pd.DataFrame(table)


def agreement(annotators: Sequence[str], named: np.ndarray) -> pd.DataFrame:
    """Return the agreement of each pair of annotators in the kinds of artifact that they name in fakes.

    A row a pair with `AGREEMENT_COLUMNS`: the mean Jaccard index over the `n` images of which one of the two
    names something, and Cohen's kappa over all (image, kind) decisions of `named` (fakes, annotators, kinds).
    """
    rows = []
    for i, j in combinations(range(len(annotators)), 2):
        a, b = named[:, i], named[:, j]
        both, either = (a & b).sum(axis=1), (a | b).sum(axis=1)
        n = np.count_nonzero(either)
        jaccard = float((both / np.maximum(either, 1)).sum() / max(n, 1))
        kappa = cohen_kappa_score(a.ravel(), b.ravel()) if np.unique([a, b]).size > 1 else np.nan
        rows.append((annotators[i], annotators[j], jaccard, kappa, n))
    return pd.DataFrame(rows, columns=AGREEMENT_COLUMNS)
