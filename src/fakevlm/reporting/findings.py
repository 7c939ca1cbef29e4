"""What the paper concludes, and whether this run's numbers say the same. Every verdict is computed, none is written down.

Two scores are told apart when their 95 % intervals do not overlap; otherwise, or where one has no interval, the direction is
reported with that reserve. To be better than who is silent proves little: that is a verdict of its own.
"""

from dataclasses import dataclass

import pandas as pd

from fakevlm.reporting.published import Published
from fakevlm.reporting.tables import MANIPULATIONS, fmt
from fakevlm.reporting.words import BENCHMARKS, percent

OWN, BASE, HEAD = "FakeVLM", "LLaVA (untuned)", "LLaVA + Linear Head"
# Detectors alone, whether trained here or with their authors' weights or scores.
EXPERTS = (
    *("CNNSpot", "UnivFD", "Frequency", "Gram-Net", "Fusing", "LNP"),
    *("FWA", "Face X-ray", "SRM", "CDFA"),
)
PROBES = ("Linear probe (vision tower)", "Linear probe (LMM last layer)")
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
    name: str
    value: float
    low: float
    high: float
    unparsed: float = 0.0  # share of answers without a verdict, which count as wrong

    @property
    def silent(self) -> bool:
        """It hardly ever gives a verdict, or names nothing right: what it is compared with is above it by construction."""
        return self.unparsed >= MUTE or self.value == 0

    def __str__(self) -> str:
        text = f"{self.name} {fmt(self.value, self.low, self.high)}"
        return (
            f"{text} ({percent(self.unparsed)} of its answers without a verdict)"
            if self.unparsed >= 0.01
            else text
        )


@dataclass(frozen=True)
class Finding:
    """One conclusion of the paper beside this run.

    Attributes:
        where: table, figure or section.
        claim: what the paper concludes.
        verdict: one of `VERDICTS`.
        evidence: the numbers of this run, then the paper's where it prints any.
    """

    where: str
    claim: str
    verdict: str
    evidence: str


def score(frame: pd.DataFrame, method: str, benchmark: str, metric: str, subset: str = "all") -> Score | None:
    """One score of tidy `frame`, None where it was not measured."""
    part = frame[
        (frame.method == method)
        & (frame.benchmark == benchmark)
        & (frame.metric == metric)
        & (frame.subset == subset)
    ]
    part = part[part.value.notna()]
    if part.empty:
        return None
    row = part.iloc[0]
    unparsed = 0.0
    if metric == "acc":
        blank = score(frame, method, benchmark, "unparsed", subset)
        unparsed = blank.value if blank else 0.0
    return Score(method, float(row.value), float(row.ci_low), float(row.ci_high), unparsed)


def compare(better: Score | None, other: Score | None, *, or_par: bool = False) -> str:
    """Whether `better` is above `other`, as one of `VERDICTS`.

    Args:
        or_par: the claim is "on a par or better", which only a clearly lower score contradicts.
    """
    if better is None or other is None:
        return UNKNOWN
    if better.value > other.value:
        if other.silent:
            return SILENT
        return AGREES if or_par or better.low > other.high else LEANS
    if better.high < other.low:
        return DIFFERS
    return LEANS if or_par else TIES


def _finding(
    where: str,
    claim: str,
    better: Score | None,
    other: Score | None,
    paper: str = "",
    *,
    or_par: bool = False,
    curves: tuple[Score | None, Score | None] = (None, None),
) -> Finding:
    """A comparison of two scores; `curves` are the same methods' AUCs, since accuracy needs a verdict and a threshold, AUC neither."""
    evidence = " against ".join(str(s) for s in (better, other) if s is not None)
    if areas := " against ".join(fmt(s.value, s.low, s.high) for s in curves if s):
        evidence += f"; AUC {areas}"
    if paper:
        evidence += f"{'; ' if evidence else ''}paper: {paper}"
    return Finding(where, claim, compare(better, other, or_par=or_par), evidence)


def _best(
    frame: pd.DataFrame, methods: tuple[str, ...], benchmark: str, metric: str, subset: str = "all"
) -> Score | None:
    found = [s for m in methods if (s := score(frame, m, benchmark, metric, subset))]
    return max(found, key=lambda s: s.value, default=None)


def _curves(frame: pd.DataFrame, benchmark: str, *methods: str) -> tuple[Score | None, Score | None]:
    better, other = (score(frame, method, benchmark, "auc") for method in methods)
    return better, other


def printed(published: Published, table: str, column: str, ours: str = OWN, general: bool = False) -> str:
    """The paper's own method against the best other row of a column, as text.

    Args:
        general: leave out the methods that were trained for the benchmark (Common-DF) and people.
    """
    source = published.table(table)
    scale = 100 if source.scale == "percent" else 1
    rows = {row.method: source.printed(row.method, column) for row in source.rows}
    others = {
        m: v
        for m, v in rows.items()
        if v is not None and m != ours and not (general and m.startswith(("Common-DF", "Human")))
    }
    best = max(others, key=lambda m: others[m])
    return f"{rows[ours] / scale:.3f} against {others[best] / scale:.3f} ({best})"


def _tables(scores: pd.DataFrame, average: pd.DataFrame, published: Published) -> list[Finding]:
    found = []
    words = {"acc": "detects better than", "rouge_l": "explains closer to the reference (ROUGE-L) than"}
    for benchmark, table in (("fakeclue", "table2"), ("loki", "table2"), ("ddvqa", "table4")):
        for metric, word in words.items():
            found.append(
                _finding(
                    published.table(table).number,
                    f"On {BENCHMARKS[benchmark]}, FakeVLM {word} general models that were not tuned for it.",
                    score(scores, OWN, benchmark, metric),
                    score(scores, BASE, benchmark, metric),
                    printed(published, table, f"{benchmark}/all/{metric}", general=True),
                    curves=_curves(scores, benchmark, OWN, BASE) if metric == "acc" else (None, None),
                )
            )
    for benchmark in ("fakeclue", "loki"):
        found.append(
            _finding(
                "Section 5.3",
                f"On {BENCHMARKS[benchmark]}, FakeVLM names the artifacts that are there better than its untuned base (clue F1).",
                score(scores, OWN, benchmark, "clue_f1"),
                score(scores, BASE, benchmark, "clue_f1"),
                "claimed from cases, not measured",
            )
        )
    found.append(
        _finding(
            "Table 3",
            "On DMimage, FakeVLM is on a par with expert detectors or better (accuracy; against the best expert).",
            score(scores, OWN, "dmimage", "acc"),
            _best(scores, EXPERTS, "dmimage", "acc"),
            printed(published, "table3", "dmimage/Overall/acc"),
            or_par=True,
        )
    )
    pooled = average.assign(benchmark="ffpp", subset="Average", metric="auc")
    found.append(
        _finding(
            "Table 5",
            "On FF++, FakeVLM leads the experts in average AUC over the four manipulations.",
            score(pooled, OWN, "ffpp", "auc", "Average"),
            _best(pooled, EXPERTS, "ffpp", "auc", "Average"),
            printed(published, "table5", "ffpp/Average/auc")
            + ", as printed; averaged over the four columns "
            + ", ".join(f"{m} {v:.3f}" for m, v in _averages(published).items()),
        )
    )
    found.append(_balance(scores, published))
    found.append(
        _finding(
            "Table 6",
            "Trained to explain, the model generalises to LOKI better than with a linear head.",
            score(scores, OWN, "loki", "acc"),
            score(scores, HEAD, "loki", "acc"),
            printed(published, "table6", "loki/all/acc", "LLaVA + Explanatory Text"),
        )
    )
    return found


def _columns(published: Published) -> dict[str, list[float]]:
    """Table 5's four columns by method, as fractions."""
    table = published.table("table5")
    names = [f"ffpp/{m}/auc" for m in MANIPULATIONS]
    return {row.method: [(table.printed(row.method, c) or 0.0) / 100 for c in names] for row in table.rows}


def _averages(published: Published) -> dict[str, float]:
    return {method: sum(values) / len(values) for method, values in _columns(published).items()}


def _balance(scores: pd.DataFrame, published: Published) -> Finding:
    """Table 5: is FakeVLM's spread over the manipulations smaller than every expert's?"""

    def spread(values: list[float]) -> float:
        return max(values) - min(values)

    in_print = {method: spread(values) for method, values in _columns(published).items()}
    measured = {}
    for method in (OWN, *EXPERTS):
        found = [score(scores, method, "ffpp", "auc", f"generator={m}") for m in MANIPULATIONS.values()]
        if all(found):
            measured[method] = spread([s.value for s in found if s])
    others = [v for m, v in measured.items() if m != OWN]
    clearer = bool(others) and OWN in measured
    verdict = (LEANS if measured[OWN] < min(others) else TIES) if clearer else UNKNOWN
    here = ", ".join(f"{m} {v:.3f}" for m, v in measured.items())
    there = ", ".join(f"{m} {v:.3f}" for m, v in in_print.items())
    claim = "On FF++, FakeVLM is balanced over the manipulations: the gap between its best and worst AUC is the smallest."
    return Finding(
        "Table 5", claim, verdict, f"gaps: {here or 'none'}; paper: {there}. Gaps have no intervals here."
    )


def _study(study: pd.DataFrame) -> list[Finding]:
    found = []
    for benchmark in [b for b in BENCHMARKS if b in set(study.benchmark)]:
        name = BENCHMARKS[benchmark]

        def at(method: str, benchmark: str = benchmark) -> Score | None:
            return score(study, method, benchmark, "acc")

        probe = _best(study, PROBES, benchmark, "acc")
        explain, direct, frozen = at("Explanatory VQA"), at("Direct real/fake QA"), at("Frozen QA")
        for claim, better, other in (
            ("a linear probe on frozen features beats asking the frozen model", probe, frozen),
            ("tuning on explanations beats tuning on fixed real/fake answers", explain, direct),
            ("tuning on explanations beats the linear probe", explain, probe),
        ):
            names = [s.name if s else "" for s in (better, other)]
            curves = _curves(study, benchmark, *names)
            found.append(_finding("Figure 3", f"{name}: {claim}.", better, other, curves=curves))
    return found


def _annotation(quality: pd.DataFrame) -> Finding:
    claim = (
        "Aggregating several annotators gives better clues than any one of them (F1 against the true clues)."
    )
    f1 = quality.set_index("annotator").f1.dropna()
    if "aggregate" not in f1 or len(f1) < 2:
        return Finding("Section 3.2", claim, UNKNOWN, "no truth to measure against")
    others = f1.drop("aggregate")
    verdict = AGREES if f1["aggregate"] > others.max() else DIFFERS
    evidence = f"aggregate {f1['aggregate']:.3f}, best annotator {others.idxmax()} {others.max():.3f}; the paper does not measure it"
    if "spurious_per_real" in quality:
        spurious = quality.set_index("annotator").spurious_per_real
        evidence += f". Artifacts claimed of a real image: aggregate {spurious['aggregate']:.3f}, annotators {spurious.drop('aggregate').mean():.3f} on average"
    return Finding("Section 3.2", claim, verdict, evidence)


def findings(
    scores: pd.DataFrame,
    average: pd.DataFrame,
    study: pd.DataFrame,
    quality: pd.DataFrame,
    published: Published,
) -> list[Finding]:
    """Every conclusion that this run can confirm or contradict, in the paper's order.

    Args:
        scores: of all benchmarks, tidy.
        average: mean AUC over the manipulations (`averages.average_auc`).
        study: the four paradigms' scores.
        quality: annotator, f1 and the rest of `annotate/clue_quality.csv`.
    """
    return [_annotation(quality), *_study(study), *_tables(scores, average, published)]


def order(study: pd.DataFrame, benchmark: str) -> list[str]:
    """The paradigms from best to worst by accuracy, each with its number."""
    part = study[(study.benchmark == benchmark) & (study.metric == "acc") & (study.subset == "all")]
    part = part.sort_values(["value", "method"], ascending=[False, True], kind="stable")
    return [f"{row.method} {row.value:.3f}" for row in part.itertuples()]
