"""From predictions to scores: every metric on every subset, each with its interval.

Which rows count for which metric, and what the subsets are, is in docs/evaluation.md.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import pandas as pd

from fakevlm.config.params import Params
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.evaluation import metrics
from fakevlm.evaluation.explanations import KIND_NAMES, clue_tables, css, rouge_l
from fakevlm.evaluation.metrics import COLUMNS, Metric

FAMILIES = ("all", "label", "category", "generator", "kind")
_PART = re.compile(r"\b(skin|eyebrows?|eyes?|nose|mouth|lips?|teeth|hair|ears?|cheeks?)\b", re.IGNORECASE)

Encode = Callable[[list[str]], np.ndarray]


def asks_about_part(question: str | None) -> bool:
    """Return whether a question (DD-VQA) is about a part of the face and not the image."""
    return bool(question and _PART.search(question))


def references(cell: str | None) -> list[str]:
    """Return the references in a cell of the column `reference`, one a line."""
    return [line for line in (cell or "").split("\n") if line.strip()]


class _Scorer:
    """One method's answers, prepared once and scored on any rows."""

    def __init__(self, frame: pd.DataFrame, ground_truth: Mapping[str, GroundTruth], encode: Encode) -> None:
        has_text = frame["text"].notna().to_numpy()
        texts = frame["text"].where(has_text, "").tolist()
        self.label, self.p_fake = frame["label"].to_numpy(), frame["p_fake"].to_numpy(dtype=float)
        self.verdict, self.forced = metrics.codes(frame["verdict"].to_numpy()), None
        if "verdict_forced" in frame and has_text.any() and frame["verdict_forced"].notna().all():
            self.forced = metrics.codes(frame["verdict_forced"].to_numpy())
        self.decides = ~frame["question"].fillna("").map(asks_about_part).to_numpy(dtype=bool)
        groups = [references(cell) for cell in frame["reference"]]
        self.explains = has_text & np.array([bool(group) for group in groups], dtype=bool)
        self.rouge, self.css = np.zeros(len(frame)), np.zeros(len(frame))
        rows = np.flatnonzero(self.explains)
        if len(rows):
            self.rouge[rows] = [rouge_l(texts[n], groups[n]) for n in rows]
            self.css[rows] = css([texts[n] for n in rows], [groups[n] for n in rows], encode)
        paths = frame["id"].str.split("#").str[0].tolist()
        annotated, self.true, self.named = clue_tables(paths, texts, ground_truth)
        self.has_clues, self.hits = annotated & has_text & self.decides, self.true & self.named

    def metrics(self, rows: np.ndarray, against: np.ndarray) -> Iterator[Metric]:
        """Yield the metrics of a subset; see `metrics.subsets`."""
        inside, both = np.flatnonzero(rows & self.decides), np.flatnonzero(against & self.decides)
        if len(inside):
            yield from metrics.detection(self.label, self.verdict, self.p_fake, inside, both)
            if self.forced is not None:
                yield from metrics.verdict_metrics(self.label, self.forced, inside, both, "_forced")
        inside = np.flatnonzero(rows & self.explains)
        if len(inside):
            yield "rouge_l", inside, partial(metrics.mean, self.rouge[inside])
            yield "css", inside, partial(metrics.mean, self.css[inside])
        inside = np.flatnonzero(rows & self.has_clues)
        if len(inside):
            hits, named, true = (table[inside].sum(axis=1) for table in (self.hits, self.named, self.true))
            yield "clue_precision", inside, partial(metrics.ratio, hits, named)
            yield "clue_recall", inside, partial(metrics.ratio, hits, true)
            yield "clue_f1", inside, partial(metrics.ratio, 2 * hits, named + true)

    def kind_metrics(self, column: int) -> Iterator[Metric]:
        """Yield recall and precision of the clues of one kind."""
        for name, table in ("clue_recall", self.true), ("clue_precision", self.named):
            inside = np.flatnonzero(self.has_clues & table[:, column])
            if len(inside):
                yield name, inside, partial(metrics.mean, self.hits[inside, column])


def score(
    predictions: pd.DataFrame,
    ground_truth: Mapping[str, GroundTruth],
    params: Params,
    benchmark: str,
    *,
    families: tuple[str, ...] = FAMILIES,
    encode: Encode | None = None,
) -> pd.DataFrame:
    """Return all metrics of all methods, with 95 % intervals from `params.evaluate.bootstrap` draws.

    Args:
        predictions: rows of `predictions.parquet`.
        ground_truth: known artifacts by path; empty outside the miniature.
        benchmark: for the column of that name.
        families: of subsets, of `FAMILIES`.
        encode: sentences → unit rows for CSS; by default the encoder of `params.evaluate.encoder`.

    Returns:
        `COLUMNS`, a row for each method, subset and metric, in the order of `predictions` and `FAMILIES`.
    """
    if encode is None:
        from fakevlm.model import sentence_encoder

        encode = partial(sentence_encoder.encode, name=params.evaluate.encoder)
    rows: list[tuple] = []
    for method, frame in predictions.groupby("method", sort=False):
        scorer = _Scorer(frame, ground_truth, encode)
        items = pd.factorize(frame["item"])[0]
        parts = [(name, scorer.metrics(*masks)) for name, *masks in metrics.subsets(frame, families)]
        if "kind" in families:
            parts += [(f"kind={kind}", scorer.kind_metrics(n)) for n, kind in enumerate(KIND_NAMES)]
        for subset, several in parts:
            draws = params.evaluate.bootstrap, params.seed
            estimates = metrics.estimates(several, scorer.label, items, *draws)
            rows += [(method, benchmark, subset, *estimate) for estimate in estimates]
    return pd.DataFrame(rows, columns=COLUMNS)


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
