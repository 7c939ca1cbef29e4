"""From predictions to scores: every metric on every subset, each with its interval.

Rows that count
* **Detection** (acc, f1_real, f1_fake, f1_macro, auc, unparsed): one row an image. DD-VQA asks several
  questions about a frame; only the one about the whole image counts, because an answer about the nose may
  rightly find nothing wrong with a fake. An answer without a verdict is wrong.
* **Forced choice** (acc_forced, f1_real_forced, f1_fake_forced, f1_macro_forced): the same for language
  models, but where an answer gives no verdict the likelier of the two words decides (`verdict_forced`).
* **Explanation** (rouge_l, css): all rows with a reference and an answer, whether the verdict is right or
  wrong. On FakeClue these are all images, on LOKI the fakes that people described, on DD-VQA all questions.
* **Clues** (clue_precision, clue_recall, clue_f1): fakes whose visible artifacts are known.

Subsets
* `all`, `label=real`, `label=fake`, `category=…`. With one class, F1 is that class's and equals 2a/(1+a),
  as in Table 3.
* `generator=…`: accuracy and explanations on the generator's fakes; AUC and F1 of these against *all* real
  images, as in Table 5.
* `kind=…`: clue recall over the fakes with this kind of artifact, clue precision over the answers that name
  it.

A metric that a subset does not define (AUC with one class or without P(fake), ROUGE-L without references)
has no row. `n` counts the rows that entered.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import pandas as pd

from fakevlm.config.params import Params
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.evaluation import metrics
from fakevlm.evaluation.clues import KIND_NAMES, clue_tables
from fakevlm.evaluation.metrics import FAKE, REAL
from fakevlm.evaluation.text import css, rouge_l

COLUMNS = ["method", "benchmark", "subset", "metric", "value", "ci_low", "ci_high", "n"]
FAMILIES = ("all", "label", "category", "generator", "kind")
_PART = re.compile(r"\b(skin|eyebrows?|eyes?|nose|mouth|lips?|teeth|hair|ears?|cheeks?)\b", re.IGNORECASE)

Encode = Callable[[list[str]], np.ndarray]
Metric = tuple[str, np.ndarray, Callable[[np.ndarray | None], np.ndarray]]  # name, rows, weights → value


def asks_about_part(question: str | None) -> bool:
    """Whether a question (DD-VQA) is about a part of the face and not the image."""
    return bool(question and _PART.search(question))


def references(cell: str | None) -> list[str]:
    """The references in a cell of the column `reference`, one a line."""
    return [line for line in (cell or "").split("\n") if line.strip()]


def subsets(
    frame: pd.DataFrame, families: tuple[str, ...] = FAMILIES
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, rows, and rows of AUC and F1 (for generators all real images too), as boolean masks."""
    label = frame["label"].to_numpy()
    everything = np.ones(len(frame), dtype=bool)
    if "all" in families:
        yield "all", everything, everything
    if "label" in families:
        for name, value in ("real", REAL), ("fake", FAKE):
            yield f"label={name}", label == value, label == value
    if "category" in families:
        for name in sorted(frame["category"].dropna().unique()):
            rows = (frame["category"] == name).to_numpy()
            yield f"category={name}", rows, rows
    if "generator" in families:
        for name in sorted(frame["generator"].dropna().unique()):
            rows = (frame["generator"] == name).to_numpy() & (label == FAKE)
            yield f"generator={name}", rows, rows | (label == REAL)


class _Scorer:
    """One method's answers, prepared once and scored on any rows."""

    def __init__(self, frame: pd.DataFrame, ground_truth: Mapping[str, GroundTruth], encode: Encode) -> None:
        has_text = frame["text"].notna().to_numpy()
        texts = frame["text"].where(has_text, "").tolist()
        self.label = frame["label"].to_numpy()
        self.verdict, self.forced = metrics.codes(frame["verdict"].to_numpy()), None
        if "verdict_forced" in frame and has_text.any() and frame["verdict_forced"].notna().all():
            self.forced = metrics.codes(frame["verdict_forced"].to_numpy())
        self.p_fake = frame["p_fake"].to_numpy(dtype=float)
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

    def detection(self, rows: np.ndarray, against: np.ndarray) -> Iterator[Metric]:
        inside, both = np.flatnonzero(rows & self.decides), np.flatnonzero(against & self.decides)
        if not len(inside):
            return
        yield from self._verdicts(self.verdict, inside, both, "")
        label, p_fake = self.label[both], self.p_fake[both]
        if len(set(label)) == 2 and not np.isnan(p_fake).any():
            yield "auc", both, partial(metrics.auc, label, p_fake)
        yield "unparsed", inside, partial(metrics.mean, self.verdict[inside] == metrics.VERDICTS["unparsed"])
        if self.forced is not None:
            yield from self._verdicts(self.forced, inside, both, "_forced")

    def _verdicts(
        self, verdicts: np.ndarray, inside: np.ndarray, both: np.ndarray, suffix: str
    ) -> Iterator[Metric]:
        yield f"acc{suffix}", inside, partial(metrics.accuracy, self.label[inside], verdicts[inside])
        label, verdicts = self.label[both], verdicts[both]
        if (label == REAL).any():
            yield f"f1_real{suffix}", both, partial(metrics.f1, label, verdicts, REAL)
        if (label == FAKE).any():
            yield f"f1_fake{suffix}", both, partial(metrics.f1, label, verdicts, FAKE)
        if len(set(label)) == 2:
            yield f"f1_macro{suffix}", both, partial(metrics.f1_macro, label, verdicts)

    def explanation(self, rows: np.ndarray) -> Iterator[Metric]:
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

    def metrics(
        self, frame: pd.DataFrame, families: tuple[str, ...]
    ) -> Iterator[tuple[str, Iterable[Metric]]]:
        """Each subset and its metrics."""
        for subset, inside, against in subsets(frame, families):
            yield subset, [*self.detection(inside, against), *self.explanation(inside)]
        if "kind" not in families:
            return
        for column, kind in enumerate(KIND_NAMES):
            for name, table in ("clue_recall", self.true), ("clue_precision", self.named):
                inside = np.flatnonzero(self.has_clues & table[:, column])
                if len(inside):
                    yield f"kind={kind}", [(name, inside, partial(metrics.mean, self.hits[inside, column]))]


def score(
    predictions: pd.DataFrame,
    ground_truth: Mapping[str, GroundTruth],
    params: Params,
    benchmark: str,
    *,
    families: tuple[str, ...] = FAMILIES,
    encode: Encode | None = None,
) -> pd.DataFrame:
    """All metrics of all methods, with 95 % intervals from `params.evaluate.bootstrap` draws.

    Args:
        predictions: rows of `predictions.parquet`; without the column `item` the bootstrap draws images.
        ground_truth: known artifacts by path; empty outside the miniature.
        params: of these, `seed` and `evaluate`.
        benchmark: for the column of that name.
        families: families of subsets to score, of `FAMILIES`.
        encode: sentences → unit rows for CSS; by default the encoder of `params.evaluate.encoder`.

    Returns:
        One row a method, subset and metric, in the order of `predictions`, `FAMILIES` and this module's
        heading.
    """
    if encode is None:
        from fakevlm.model import sentence_encoder

        encode = partial(sentence_encoder.encode, name=params.evaluate.encoder)
    rows: list[tuple] = []
    for method, frame in predictions.groupby("method", sort=False):
        frame = frame.reset_index(drop=True)
        scorer = _Scorer(frame, ground_truth, encode)
        items = pd.factorize(frame["item"] if "item" in frame else frame["id"].str.split("#").str[0])[0]
        for subset, several in scorer.metrics(frame, families):
            draws: dict[bytes, np.ndarray] = {}  # of this subset alone: those of all would fill the memory
            for name, inside, function in several:
                label, item = scorer.label[inside], items[inside]
                key = label.tobytes() + item.tobytes()
                if key not in draws:
                    draws[key] = metrics.draws(label, item, params.evaluate.bootstrap, params.seed)
                count = len(np.unique(item)) if name in metrics.SHARES else None
                value, low, high = metrics.interval(function, draws[key], count)
                if not np.isnan(value):  # precision of clues where none was named
                    rows.append((method, benchmark, subset, name, value, low, high, len(inside)))
    return pd.DataFrame(rows, columns=COLUMNS)


def overview(scores: pd.DataFrame, subset: str = "all") -> pd.DataFrame:
    """Scores of one subset to read: methods × metrics, "value [low, high]" or "–"."""
    part = scores[scores["subset"] == subset]
    cells = [
        f"{r.value:.3f}" + ("" if np.isnan(r.ci_low) else f" [{r.ci_low:.3f}, {r.ci_high:.3f}]")
        for r in part.itertuples()
    ]
    table = part.assign(cell=cells).pivot(index="method", columns="metric", values="cell")
    order = {key: list(dict.fromkeys(part[key])) for key in ("method", "metric")}
    return table.reindex(index=order["method"], columns=order["metric"]).fillna("–")


def by_subset(scores: pd.DataFrame, metric: str, family: str) -> pd.DataFrame:
    """One metric over a family of subsets (`category`, `generator`, …): methods × subsets."""
    part = scores[scores["subset"].str.startswith(f"{family}=") & (scores["metric"] == metric)]
    part = part.assign(column=part["subset"].str.removeprefix(f"{family}="))
    order = {key: list(dict.fromkeys(part[key])) for key in ("method", "column")}
    return part.pivot(index="method", columns="column", values="value").reindex(
        index=order["method"], columns=order["column"]
    )
