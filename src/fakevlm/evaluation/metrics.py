"""Metrics of detection, as pure functions of numpy arrays with weighted rows.

Labels are 1 real, 0 fake; verdicts are "fake", "real" or "unparsed". An unparsed answer is wrong, whatever
the label. F1 is given for both positive classes and as their mean, because the paper's F1 on FakeClue has
*real* as its positive class and does not say so.

Every metric takes `weights` of shape (n,) or (draws, n) and returns a float or (draws,) floats. A bootstrap
draw is a row of counts (how often each row was drawn), so a thousand draws cost one matrix product.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd

FAKE, REAL = 0, 1
VERDICTS = {"fake": FAKE, "real": REAL, "unparsed": -1}
COLUMNS = ["method", "benchmark", "subset", "metric", "value", "ci_low", "ci_high", "n"]  # of scores.csv
SHARES = ("acc", "acc_forced", "unparsed")  # shares of the rows: with an exact bound where all rows are alike
_PORTION = 2**22  # draws times rows that are computed at a time

Array = np.ndarray
Metric = tuple[str, Array, Callable[[Array | None], Array]]  # name, rows, weights → value


def codes(verdicts: Array) -> Array:
    """Return verdicts as integers: 0 fake, 1 real, -1 unparsed. Shape (n,)."""
    return np.array([VERDICTS[v] for v in verdicts], dtype=np.int8)


def _ratio(part: Array, total: Array) -> Array:
    """Return part / total, NaN where total is 0."""
    part, total = np.asarray(part, dtype=float), np.asarray(total, dtype=float)
    return np.divide(part, total, out=np.full(np.broadcast(part, total).shape, np.nan), where=total > 0)


def _ones(values: Array, weights: Array | None) -> Array:
    return np.ones(len(values)) if weights is None else weights


def mean(values: Array, weights: Array | None = None) -> Array:
    """Return the weighted mean of `values` (n,); of booleans a share: accuracy, unparsed answers."""
    weights = _ones(values, weights)
    return _ratio(weights @ np.asarray(values, dtype=float), weights.sum(axis=-1))


def ratio(part: Array, total: Array, weights: Array | None = None) -> Array:
    """Return Σ w·part / Σ w·total: micro-averaged precision or recall from counts per image (n,)."""
    weights = _ones(part, weights)
    return _ratio(weights @ np.asarray(part, dtype=float), weights @ np.asarray(total, dtype=float))


def accuracy(labels: Array, verdicts: Array, weights: Array | None = None) -> Array:
    """Return the share of right verdicts (`codes`); unparsed ones are wrong."""
    return mean(labels == verdicts, weights)


def f1(labels: Array, verdicts: Array, positive: int, weights: Array | None = None) -> Array:
    """Return F1 = 2 TP / (2 TP + FP + FN) of the class `positive`.

    An unparsed answer to a positive is a miss (FN); to a negative it is no false positive. On one class
    alone, F1 is 2a / (1 + a) with a the accuracy, as in the paper's Table 3. NaN where nothing is positive.
    """
    weights = _ones(labels, weights)
    positive_label, positive_verdict = labels == positive, verdicts == positive
    hits = weights @ (positive_label & positive_verdict).astype(float)
    errors = weights @ (positive_label ^ positive_verdict).astype(float)
    return _ratio(2 * hits, 2 * hits + errors)


def f1_macro(labels: Array, verdicts: Array, weights: Array | None = None) -> Array:
    """Return the mean of F1 over both classes."""
    return (f1(labels, verdicts, REAL, weights) + f1(labels, verdicts, FAKE, weights)) / 2


def auc(labels: Array, p_fake: Array, weights: Array | None = None) -> Array:
    """Return the area under P(fake)'s ROC curve, with fake positive; ties count half. NaN with one class."""
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


def verdict_metrics(
    labels: Array, verdicts: Array, inside: Array, against: Array, suffix: str = ""
) -> Iterator[Metric]:
    """Yield accuracy of the rows `inside` and F1 of the rows `against` for the classes that these have."""
    yield f"acc{suffix}", inside, partial(accuracy, labels[inside], verdicts[inside])
    labels, verdicts = labels[against], verdicts[against]
    classes = [(name, label) for name, label in (("real", REAL), ("fake", FAKE)) if (labels == label).any()]
    for name, label in classes:
        yield f"f1_{name}{suffix}", against, partial(f1, labels, verdicts, label)
    if len(classes) == 2:
        yield f"f1_macro{suffix}", against, partial(f1_macro, labels, verdicts)


def detection(
    labels: Array, verdicts: Array, p_fake: Array, inside: Array, against: Array
) -> Iterator[Metric]:
    """Yield acc, f1_real, f1_fake, f1_macro, auc and unparsed, each where it is defined.

    Accuracy and unparsed are of the rows (indices) `inside`, F1 and AUC of the rows `against`.
    """
    yield from verdict_metrics(labels, verdicts, inside, against)
    if len(set(labels[against])) == 2 and not np.isnan(p_fake[against]).any():
        yield "auc", against, partial(auc, labels[against], p_fake[against])
    yield "unparsed", inside, partial(mean, verdicts[inside] == VERDICTS["unparsed"])


def subsets(frame: pd.DataFrame, families: Sequence[str]) -> Iterator[tuple[str, Array, Array]]:
    """Yield name, rows, and rows of AUC and F1 (for generators all real images too), as boolean masks.

    Families are `all`, `label`, `category` and `generator`; the last three are columns of the frame.
    """
    label = frame["label"].to_numpy()
    real, fake = label == REAL, label == FAKE
    if "all" in families:
        yield "all", real | fake, real | fake
    if "label" in families:
        yield "label=real", real, real
        yield "label=fake", fake, fake
    for family in [family for family in ("category", "generator") if family in families]:
        for name in sorted(frame[family].dropna().unique()):
            rows = (frame[family] == name).to_numpy()
            both = (rows & fake, rows | real) if family == "generator" else (rows, rows)
            yield f"{family}={name}", *both


def draws(labels: Array, groups: Array, count: int, seed: int) -> Array:
    """Return bootstrap weights: how often each row is drawn. Shape (count, n), float32.

    Whole *groups* (a video, an image) are drawn, because frames of a video, its manipulations and questions
    about one image are not independent. Drawing is stratified by the labels in a group: a benchmark fixes
    how many reals and fakes it has, and no draw of a small subset may lack a class. With the same seed all
    methods are compared on the same images.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((count, len(labels)), dtype=np.float32)
    if not len(labels):
        return weights
    names, codes = np.unique(labels, return_inverse=True)
    _, groups = np.unique(groups, return_inverse=True)
    holds = np.zeros((len(names), groups.max() + 1), bool)
    holds[codes, groups] = True
    _, strata = np.unique(holds, axis=1, return_inverse=True)
    for stratum in np.unique(strata):
        rows = np.flatnonzero(strata[groups] == stratum)
        _, inverse = np.unique(groups[rows], return_inverse=True)
        size = int(inverse.max()) + 1
        portion = max(1, _PORTION // len(rows))
        for start in range(0, count, portion):
            number = min(portion, count - start)
            drawn = generator.integers(0, size, (number, size)) + np.arange(number)[:, None] * size
            counts = np.bincount(drawn.ravel(), minlength=number * size).reshape(number, size)
            weights[start : start + number, rows] = counts[:, inverse]
    return weights


def interval(
    metric: Callable[[Array | None], Array], weights: Array, groups: int | None = None
) -> tuple[float, float, float]:
    """Return a metric's value and its 95 % percentile bootstrap interval.

    Where all draws give the same value, as when all answers are right, the bootstrap has no interval. A
    share then gets the exact (Clopper-Pearson) bound of its `groups` independent groups; other metrics get
    none. `weights` are those of `draws`; an empty array gives NaN bounds.
    """
    value = float(metric(None))
    unknown = value, float("nan"), float("nan")
    if not len(weights) or np.isnan(value):
        return unknown
    # In portions, to avoid (draws, n) temporaries in double precision.
    portion = max(1, _PORTION // max(1, weights.shape[1]))
    values = np.concatenate([metric(weights[i : i + portion]) for i in range(0, len(weights), portion)])
    values = values[~np.isnan(values)]
    if len(values) and np.ptp(values) >= 1e-9:
        low, high = np.quantile(values, [0.025, 0.975])
        return value, float(low), float(high)
    if not len(values) or groups is None or value not in (0.0, 1.0):
        return unknown
    bound = 0.025 ** (1 / groups)
    return (value, bound, 1.0) if value else (value, 0.0, 1 - bound)


def estimates(
    metrics: Iterable[Metric], labels: Array, groups: Array, count: int, seed: int
) -> Iterator[tuple[str, float, float, float, int]]:
    """Yield name, value, bounds of the 95 % interval and number of rows of each metric that has a value.

    `labels`, `groups`, `count` and `seed` are those of `draws`.
    """
    drawn: dict[bytes, Array] = {}
    for name, rows, metric in metrics:
        label, group = labels[rows], groups[rows]
        key = label.tobytes() + group.tobytes()
        if key not in drawn:
            drawn[key] = draws(label, group, count, seed)
        value, low, high = interval(metric, drawn[key], len(np.unique(group)) if name in SHARES else None)
        if not np.isnan(value):  # e.g. precision of clues where none was named
            yield name, value, low, high, len(rows)


def overview(scores: pd.DataFrame, subset: str = "all") -> pd.DataFrame:
    """Return scores of one subset to read: methods × metrics, "value [low, high]" or "–"."""
    part = scores[scores["subset"] == subset]
    cells = [
        f"{r.value:.3f}" + ("" if np.isnan(r.ci_low) else f" [{r.ci_low:.3f}, {r.ci_high:.3f}]")
        for r in part.itertuples()
    ]
    table = part.assign(cell=cells).pivot(index="method", columns="metric", values="cell")
    return table.reindex(index=part["method"].unique(), columns=part["metric"].unique()).fillna("–")


def by_subset(scores: pd.DataFrame, metric: str, family: str) -> pd.DataFrame:
    """Return one metric over a family of subsets (`category`, `generator`, …): methods × subsets."""
    part = scores[scores["subset"].str.startswith(f"{family}=") & (scores["metric"] == metric)]
    part = part.assign(column=part["subset"].str.removeprefix(f"{family}="))
    table = part.pivot(index="method", columns="column", values="value")
    return table.reindex(index=part["method"].unique(), columns=part["column"].unique())
