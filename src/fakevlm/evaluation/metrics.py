"""Metrics of detection, as pure functions of numpy arrays, with weighted rows so that the bootstrap is one more axis.

Conventions (FACTS: "Metrics"): labels are 1 real, 0 fake; verdicts are "fake", "real" or "unparsed"; an unparsed answer is
wrong, whatever the label, and never replaced by a draw. F1 is given for both positive classes and as their mean, because
the paper's F1 has *real* as its positive class on FakeClue and does not say so.

Every metric takes `weights` of shape (n,) or (draws, n) and returns a float or (draws,) floats. A bootstrap draw is a row
of counts (how often each image was drawn), so a thousand draws cost one matrix product and no resampled copies.
"""

from collections.abc import Callable

import numpy as np

FAKE, REAL = 0, 1
VERDICTS = {"fake": FAKE, "real": REAL, "unparsed": -1}

SHARES = (
    "acc",
    "acc_forced",
    "unparsed",
)  # metrics that are shares of the rows: with an exact bound where all rows are alike

Array = np.ndarray
_PORTION = 2**22  # draws times rows that are worked on at a time


def codes(verdicts: Array) -> Array:
    """Verdicts as integers: 0 fake, 1 real, -1 unparsed. Shape (n,)."""
    return np.array([VERDICTS[v] for v in verdicts], dtype=np.int8)


def _ratio(part: Array, whole: Array) -> Array:
    """part / whole, NaN where whole is 0."""
    part, whole = np.asarray(part, dtype=float), np.asarray(whole, dtype=float)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def _ones(values: Array, weights: Array | None) -> Array:
    return np.ones(len(values)) if weights is None else weights


def mean(values: Array, weights: Array | None = None) -> Array:
    """Weighted mean of `values` (n,); with booleans a share: accuracy, the share of unparsed answers."""
    weights = _ones(values, weights)
    return _ratio(weights @ np.asarray(values, dtype=float), weights.sum(axis=-1))


def ratio(part: Array, whole: Array, weights: Array | None = None) -> Array:
    """Σ w·part / Σ w·whole: micro-averaged precision or recall from counts per image (n,)."""
    weights = _ones(part, weights)
    return _ratio(weights @ np.asarray(part, dtype=float), weights @ np.asarray(whole, dtype=float))


def accuracy(labels: Array, verdicts: Array, weights: Array | None = None) -> Array:
    """Share of right verdicts (`codes`); unparsed ones are wrong."""
    return mean(labels == verdicts, weights)


def f1(labels: Array, verdicts: Array, positive: int, weights: Array | None = None) -> Array:
    """F1 = 2 TP / (2 TP + FP + FN) of the class `positive`.

    An unparsed answer to a positive is a miss (FN); to a negative it is no claim, hence no false positive. On images of one
    class only, this is 2a / (1 + a) with a the accuracy, as in the paper's Table 3. NaN where nothing is positive.
    """
    weights = _ones(labels, weights)
    is_positive, said = labels == positive, verdicts == positive
    hits = weights @ (is_positive & said).astype(float)
    errors = weights @ (is_positive ^ said).astype(float)
    return _ratio(2 * hits, 2 * hits + errors)


def f1_macro(labels: Array, verdicts: Array, weights: Array | None = None) -> Array:
    """Mean of F1 over both classes."""
    return (f1(labels, verdicts, REAL, weights) + f1(labels, verdicts, FAKE, weights)) / 2


def auc(labels: Array, p_fake: Array, weights: Array | None = None) -> Array:
    """Area under the ROC curve of P(fake) with fake as the positive class; ties count half. NaN with one class only."""
    weights = _ones(labels, weights)
    order = np.argsort(p_fake, kind="stable")
    scores, weights = p_fake[order], weights[..., order]
    fakes = weights * (labels[order] == FAKE)
    reals = weights * (labels[order] == REAL)
    # Rows of equal score are summed into one step of the curve.
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]]) if len(scores) else np.array([], int)
    if not len(starts):
        return np.full(weights.shape[:-1], np.nan)
    fakes = np.add.reduceat(fakes, starts, axis=-1)
    reals = np.add.reduceat(reals, starts, axis=-1)
    below = np.cumsum(reals, axis=-1) - reals / 2
    return _ratio((fakes * below).sum(axis=-1), fakes.sum(axis=-1) * reals.sum(axis=-1))


def draws(labels: Array, items: Array, count: int, seed: int) -> Array:
    """Bootstrap weights: how often each row is drawn. Shape (count, n), float32.

    Drawn are *items* (a video, an image), each with all its rows, not rows: frames of one video, a video and its manipulations and
    questions about one image are not independent, and an interval that takes them for so is wrong. Drawing is stratified by the
    labels that an item holds, since a benchmark's makers fixed how many reals and fakes it has (accuracy on a set of another
    mix would be another number), and so that no draw of a small subset lacks a class.

    Args:
        labels: (n,) of the rows.
        items: (n,) what is drawn with all its rows, of whatever label.
        count: number of draws.
        seed: of the generator; the same seed gives the same draws for every method, so that methods are compared on the
            same images.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((count, len(labels)), dtype=np.float32)
    if not len(labels):
        return weights
    names, codes = np.unique(labels, return_inverse=True)
    _, items = np.unique(items, return_inverse=True)
    holds = np.zeros((len(names), items.max() + 1), bool)
    holds[codes, items] = True
    _, strata = np.unique(holds, axis=1, return_inverse=True)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata[items] == stratum)
        _, inverse = np.unique(items[rows], return_inverse=True)
        size = int(inverse.max()) + 1
        portion = max(
            1, _PORTION // len(rows)
        )  # three arrays of integers, each twice as large as the weights
        for start in range(0, count, portion):
            these = min(portion, count - start)
            drawn = generator.integers(0, size, (these, size)) + np.arange(these)[:, None] * size
            counts = np.bincount(drawn.ravel(), minlength=these * size).reshape(these, size)
            weights[start : start + these, rows] = counts[:, inverse]
    return weights


def interval(
    metric: Callable[[Array | None], Array], weights: Array | None, items: int | None = None
) -> tuple[float, float, float]:
    """A metric's value and its 95 % percentile bootstrap interval.

    The bootstrap knows nothing of what it has not seen: where every draw gives the same, as when all answers are right, it would
    say that the value is certain. There a share gets the exact (Clopper-Pearson) bound of so many independent items, all
    alike; what is no share of items gets none.

    Args:
        metric: maps weights to a value; None stands for "each row once".
        weights: from `draws`; None or empty gives NaN bounds.
        items: how many items were drawn from, where the metric is a share of their rows.

    Returns:
        value, lower bound, upper bound.
    """
    value = float(metric(None))
    if weights is None or not len(weights) or np.isnan(value):
        return value, float("nan"), float("nan")
    # In portions, so that a large benchmark needs no (draws, n) temporaries in double precision.
    portion = max(1, _PORTION // max(1, weights.shape[1]))
    values = np.concatenate([metric(weights[i : i + portion]) for i in range(0, len(weights), portion)])
    values = values[~np.isnan(values)]
    if not len(values):
        return value, float("nan"), float("nan")
    if np.ptp(values) < 1e-9:
        if items is None or value not in (0.0, 1.0):
            return value, float("nan"), float("nan")
        bound = 0.025 ** (1 / items)
        return (value, bound, 1.0) if value else (value, 0.0, 1 - bound)
    low, high = np.quantile(values, [0.025, 0.975])
    return value, float(low), float(high)
