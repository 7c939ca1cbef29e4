"""Tables 1–6: the paper's numbers and this run's, tidy for machines and side by side for people, never mixed.

Each table is built once as a `ReportTable`: a tidy frame (`figures/<name>.csv`) and sheets of text (`.md` and the report's
page). In a sheet every column belongs to the paper or to this run and says so in its head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from fakevlm.reporting.published import TIDY, Published
from fakevlm.reporting.words import BENCHMARKS, CATEGORY_NAMES, METRICS, count

OWN = "FakeVLM"
RUN_ONLY = ("f1_real", "f1_fake", "f1_macro", "auc", "clue_precision", "clue_recall", "unparsed")
MANIPULATIONS = {"FF-DF": "Deepfakes", "FF-F2F": "Face2Face", "FF-FS": "FaceSwap", "FF-NT": "NeuralTextures"}
F1_NOTE = "`f1` of this run is F1 with *real* as the positive class, as in the paper's FakeClue row; both classes' F1 and their mean stand beside it."


@dataclass(frozen=True)
class Sheet:
    """A table of text. `owners` says of each column whose it is: `key`, `paper`, `run` or `release`."""

    title: str
    head: list[str]
    owners: list[str]
    rows: list[list[str]]
    strong: frozenset[int] = frozenset()  # rows of the paper's own method


@dataclass(frozen=True)
class ReportTable:
    """One of the paper's tables: `name` is the file's stem in figures/."""

    name: str
    number: str
    caption: str
    tidy: pd.DataFrame
    sheets: list[Sheet]
    notes: list[str] = field(default_factory=list)


def fmt(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """0.9051 → `0.905`, with its interval `0.905 [0.881, 0.927]`; a dash for nothing."""
    if value is None or pd.isna(value):
        return "–"
    text = f"{value:.3f}"
    if low is not None and high is not None and pd.notna(low) and pd.notna(high):
        text += f" [{low:.3f}, {high:.3f}]"
    return text


def _tidy(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One tidy frame: values rounded to what is meaningful, n a whole number."""
    rows = [row for frame in frames for row in frame[TIDY].itertuples(index=False)]
    frame = pd.DataFrame(rows, columns=TIDY)
    for column in ("value", "ci_low", "ci_high"):
        frame[column] = pd.to_numeric(frame[column]).round(6)
    frame["n"] = pd.to_numeric(frame["n"]).astype("Int64")
    return frame.reset_index(drop=True)


def run_rows(scores: pd.DataFrame, benchmark: str, subsets: dict[str, str] | None = None) -> pd.DataFrame:
    """This run's rows of one benchmark, tidy, plus `f1` (= f1_real) as the paper prints it.

    Args:
        scores: of all benchmarks, as the stages write them.
        subsets: scores' subset → the table's; None keeps `all` only.
    """
    subsets = subsets or {"all": "all"}
    part = scores[(scores.benchmark == benchmark) & scores.subset.isin(subsets) & scores.metric.isin(METRICS)]
    part = part.assign(subset=part.subset.map(subsets), source="run")
    printed = part[part.metric == "f1_real"].assign(metric="f1")
    part = pd.concat([part, printed]).dropna(subset=["value"])
    methods = [OWN, *sorted(set(part.method) - {OWN})]
    order = {metric: i for i, metric in enumerate(METRICS)}
    keys = list(subsets.values())
    return part.sort_values(
        ["method", "subset", "metric"],
        key=lambda c: c.map({"method": methods.index, "subset": keys.index, "metric": order.get}[c.name]),
        kind="stable",
    )[TIDY]


def _cell(frame: pd.DataFrame, **where: str) -> str:
    for column, value in where.items():
        frame = frame[frame[column] == value]
    if frame.empty:
        return "–"
    row = frame.iloc[0]
    return fmt(row.value, row.ci_low, row.ci_high)


def _methods(tidy: pd.DataFrame) -> list[str]:
    """The paper's methods in its order, then this run's own; the paper's own method last of the paper's."""
    return list(dict.fromkeys([*tidy[tidy.source == "paper"].method, *tidy[tidy.source == "run"].method]))


def beside(
    title: str,
    tidy: pd.DataFrame,
    columns: Sequence[tuple[str, str]],
    profile: str,
    names: dict[str, str] | None = None,
) -> Sheet:
    """Paper and run side by side: for each (subset, metric) one column of the paper's and one of this run's."""
    names = names or {}
    mixed = (
        not names or len({metric for _, metric in columns}) > 1
    )  # one metric under many names: the names say it all
    head, owners = ["Method"], ["key"]
    for subset, metric in columns:
        label = " ".join(filter(None, (names.get(subset, ""), METRICS[metric] if mixed else "")))
        head += [f"{label}, paper", f"{label}, this run ({profile})"]
        owners += ["paper", "run"]
    rows = []
    methods = _methods(tidy)
    for method in methods:
        cells = [method]
        for subset, metric in columns:
            for source in ("paper", "run"):
                cells.append(_cell(tidy, method=method, subset=subset, metric=metric, source=source))
        rows.append(cells)
    strong = frozenset(i for i, m in enumerate(methods) if m in (OWN, "LLaVA + Explanatory Text"))
    return Sheet(title, head, owners, rows, strong)


def only_run(title: str, tidy: pd.DataFrame, metrics: Sequence[str], profile: str) -> Sheet:
    """What the paper does not report, measured in this run."""
    run = tidy[(tidy.source == "run") & (tidy.subset == "all")]
    metrics = [m for m in metrics if (run.metric == m).any()]
    methods = list(dict.fromkeys(run.method))
    sizes = run[run.metric == "acc"].groupby("method").n.max()
    rows = [
        [m, count(sizes[m]) if m in sizes else "–", *(_cell(run, method=m, metric=k) for k in metrics)]
        for m in methods
    ]
    head = ["Method", f"Images ({profile})", *(f"{METRICS[k]}, this run ({profile})" for k in metrics)]
    return Sheet(title, head, ["key"] + ["run"] * (len(metrics) + 1), rows, _strong(methods))


def _strong(methods: Sequence[str]) -> frozenset[int]:
    return frozenset(i for i, m in enumerate(methods) if m == OWN)


def by_subset(
    title: str,
    scores: pd.DataFrame,
    prefix: str,
    metrics: Sequence[str],
    profile: str,
    *,
    key: str,
    paper: dict[str, float] | None = None,
    paper_head: str = "",
) -> Sheet | None:
    """FakeVLM by category or generator; `paper` adds a column of the release's numbers. None where there is no such subset."""
    part = scores[(scores.method == OWN) & scores.subset.str.startswith(f"{prefix}=")]
    part = part.assign(subset=part.subset.str.removeprefix(f"{prefix}="))
    metrics = [m for m in metrics if part[part.metric == m].value.notna().any()]
    if part.empty or not metrics:
        return None
    rows = []
    for name in sorted(part.subset.unique()):
        here = part[part.subset == name]
        size = here[here.metric == metrics[0]].n
        cells = [CATEGORY_NAMES.get(name, name), count(size.iloc[0]) if len(size) else "–"]
        if paper is not None:
            cells.append(fmt(paper.get(name)))
        rows.append(cells + [_cell(here, metric=m) for m in metrics])
    release = [paper_head] if paper is not None else []
    head = [key, f"Images ({profile})", *release, *(f"{METRICS[m]}, this run ({profile})" for m in metrics)]
    owners = ["key", "run", *(["release"] * len(release)), *(["run"] * len(metrics))]
    return Sheet(title, head, owners, rows)


def _notes(published: Published, name: str, *more: str) -> list[str]:
    return [*(note.note for note in published.table(name).all_notes()), *more]


def _plain(published: Published, scores: pd.DataFrame, name: str, benchmarks: Sequence[str]) -> pd.DataFrame:
    frames = [published.frame(name)]
    for benchmark in benchmarks:
        categories = sorted(
            s for s in scores[scores.benchmark == benchmark].subset.unique() if s.startswith("category=")
        )
        frames.append(run_rows(scores, benchmark, {s: s for s in ["all", *categories]}))
    return _tidy(frames)


def table2(published: Published, scores: pd.DataFrame, profile: str) -> ReportTable:
    """FakeClue and LOKI: detection and explanation (paper Table 2)."""
    tidy = _plain(published, scores, "table2", ("fakeclue", "loki"))
    columns = [("all", m) for m in ("acc", "f1", "rouge_l", "css")]
    sheets = []
    for benchmark in ("fakeclue", "loki"):
        part, name = tidy[tidy.benchmark == benchmark], BENCHMARKS[benchmark]
        sheets.append(beside(name, part, columns, profile))
        sheets.append(only_run(f"{name}: what the paper does not report", part, RUN_ONLY, profile))
        released = published.release.fakeclue_accuracy if benchmark == "fakeclue" else None
        sheets.append(
            by_subset(
                f"{name}: FakeVLM by category",
                scores[scores.benchmark == benchmark],
                "category",
                ("acc", "f1_real", "f1_fake", "auc", "clue_precision", "clue_recall"),
                profile,
                key="Category",
                paper=released,
                paper_head="Acc, released weights",
            )
        )
    caption = published.table("table2").caption
    notes = _notes(published, "table2", F1_NOTE)
    return ReportTable("table2_fakeclue_loki", "Table 2", caption, tidy, [s for s in sheets if s], notes)


def _small(trained: Sequence[str]) -> list[str]:
    """The note on expert detectors that a stage of this run trained, if it did."""
    if not trained:
        return []
    names = " and ".join(filter(None, [", ".join(trained[:-1]), trained[-1]]))
    return [
        f"{names} of this run: after those papers, trained here on this run's data; the names are shared, the weights are not."
    ]


def table3(
    published: Published, scores: pd.DataFrame, profile: str, trained: Sequence[str] = ()
) -> ReportTable:
    """DMimage: real, fake and overall (paper Table 3); per-class F1 is 2a/(1+a), as in the paper's row for FakeVLM.

    Args:
        trained: expert detectors among the methods that were trained in this run.
    """
    run = run_rows(scores, "dmimage", {"all": "Overall", "label=real": "Real", "label=fake": "Fake"})
    one_class = run.subset.isin(["Real", "Fake"])
    # F1 of a single-class subset has that class as the positive one; `f1` so far holds F1(real) alone.
    as_printed = run[(run.subset == "Fake") & (run.metric == "f1_fake")].assign(metric="f1")
    keep = ~one_class | run.metric.isin(["acc", "f1"])
    run = pd.concat([run[keep & ~((run.subset == "Fake") & (run.metric == "f1"))], as_printed])
    generators = sorted(
        s for s in scores[scores.benchmark == "dmimage"].subset.unique() if s.startswith("generator=")
    )
    by_generator = run_rows(scores, "dmimage", {s: s for s in generators}) if generators else run.iloc[:0]
    tidy = _tidy([published.frame("table3"), run, by_generator[by_generator.metric.isin(["acc", "auc"])]])
    names = {"Real": "Real", "Fake": "Fake", "Overall": "Overall"}
    main = tidy[tidy.subset.isin(names)]
    columns = [(s, m) for s in names for m in ("acc", "f1")]
    extra = tidy[tidy.subset == "Overall"].assign(subset="all")
    sheets = [
        beside("DMimage: real images, fakes", main, columns[:4], profile, names),
        beside("DMimage: overall", main, columns[4:], profile, names),
        only_run("DMimage: what the paper does not report (overall)", extra, RUN_ONLY, profile),
        by_subset(
            "DMimage: FakeVLM by generator (accuracy on its fakes, AUC against all real images)",
            scores[scores.benchmark == "dmimage"],
            "generator",
            ("acc", "auc"),
            profile,
            key="Generator",
        ),
    ]
    notes = _notes(
        published,
        "table3",
        "Printed in percent; given here and in the CSV as fractions.",
        "F1 of Real and Fake is taken on images of that class alone, as in the paper's row for FakeVLM: 2a/(1+a). Overall F1 of this run is F1(real).",
        *_small(trained),
    )
    return ReportTable(
        "table3_dmimage", "Table 3", published.table("table3").caption, tidy, [s for s in sheets if s], notes
    )


def table4(published: Published, scores: pd.DataFrame, profile: str) -> ReportTable:
    """DD-VQA: detection and answers (paper Table 4)."""
    tidy = _tidy([published.frame("table4"), run_rows(scores, "ddvqa")])
    sheets = [
        beside("DD-VQA", tidy, [("all", m) for m in ("acc", "f1", "rouge_l", "css")], profile),
        only_run("DD-VQA: what the paper does not report", tidy, RUN_ONLY, profile),
    ]
    own = "This run learns nothing from DD-VQA: its ROUGE-L and CSS are to be read so."
    notes = _notes(published, "table4", F1_NOTE, *[own] * bool((tidy.source == "run").any()))
    return ReportTable("table4_ddvqa", "Table 4", published.table("table4").caption, tidy, sheets, notes)


def table5(
    published: Published,
    scores: pd.DataFrame,
    average: pd.DataFrame,
    profile: str,
    trained: Sequence[str],
    videos: int,
) -> ReportTable:
    """FF++ by manipulation, AUC (paper Table 5).

    Args:
        average: method, value, ci_low, ci_high, n: the mean AUC over the four manipulations (`average_auc`).
        trained: expert detectors among the methods that were trained in this run.
        videos: how many videos, with their manipulations, the frames come from.
    """
    names = {f"generator={folder}": short for short, folder in MANIPULATIONS.items()}
    run = run_rows(scores, "ffpp", names)
    run = run[run.metric.isin(["auc", "acc"])]
    mean = average.assign(source="run", benchmark="ffpp", subset="Average", metric="auc")
    overall = run_rows(scores, "ffpp")
    tidy = _tidy([published.frame("table5"), run, mean, overall])
    main = tidy[tidy.subset.isin([*MANIPULATIONS, "Average"]) & (tidy.metric == "auc")]
    sheets = [
        beside(
            "FF++ (c23): AUC",
            main,
            [(s, "auc") for s in (*MANIPULATIONS, "Average")],
            profile,
            {s: s for s in (*MANIPULATIONS, "Average")},
        ),
        only_run("FF++: all test frames", tidy[tidy.subset == "all"], ("acc", *RUN_ONLY), profile),
    ]
    notes = _notes(
        published,
        "table5",
        "Printed in percent; given here and in the CSV as fractions.",
        "A manipulation's AUC is its fakes against all real test frames; this run's Average is the mean of the four columns.",
        *[
            f"This run's frames come from {videos} videos and their manipulations; intervals draw both together."
        ]
        * bool(videos),
        *_small(trained),
    )
    return ReportTable("table5_ffpp", "Table 5", published.table("table5").caption, tidy, sheets, notes)


def table6(published: Published, scores: pd.DataFrame, profile: str) -> ReportTable:
    """The ablation on LOKI (paper Table 6): FakeVLM is `LLaVA + Explanatory Text`."""
    names = {"LLaVA + Linear Head": "LLaVA + Linear Head", OWN: "LLaVA + Explanatory Text"}
    run = run_rows(scores[scores.method.isin(names)], "loki")
    run = run.assign(method=run.method.map(names))
    tidy = _tidy([published.frame("table6"), run])
    sheets = [
        beside("LOKI", tidy, [("all", m) for m in ("acc", "f1", "rouge_l", "css")], profile),
        only_run("LOKI: what the paper does not report", tidy, RUN_ONLY, profile),
    ]
    notes = _notes(
        published, "table6", F1_NOTE, "A linear head writes no text: it has no ROUGE-L, CSS or clues."
    )
    return ReportTable("table6_ablation", "Table 6", published.table("table6").caption, tidy, sheets, notes)
