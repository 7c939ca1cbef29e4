"""The paper's conclusions beside this run: claims are data (report.yaml), verdicts are computed.

A verdict is clear where the 95 % intervals do not overlap; else, or without intervals, "not clearly".
Being above a model that hardly ever answers proves little: that has a verdict of its own.
"""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from fakevlm.reporting.inputs import Inputs
from fakevlm.reporting.published import Published
from fakevlm.reporting.texts import MANIPULATIONS, METHOD, fill, layout

AGREES, LEANS, SILENT = "agrees", "agrees, not clearly", "agrees, against silence"
TIES, DIFFERS, UNKNOWN = "differs, not clearly", "differs", "not measured"
VERDICTS = (AGREES, LEANS, SILENT, TIES, DIFFERS, UNKNOWN)
MUTE = 0.99  # share of answers without a verdict, from which on a method is silent


@dataclass(frozen=True)
class Score:
    """One value with its 95 % interval; `unparsed` is the share of answers without a verdict (wrong)."""

    name: str
    value: float
    low: float
    high: float
    unparsed: float = 0.0


@dataclass(frozen=True)
class Conclusion:
    """One conclusion of the paper: where it stands, one of `VERDICTS`, and the numbers behind it."""

    where: str
    claim: str
    verdict: str
    evidence: str


def draw_conclusions(inputs: Inputs, published: Published) -> list[Conclusion]:
    """Return every conclusion that this run can confirm or contradict, in the paper's order."""
    frames = {"scores": inputs.scores, "study": inputs.study, "average": inputs.average}
    rows = [_annotation(layout()["annotation"], inputs.clue_quality)]
    for spec in layout()["conclusions"]:
        frame = frames[spec.get("of", "scores")]
        if "spread" in spec:
            rows.append(_balance(spec, frame, published))
        elif spec.get("of") != "study" or spec["benchmark"] in set(frame.benchmark):
            rows.append(_comparison(spec, frame, published))
    return rows


def compare(better: Score | None, other: Score | None, *, on_a_par: bool = False) -> str:
    """Return whether `better` is above `other` (with `on_a_par`: not clearly below), as one of `VERDICTS`."""
    if better is None or other is None:
        return UNKNOWN
    if better.value > other.value:
        if other.unparsed >= MUTE or other.value == 0:  # any other score is above it
            return SILENT
        return AGREES if on_a_par or better.low > other.high else LEANS
    if better.high < other.low:
        return DIFFERS
    return LEANS if on_a_par else TIES


def _comparison(spec: dict[str, Any], frame: pd.DataFrame, published: Published) -> Conclusion:
    """Whether one method (or the best of several) is above another."""
    metric, subset = spec.get("metric", "acc"), spec.get("subset", {"paper": "all", "run": "all"})
    frame = frame[(frame.benchmark == spec["benchmark"]) & (frame.subset == subset["run"])]
    sides = [_best(frame, spec[side], metric) for side in ("better", "other")]
    facts: dict[str, Any] = {"scores": list(filter(None, sides)), "curves": [], "paper": None}
    if metric == "acc" and subset["paper"] == "all" and "row" not in spec:
        # Accuracy needs a verdict and a threshold, AUC neither.
        facts["curves"] = [curve for s in facts["scores"] if (curve := _best(frame, s.name, "auc"))]
    if spec["where"].startswith("Table"):
        facts["paper"] = _printed(published, spec, f"{spec['benchmark']}/{subset['paper']}/{metric}")
    note = fill(spec.get("note", ""), averages=_by_manipulation(published).mean(axis=1).round(6).to_dict())
    verdict = compare(*sides, on_a_par=spec.get("on_a_par", False))
    return Conclusion(spec["where"], spec["claim"], verdict, fill(layout()["evidence"], note=note, **facts))


def _best(frame: pd.DataFrame, methods: str | list[str], metric: str) -> Score | None:
    """Return the highest score of some methods on a benchmark, None where none was measured."""
    names = [methods] if isinstance(methods, str) else methods
    rows = frame[frame.method.isin(names)].dropna(subset=["value"]).set_index("method")
    measured = rows[rows.metric == metric]
    if measured.empty:
        return None
    best = measured.loc[[name for name in names if name in measured.index]].value.idxmax()
    mute = rows[rows.metric == "unparsed"].value.get(best, 0.0) if metric == "acc" else 0.0
    return Score(best, *measured.loc[best, ["value", "ci_low", "ci_high"]].astype(float), float(mute))


def _printed(published: Published, spec: dict[str, Any], column: str) -> dict[str, Any]:
    """Return the paper's value of its own method (`ours`) and its best other row (`method`, `value`)."""
    table = spec["where"].lower().replace(" ", "")
    values, ours = published.values(table)[column].dropna(), spec.get("row", METHOD)
    others = values.drop(ours)
    if "general" in spec:  # leave out people, detectors, and methods trained for the benchmark (Common-DF)
        experts = [row["method"] for row in published.tables[table]["rows"] if row.get("expert")]
        others = others[~others.index.isin(experts) & ~others.index.str.startswith(("Common-DF", "Human"))]
    return {"ours": values[ours], "method": others.idxmax(), "value": others.max()}


def _by_manipulation(published: Published) -> pd.DataFrame:
    """Return Table 5's AUCs, methods × the four manipulations."""
    return published.values("table5")[[f"ffpp/{name}/auc" for name in MANIPULATIONS]]


def _balance(spec: dict[str, Any], scores: pd.DataFrame, published: Published) -> Conclusion:
    """Table 5: whether FakeVLM's best and worst AUC lie closer together than every expert's."""
    subsets = [f"generator={name}" for name in MANIPULATIONS.values()]
    scores = scores[(scores.benchmark == "ffpp") & (scores.metric == "auc")]
    table = scores.pivot(index="method", columns="subset", values="value").reindex(columns=subsets)
    table = table.reindex([METHOD, *spec["spread"]]).dropna()
    paper = _by_manipulation(published)
    measured, paper = (frame.max(axis=1) - frame.min(axis=1) for frame in (table, paper))
    verdict = UNKNOWN
    if METHOD in measured and len(measured) > 1:
        verdict = LEANS if measured[METHOD] < measured.drop(METHOD).min() else TIES
    evidence = fill(spec["note"], measured=measured.to_dict(), printed=paper.to_dict())
    return Conclusion(spec["where"], spec["claim"], verdict, evidence)


def _annotation(spec: dict[str, Any], quality: pd.DataFrame) -> Conclusion:
    """Section 3.2: whether the aggregate's clues are better than every annotator's."""
    quality = quality.dropna(subset=["f1"]).set_index("annotator")
    others = quality.drop("aggregate", errors="ignore")
    verdict, facts = UNKNOWN, {}
    if "aggregate" in quality.index and len(others):
        verdict = AGREES if quality.f1["aggregate"] > others.f1.max() else DIFFERS
        facts = {"aggregate": quality.loc["aggregate"], "best": others.f1.idxmax(), "others": others}
    return Conclusion(spec["where"], spec["claim"], verdict, fill(spec["evidence"], facts=facts))


def order(study: pd.DataFrame, benchmark: str) -> dict[str, float]:
    """Return the paradigms' accuracies, from best to worst."""
    part = study[(study.benchmark == benchmark) & (study.metric == "acc") & (study.subset == "all")]
    part = part.sort_values(["value", "method"], ascending=[False, True], kind="stable")
    return part.set_index("method").value.to_dict()
