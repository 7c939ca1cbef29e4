"""The paper's conclusions beside this run: claims are data (report.yaml), verdicts are computed.

A verdict is clear where the 95 % intervals do not overlap; else, or without intervals, "not clearly".
Being above a model that hardly ever answers proves little: that has a verdict of its own.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fakevlm.reporting.averages import MANIPULATIONS
from fakevlm.reporting.inputs import Inputs
from fakevlm.reporting.published import Published
from fakevlm.reporting.texts import METHOD, fill, fmt, layout

AGREES, LEANS, SILENT, TIES, DIFFERS, UNKNOWN = VERDICTS = (
    "agrees",
    "agrees, not clearly",
    "agrees, against silence",
    "differs, not clearly",
    "differs",
    "not measured",
)
MUTE = 0.99  # share of answers without a verdict, from which on a method is silent


@dataclass(frozen=True)
class Score:
    """One value with its 95 % interval; `unparsed` is the share of answers without a verdict (wrong)."""

    name: str
    value: float
    low: float
    high: float
    unparsed: float = 0.0

    @property
    def silent(self) -> bool:
        """Whether it hardly ever gives a verdict, or names nothing right: any other score is above it."""
        return self.unparsed >= MUTE or self.value == 0

    @property
    def cell(self) -> str:
        return fmt(self.value, self.low, self.high)

    def __str__(self) -> str:
        return fill(layout()["score"], name=self.name, cell=self.cell, unparsed=self.unparsed)


@dataclass(frozen=True)
class Conclusion:
    """One conclusion of the paper: where it stands, one of `VERDICTS`, and the numbers behind it."""

    where: str
    claim: str
    verdict: str
    evidence: str


def score(frame: pd.DataFrame, method: str, benchmark: str, metric: str, subset: str = "all") -> Score | None:
    """Return one score of a tidy frame, None where it was not measured."""
    key = (frame.method == method) & (frame.benchmark == benchmark) & (frame.subset == subset)
    rows = frame[key].dropna(subset=["value"]).set_index("metric")
    if metric not in rows.index:
        return None
    row = rows.loc[metric]
    unparsed = float(rows.value.get("unparsed", 0.0)) if metric == "acc" else 0.0
    return Score(method, float(row.value), float(row.ci_low), float(row.ci_high), unparsed)


def compare(better: Score | None, other: Score | None, *, on_a_par: bool = False) -> str:
    """Return whether `better` is above `other`, as one of `VERDICTS`.

    Args:
        on_a_par: the claim is "on a par or better", which only a clearly lower score contradicts.
    """
    if better is None or other is None:
        return UNKNOWN
    if better.value > other.value:
        if other.silent:
            return SILENT
        return AGREES if on_a_par or better.low > other.high else LEANS
    if better.high < other.low:
        return DIFFERS
    return LEANS if on_a_par else TIES


def printed(published: Published, table: str, column: str, row: str = METHOD, general: bool = False) -> str:
    """Return the paper's own value of a column against the best other row, as text.

    Args:
        row: the paper's own method in this table.
        general: leave out people, detectors, and the methods that were trained for the benchmark (Common-DF).
    """
    values = published.column(table, column)
    experts = {entry.method for entry in published.table(table).rows if entry.expert}
    others = {
        method: value
        for method, value in values.items()
        if method != row
        and not (general and (method in experts or method.startswith(("Common-DF", "Human"))))
    }
    best = max(others, key=lambda method: others[method])
    return f"{values[row]:.3f} against {others[best]:.3f} ({best})"


def _best(frame: pd.DataFrame, methods: str | list[str], *where: str) -> Score | None:
    names = [methods] if isinstance(methods, str) else methods
    return max(filter(None, (score(frame, m, *where) for m in names)), key=lambda s: s.value, default=None)


def _by_manipulation(published: Published) -> dict[str, list[float]]:
    columns = [published.column("table5", f"ffpp/{name}/auc") for name in MANIPULATIONS]
    return {method: [column[method] for column in columns] for method in columns[0]}


def _numbers(values: dict[str, float]) -> str:
    return ", ".join(f"{method} {value:.3f}" for method, value in values.items())


def _comparison(
    spec: dict[str, Any], frames: dict[str, pd.DataFrame], published: Published
) -> Conclusion | None:
    frame, benchmark = frames[spec.get("of", "scores")], spec["benchmark"]
    if spec.get("of") == "study" and benchmark not in set(frame.benchmark):
        return None
    metric, subset = spec.get("metric", "acc"), spec.get("subset", {"paper": "all", "run": "all"})
    scores = [_best(frame, spec[side], benchmark, metric, subset["run"]) for side in ("better", "other")]
    verdict = compare(*scores, on_a_par=spec.get("on_a_par", False))
    measured = [s for s in scores if s]
    curves = []
    if metric == "acc" and subset["paper"] == "all" and "row" not in spec:
        # Accuracy needs a verdict and a threshold, AUC neither.
        curves = [c.cell for s in measured if (c := score(frame, s.name, benchmark, "auc"))]
    paper = ""
    if spec["where"].startswith("Table"):
        table, column = spec["where"].lower().replace(" ", ""), f"{benchmark}/{subset['paper']}/{metric}"
        paper = printed(published, table, column, spec.get("row", METHOD), spec.get("general", False))
    means = {
        method: round(sum(values) / len(values), 6) for method, values in _by_manipulation(published).items()
    }
    note = fill(spec.get("note", ""), averages=_numbers(means))
    evidence = fill(layout()["evidence"], scores=measured, curves=curves, paper=paper, note=note)
    return Conclusion(spec["where"], spec["claim"], verdict, evidence)


def _balance(spec: dict[str, Any], scores: pd.DataFrame, published: Published) -> Conclusion:
    """Table 5: whether FakeVLM's best and worst AUC lie closer together than every expert's."""
    there = {method: max(values) - min(values) for method, values in _by_manipulation(published).items()}
    here = {}
    for method in (METHOD, *spec["spread"]):
        each = [score(scores, method, "ffpp", "auc", f"generator={g}") for g in MANIPULATIONS.values()]
        values = [s.value for s in each if s]
        if len(values) == len(MANIPULATIONS):
            here[method] = max(values) - min(values)
    verdict = UNKNOWN
    if METHOD in here and len(here) > 1:
        verdict = LEANS if here[METHOD] < min(v for m, v in here.items() if m != METHOD) else TIES
    evidence = fill(spec["note"], measured=_numbers(here), printed=_numbers(there))
    return Conclusion(spec["where"], spec["claim"], verdict, evidence)


def _annotation(quality: pd.DataFrame) -> Conclusion:
    """Section 3.2: whether the aggregate's clues are better than every annotator's."""
    spec, frame = layout()["annotation"], quality.dropna(subset=["f1"]).set_index("annotator")
    facts: dict[str, Any] = {"f1": None, "spurious": None}
    verdict = UNKNOWN
    if "aggregate" in frame.index and len(frame) > 1:
        others, own = frame.drop("aggregate"), frame.loc["aggregate"]
        verdict = AGREES if own.f1 > others.f1.max() else DIFFERS
        facts |= {"f1": own.f1, "best": others.f1.idxmax(), "best_f1": others.f1.max()}
        if "spurious_per_real" in frame:
            spurious = quality.set_index("annotator").spurious_per_real
            facts |= {
                "spurious": spurious["aggregate"],
                "spurious_mean": spurious.drop("aggregate").mean(),
            }
    return Conclusion(spec["where"], spec["claim"], verdict, fill(spec["evidence"], **facts))


def conclusions(inputs: Inputs, average: pd.DataFrame, published: Published) -> list[Conclusion]:
    """Return every conclusion that this run can confirm or contradict, in the paper's order.

    Args:
        average: mean AUC over the manipulations (`averages.average_auc`).
    """
    pooled = average.assign(benchmark="ffpp", subset="Average", metric="auc")
    frames = {"scores": inputs.scores, "study": inputs.study, "average": pooled}
    rows = [_annotation(inputs.clue_quality)]
    for spec in layout()["conclusions"]:
        if "spread" in spec:
            rows.append(_balance(spec, inputs.scores, published))
        elif conclusion := _comparison(spec, frames, published):
            rows.append(conclusion)
    return rows


def tally(rows: list[Conclusion]) -> str:
    """Return how many conclusions have which verdict, as a sentence."""
    numbers = Counter(row.verdict for row in rows)
    return fill(layout()["tally"], total=len(rows), numbers=[(v, numbers[v]) for v in VERDICTS if numbers[v]])


def order(study: pd.DataFrame, benchmark: str) -> list[str]:
    """Return the paradigms from best to worst by accuracy, each with its number."""
    part = study[(study.benchmark == benchmark) & (study.metric == "acc") & (study.subset == "all")]
    part = part.sort_values(["value", "method"], ascending=[False, True], kind="stable")
    return [f"{row.method} {row.value:.3f}" for row in part.itertuples()]
