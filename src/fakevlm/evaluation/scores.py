"""From predictions to scores: every metric on every subset, each with its interval.

Rows that count
* **Detection** (acc, f1_real, f1_fake, f1_macro, auc, unparsed): one row an image. DD-VQA asks several questions about a
  frame; only the one about the whole image ("Does the image looks real/fake?") decides, because an answer about the nose may
  rightly find nothing wrong with a fake.
* **Detection, forced** (acc_forced, f1_real_forced, f1_fake_forced, f1_macro_forced): the same of language models' forced
  verdicts. An answer without a verdict counts as wrong above; here its forced choice counts.
* **Explanation** (rouge_l, css): all rows that have a reference and an answer. On FakeClue these are all images, real ones
  too, which is how the released weights give the numbers of FACTS; on LOKI the fakes that people described; on DD-VQA all
  questions, the best of several answers counting. Right and wrong verdicts both count.
* **Clues** (clue_precision, clue_recall, clue_f1): fakes with visible artifacts whose truth is known.

Subsets
* `all`, `label=real`, `label=fake`, `category=…`. With one class only, F1 is that class's and equals 2a/(1+a), as in Table 3.
* `generator=…`: accuracy and explanations on the generator's fakes; AUC and F1 on these fakes against *all* real images of
  the benchmark, as Table 5 has it for the manipulations of FF++.
* `kind=…`: clue recall over the fakes with this kind of artifact, clue precision over those said to have it.

A metric that a subset does not define (AUC with one class or without P(fake), ROUGE-L without references) has no row. `n` counts the rows that
entered.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import pandas as pd

from fakevlm.config.params import Params
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.evaluation import metrics
from fakevlm.evaluation.clues import KIND_NAMES, clues
from fakevlm.evaluation.metrics import FAKE, REAL
from fakevlm.evaluation.text import css, rouge_l

COLUMNS = ["method", "benchmark", "subset", "metric", "value", "ci_low", "ci_high", "n"]
FAMILIES = ("all", "label", "category", "generator", "kind")
_PART = re.compile(r"\b(skin|eyebrows?|eyes?|nose|mouth|lips?|teeth|hair|ears?|cheeks?)\b", re.IGNORECASE)

Encode = Callable[[list[str]], np.ndarray]
Metric = tuple[str, np.ndarray, Callable[[np.ndarray | None], np.ndarray]]  # name, rows, weights → value


def asks_about_part(question: str | None) -> bool:
    """Whether a question (DD-VQA) is about a part of the face and not about the image."""
    return bool(question and _PART.search(question))


def references(cell: str | None) -> list[str]:
    """The references in a cell of `predictions.reference`: one a line."""
    return [line for line in (cell or "").split("\n") if line.strip()]


def subsets(
    frame: pd.DataFrame, families: tuple[str, ...] = FAMILIES
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, rows, and rows against which AUC and F1 are taken (the same, but for generators), as boolean masks."""
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
    """One method's answers, prepared once, scored on any rows."""

    def __init__(self, frame: pd.DataFrame, ground_truth: Mapping[str, GroundTruth], encode: Encode) -> None:
        self.label = frame["label"].to_numpy()
        self.verdict = metrics.codes(frame["verdict"].to_numpy())
        self.forced = None
        if (
            "verdict_forced" in frame
            and frame["text"].notna().any()
            and frame["verdict_forced"].notna().all()
        ):
            self.forced = metrics.codes(frame["verdict_forced"].to_numpy())
        self.p_fake = frame["p_fake"].to_numpy(dtype=float)
        self.decides = ~frame["question"].fillna("").map(asks_about_part).to_numpy(dtype=bool)
        self.speaks = frame["text"].notna().to_numpy()
        texts = [text if isinstance(text, str) else "" for text in frame["text"]]
        given = [references(cell) for cell in frame["reference"]]
        self.referred = self.speaks & np.array([bool(group) for group in given], dtype=bool)
        self.rouge, self.css = np.zeros(len(frame)), np.zeros(len(frame))
        rows = np.flatnonzero(self.referred)
        if len(rows):
            self.rouge[rows] = [rouge_l(texts[n], given[n]) for n in rows]
            self.css[rows] = css([texts[n] for n in rows], [given[n] for n in rows], encode)
        paths = [record_id.split("#")[0] for record_id in frame["id"]]
        self.clues = clues(paths, texts, ground_truth)
        self.clued = np.zeros(len(frame), dtype=bool)
        self.clued[self.clues.rows] = True
        self.clued &= self.speaks & self.decides
        shape = (len(frame), len(KIND_NAMES))
        self.true, self.named, self.hits = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self.true[self.clues.rows] = self.clues.true
        self.named[self.clues.rows] = self.clues.named
        self.hits[self.clues.rows] = self.clues.hits

    def detection(self, rows: np.ndarray, against: np.ndarray) -> Iterator[Metric]:
        own, both = np.flatnonzero(rows & self.decides), np.flatnonzero(against & self.decides)
        if not len(own):
            return
        yield from self._verdicts(self.verdict, own, both, "")
        label, p_fake = self.label[both], self.p_fake[both]
        if len(set(label)) == 2 and not np.isnan(p_fake).any():
            yield "auc", both, partial(metrics.auc, label, p_fake)
        yield "unparsed", own, partial(metrics.mean, self.verdict[own] == metrics.VERDICTS["unparsed"])
        if self.forced is not None:
            yield from self._verdicts(self.forced, own, both, "_forced")

    def _verdicts(
        self, verdicts: np.ndarray, own: np.ndarray, both: np.ndarray, suffix: str
    ) -> Iterator[Metric]:
        yield f"acc{suffix}", own, partial(metrics.accuracy, self.label[own], verdicts[own])
        label, verdicts = self.label[both], verdicts[both]
        if (label == REAL).any():
            yield f"f1_real{suffix}", both, partial(metrics.f1, label, verdicts, REAL)
        if (label == FAKE).any():
            yield f"f1_fake{suffix}", both, partial(metrics.f1, label, verdicts, FAKE)
        if len(set(label)) == 2:
            yield f"f1_macro{suffix}", both, partial(metrics.f1_macro, label, verdicts)

    def explanation(self, rows: np.ndarray) -> Iterator[Metric]:
        own = np.flatnonzero(rows & self.referred)
        if len(own):
            yield "rouge_l", own, partial(metrics.mean, self.rouge[own])
            yield "css", own, partial(metrics.mean, self.css[own])
        own = np.flatnonzero(rows & self.clued)
        if len(own):
            hits, named, true = (table[own].sum(axis=1) for table in (self.hits, self.named, self.true))
            yield "clue_precision", own, partial(metrics.ratio, hits, named)
            yield "clue_recall", own, partial(metrics.ratio, hits, true)
            yield "clue_f1", own, partial(metrics.ratio, 2 * hits, named + true)

    def kinds(self) -> Iterator[tuple[str, Metric]]:
        for column, kind in enumerate(KIND_NAMES):
            has = np.flatnonzero(self.clued & (self.true[:, column] > 0))
            said = np.flatnonzero(self.clued & (self.named[:, column] > 0))
            if len(has):
                yield kind, ("clue_recall", has, partial(metrics.mean, self.hits[has, column]))
            if len(said):
                yield kind, ("clue_precision", said, partial(metrics.mean, self.hits[said, column]))


def score(
    predictions: pd.DataFrame,
    ground_truth: Mapping[str, GroundTruth],
    params: Params,
    benchmark: str,
    *,
    families: tuple[str, ...] = FAMILIES,
    encode: Encode | None = None,
) -> pd.DataFrame:
    """All metrics of all methods, with 95 % bootstrap intervals (`metrics.draws`; `params.evaluate.bootstrap` draws).

    Args:
        predictions: rows as in `predictions.parquet` (method, id, label, category, generator, question, text, p_fake, verdict,
            reference; `item`, where present, is what the bootstrap draws, else the image).
        ground_truth: known artifacts by path; empty outside the miniature.
        params: of these, `seed` and `evaluate`.
        benchmark: name for the column of that name.
        families: which families of subsets to score, of `FAMILIES`.
        encode: sentences → unit rows for CSS; default: the encoder that `params.evaluate.encoder` names.

    Returns:
        One row a method, subset and metric, in the order of `predictions`, `FAMILIES` and this module's heading.
    """
    if encode is None:
        from fakevlm.model import sentence_encoder as encoder

        encode = partial(encoder.encode, name=params.evaluate.encoder)
    rows: list[tuple] = []
    drawn: dict[bytes, np.ndarray] = {}
    for method, frame in predictions.groupby("method", sort=False):
        frame = frame.reset_index(drop=True)
        scorer = _Scorer(frame, ground_truth, encode)
        item = frame["item"] if "item" in frame else frame["id"].str.split("#").str[0]
        items = pd.factorize(item)[0]

        def add(subset: str, metric: Metric, method=method, scorer=scorer, items=items) -> None:
            name, own, function = metric
            label, item = scorer.label[own], items[own]
            key = label.tobytes() + item.tobytes()
            if key not in drawn:
                drawn[key] = metrics.draws(label, item, params.evaluate.bootstrap, params.seed)
            share = len(np.unique(item)) if name in metrics.SHARES else None
            value, low, high = metrics.interval(function, drawn[key], share)
            if not np.isnan(value):  # precision of clues where none was named
                rows.append((method, benchmark, subset, name, value, low, high, len(own)))

        for subset, own, against in subsets(frame, families):
            drawn.clear()  # a subset's draws serve its metrics; kept for all subsets they would fill the memory
            for metric in [*scorer.detection(own, against), *scorer.explanation(own)]:
                add(subset, metric)
        if "kind" in families:
            for kind, metric in scorer.kinds():
                drawn.clear()
                add(f"kind={kind}", metric)
    return pd.DataFrame(rows, columns=COLUMNS)


def overview(scores: pd.DataFrame, subset: str = "all") -> pd.DataFrame:
    """Scores of one subset to look at: methods × metrics, each "value [low, high]" (the value alone where there is no interval); "–" where a metric does not apply."""
    part = scores[scores["subset"] == subset]
    cells = [
        f"{r.value:.3f}" + ("" if np.isnan(r.ci_low) else f" [{r.ci_low:.3f}, {r.ci_high:.3f}]")
        for r in part.itertuples()
    ]
    table = part.assign(cell=cells).pivot(index="method", columns="metric", values="cell")
    order = {key: list(dict.fromkeys(part[key])) for key in ("method", "metric")}
    return table.reindex(index=order["method"], columns=order["metric"]).fillna("–")


def by_subset(scores: pd.DataFrame, metric: str, family: str) -> pd.DataFrame:
    """One metric over a family of subsets (`category`, `generator`, …): methods × subsets, values only."""
    part = scores[scores["subset"].str.startswith(f"{family}=") & (scores["metric"] == metric)]
    part = part.assign(column=part["subset"].str.removeprefix(f"{family}="))
    order = {key: list(dict.fromkeys(part[key])) for key in ("method", "column")}
    return part.pivot(index="method", columns="column", values="value").reindex(
        index=order["method"], columns=order["column"]
    )
