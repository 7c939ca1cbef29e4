"""Tables 1–8: the paper's numbers and this run's, tidy for machines and side by side for people, never mixed.

Which scores, columns and notes a table has is data: `tables` in report.yaml. A new column is one entry there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from fakevlm.data.records import read_frame
from fakevlm.reporting.inputs import Inputs, evaluated
from fakevlm.reporting.published import TIDY, Published
from fakevlm.reporting.texts import (
    BENCHMARKS,
    CATEGORY_NAMES,
    METHOD,
    METRICS,
    count,
    fill,
    fmt,
    layout,
    sentences,
)

TRAINED = ("CNNSpot", "UnivFD", "Frequency")  # detectors of stage experts, as evaluate.methods names them
STRONG = (METHOD, "LLaVA + Explanatory Text")


@dataclass(frozen=True)
class Sheet:
    """A table of text.

    Attributes:
        owners: of each column: `key`, `paper`, `run` or `release`.
        strong: rows of the paper's own method.
    """

    title: str
    head: list[str]
    owners: list[str]
    rows: list[list[str]]
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class ReportTable:
    """One of the paper's tables: `name` is the file's stem in figures/, `tidy` what its CSV holds."""

    name: str
    number: str
    caption: str
    tidy: pd.DataFrame
    sheets: list[Sheet]
    notes: list[str] = field(default_factory=list)


def _run_rows(scores: pd.DataFrame, spec: dict[str, Any]) -> pd.DataFrame:
    """Return the scores that an entry of `run` asks for, tidy, plus `f1`: the paper's name of F1(real)."""
    scores = scores[(scores.benchmark == spec["benchmark"]) & scores.metric.isin(METRICS)]
    subsets: dict[str, str] = {}
    for pattern, name in spec["subsets"].items():
        prefix = pattern.removesuffix("*")
        here = (
            sorted(s for s in scores.subset.unique() if s.startswith(prefix)) if name is None else [pattern]
        )
        subsets |= {subset: name or subset for subset in here}
    part = scores[scores.subset.isin(subsets)]
    part = part.assign(subset=part.subset.map(subsets), source="run")
    part = pd.concat([part, part[part.metric == spec.get("f1", "f1_real")].assign(metric="f1")])
    part = part.dropna(subset=["value"])
    metrics = spec.get("metrics", list(METRICS))
    if isinstance(metrics, dict):
        wanted = [m in metrics.get(s, METRICS) for s, m in zip(part.subset, part.metric, strict=True)]
        part = part[pd.Series(wanted, index=part.index, dtype=bool)]
    else:
        part = part[part.metric.isin(metrics)]
    if methods := spec.get("methods"):
        part = part[part.method.isin(methods)]
    orders = {
        "method": [METHOD, *sorted(set(part.method) - {METHOD})],
        "subset": list(subsets.values()),
        "metric": list(METRICS),
    }
    part = part.sort_values(list(orders), key=lambda c: c.map(orders[c.name].index), kind="stable")
    return part.assign(method=part.method.map(methods))[TIDY] if methods else part[TIDY]


def _tidy(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return one tidy frame: values rounded to what is meaningful, n a whole number."""
    rows = [row for frame in frames for row in frame[TIDY].itertuples(index=False)]
    frame = pd.DataFrame(rows, columns=TIDY)
    for column in ("value", "ci_low", "ci_high"):
        frame[column] = pd.to_numeric(frame[column]).round(6)
    frame["n"] = pd.to_numeric(frame["n"]).astype("Int64")
    return frame


def cell(tidy: pd.DataFrame, **where: str) -> str:
    """Return the one value whose columns are as named, with its interval; a dash where there is none."""
    for column, value in where.items():
        tidy = tidy[tidy[column] == value]
    return fmt(*tidy[["value", "ci_low", "ci_high"]].iloc[0]) if len(tidy) else "–"


def _beside(tidy: pd.DataFrame, spec: dict[str, Any], profile: str) -> Sheet:
    """The paper's column, where it prints one, and this run's for each of the sheet's columns."""
    wanted = (tidy.subset + "/" + tidy.metric).isin(spec["columns"])
    tidy = tidy[wanted].sort_values("source", kind="stable")  # the paper's methods first
    methods = list(dict.fromkeys(tidy.method))
    head, owners, cells = ["Method"], ["key"], [[method] for method in methods]
    for column, label in spec["columns"].items():
        subset, metric = column.split("/")
        part = tidy[(tidy.subset == subset) & (tidy.metric == metric)]
        for source, title in (("paper", "paper"), ("run", f"this run ({profile})")):
            if source == "paper" and not (part.source == "paper").any():
                continue
            head.append(f"{label}, {title}")
            owners.append(source)
            for row in cells:
                row.append(cell(part, method=row[0], source=source))
    strong = frozenset(i for i, method in enumerate(methods) if method in STRONG)
    return Sheet(spec["title"], head, owners, cells, strong)


def _only_run(tidy: pd.DataFrame, spec: dict[str, Any], profile: str) -> Sheet | None:
    """What the paper does not report, measured in this run; None if no method is `having` it."""
    run = tidy[(tidy.source == "run") & (tidy.subset == spec.get("of", "all"))]
    if having := spec.get("having"):
        run = run[run.method.isin(run[run.metric == having].method)]
        if run.empty:
            return None
    metrics = [m for m in spec["run"] if (run.metric == m).any()]
    sizes = run[run.metric == "acc"].groupby("method").n.max()
    rows = [
        [m, count(sizes[m]) if m in sizes else "–", *(cell(run, method=m, metric=k) for k in metrics)]
        for m in dict.fromkeys(run.method)
    ]
    head = ["Method", f"Images ({profile})", *(f"{METRICS[k]}, this run ({profile})" for k in metrics)]
    strong = frozenset(i for i, row in enumerate(rows) if row[0] == METHOD)
    return Sheet(spec["title"], head, ["key"] + ["run"] * (len(metrics) + 1), rows, strong)


def _by_subset(
    tidy: pd.DataFrame, spec: dict[str, Any], profile: str, released: dict[str, float]
) -> Sheet | None:
    """FakeVLM by category or generator, beside the released weights; None where there is none."""
    part = tidy[(tidy.method == METHOD) & tidy.subset.str.startswith(f"{spec['by']}=")]
    part = part.assign(subset=part.subset.str.removeprefix(f"{spec['by']}="))
    metrics = [m for m in spec["metrics"] if (part.metric == m).any()]
    release = [spec["release"]] if "release" in spec else []
    rows = []
    for name in sorted(part.subset.unique()):
        here = part[part.subset == name]
        row = [CATEGORY_NAMES.get(name, name), count(here[here.metric == metrics[0]].n.iloc[0])]
        rows.append(
            row + [fmt(released.get(name)) for _ in release] + [cell(here, metric=m) for m in metrics]
        )
    head = [spec["key"], f"Images ({profile})", *release]
    head += [f"{METRICS[m]}, this run ({profile})" for m in metrics]
    owners = ["key", "run", *(["release"] * len(release)), *(["run"] * len(metrics))]
    return Sheet(spec["title"], head, owners, rows) if rows else None


def _by_row(tidy: pd.DataFrame, spec: dict[str, Any], profile: str) -> Sheet:
    """FakeVLM under each subset (rows): the paper's metrics, then this run's."""
    owners = [("paper", "paper"), ("run", f"this run ({profile})")]
    columns = [(source, title, m) for source, title in owners for m in spec["rows"]]
    columns = [c for c in columns if ((tidy.source == c[0]) & (tidy.metric == c[2])).any()]
    rows = [
        [subset.replace("=", " "), *(cell(tidy, subset=subset, source=s, metric=m) for s, _, m in columns)]
        for subset in sorted(set(tidy.subset), key=_strength)
    ]
    head = [spec["key"], *(f"{METRICS[metric]}, {title}" for _, title, metric in columns)]
    return Sheet(spec["title"], head, ["key", *(source for source, _, _ in columns)], rows)


def _strength(subset: str) -> tuple[bool, str, float]:
    """Order `none` first, then perturbations by name and strength."""
    name, _, strength = subset.partition("=")
    return name != "none", name, float(strength or 0)


def build_table(
    name: str,
    published: Published,
    scores: pd.DataFrame,
    profile: str,
    average: pd.DataFrame | None = None,
    **facts: Any,
) -> ReportTable:
    """One of Tables 2–8, the paper beside this run, as `report.yaml` lays it out.

    Args:
        name: `table2` … `table8`.
        scores: of all benchmarks and of robustness, as the stages write them.
        average: the mean AUC over the manipulations (`averages.average_auc`), for Table 5.
        facts: what the table's notes name: trained (experts trained in this run), videos (of FF++).
    """
    spec, printed = layout()["tables"][name], published.table(name)
    frames = [published.frame(name)]
    for entry in spec["run"]:
        if entry.get("average"):
            mean = pd.DataFrame(columns=TIDY) if average is None else average
            frames.append(mean.assign(source="run", benchmark="ffpp", subset="Average", metric="auc"))
        else:
            frames.append(_run_rows(scores, entry))
    tidy = _tidy(frames)
    sheets: list[Sheet | None] = []
    for sheet in spec["sheets"]:
        part = tidy[tidy.benchmark == sheet["benchmark"]]
        if "columns" in sheet:
            sheets.append(_beside(part, sheet, profile))
        elif "rows" in sheet:
            sheets.append(_by_row(part, sheet, profile))
        elif "run" in sheet:
            sheets.append(_only_run(part, sheet, profile))
        else:
            sheets.append(_by_subset(part, sheet, profile, published.release.fakeclue_accuracy))
    measured = bool((tidy.source == "run").any())
    notes = [note.note for note in printed.all_notes()]
    notes += sentences(spec["notes"], **({"trained": [], "videos": 0} | facts), measured=measured)
    shown = [sheet for sheet in sheets if sheet]
    return ReportTable(spec["file"], printed.number, printed.caption, tidy, shown, notes)


def build_tables(inputs: Inputs, published: Published, average: pd.DataFrame) -> list[ReportTable]:
    """Tables 1–8."""
    params = inputs.params
    trained = [name for name in params.evaluate.methods if name in TRAINED]
    videos = inputs.predictions["ffpp"]["item"].nunique()
    scores = pd.concat([inputs.scores, inputs.robustness], ignore_index=True)
    return [table1(inputs, published)] + [
        build_table(name, published, scores, params.profile, average, trained=trained, videos=videos)
        for name in layout()["tables"]
    ]


# ── Table 1 ──────────────────────────────────────────────────────────────────────────────────────────

_NUMBERS = ["images", "real", "fake", "rows"]
_TABLE1 = ["dataset", "source", "split", "category", "field", "artifact", "annotator", "categories", "number"]


def annotators(inputs: Inputs) -> str:
    """Who annotates in this run: the back ends by name, e.g. `3 × observer`."""
    backends = [annotator.backend for annotator in inputs.params.annotate.annotators]
    names = ", ".join(f"{backends.count(b)} × {b}" for b in dict.fromkeys(backends))
    return names or "nobody: the released texts"


def _run_dataset(inputs: Inputs, benchmark: str) -> dict[str, Any]:
    """This run's row of one benchmark; several questions may share an image."""
    own = benchmark == "fakeclue"
    frame = inputs.fakeclue if own else read_frame(evaluated(benchmark), ["id", "label", "category"])
    images = frame.assign(path=frame.id.str.split("#").str[0]).drop_duplicates("path")
    real = int((images.label == 1).sum())
    field_, artifact = layout()["datasets"][benchmark]
    return {
        "dataset": BENCHMARKS[benchmark],
        "source": "run",
        "field": field_,
        "artifact": artifact,
        "annotator": annotators(inputs) if own else None,
        "categories": "yes" if own or frame.category.nunique() > 1 else "no",
        "number": count(len(images)),
        "images": len(images),
        "real": real,
        "fake": len(images) - real,
        "rows": len(frame),
    }


def _by_category(inputs: Inputs, published: Published) -> list[dict[str, Any]]:
    run = inputs.fakeclue.groupby(["split", "category", "label"]).size().rename("n").reset_index()
    rows = []
    for source, frame in (("release", published.release.frame()), ("run", run)):
        table = frame.pivot_table(index=["split", "category"], columns="label", values="n", fill_value=0)
        for split in ("train", "val", "test"):
            for category in [c for c in CATEGORY_NAMES if (split, c) in table.index]:
                real, fake = (int(table[label].get((split, category), 0)) for label in (1, 0))
                key = {"dataset": "FakeClue", "source": source, "split": split, "category": category}
                rows.append(key | dict(zip(_NUMBERS, (real + fake, real, fake, real + fake), strict=True)))
    return rows


def _datasets(rows: list[dict[str, Any]], profile: str) -> Sheet:
    head = ["Data set", "Field", "Artifact", "Annotator, paper", "Categories, paper", "Number, paper"]
    head += [f"{name}, this run ({profile})" for name in ("Annotator", "Images", "real / fake")]
    paper = {row["dataset"]: row for row in rows if row["source"] == "paper"}
    run = {row["dataset"]: row for row in rows if row["source"] == "run"}
    names = list(dict.fromkeys([*paper, *run]))
    cells = []
    for name in names:
        keys = ("field", "artifact", "annotator", "categories", "number")
        row = [name, *(str(paper.get(name, {}).get(key) or "–") for key in keys)]
        if here := run.get(name):
            questions = f" ({count(here['rows'])} questions)" if here["rows"] != here["images"] else ""
            images = count(here["images"]) + questions
            row += [here["annotator"] or "–", images, f"{count(here['real'])} / {count(here['fake'])}"]
        cells.append(row if here else [*row, "–", "–", "–"])
    owners = ["key"] + ["paper"] * 5 + ["run"] * 3
    return Sheet("Data sets", head, owners, cells, frozenset({names.index("FakeClue")}))


def _splits(rows: list[dict[str, Any]], profile: str) -> Sheet:
    """FakeClue by category: fakes / real images of each split, release beside run."""
    columns = [("release", "train"), ("release", "test"), ("run", "train"), ("run", "val"), ("run", "test")]
    owner = {"release": "release", "run": f"this run ({profile})"}
    head = ["Category"] + [f"{split} fake / real, {owner[source]}" for source, split in columns]
    frame = pd.DataFrame(rows)
    sizes = frame.set_index(["source", "split", "category"])[["fake", "real"]]
    cells = []
    for category in [c for c in CATEGORY_NAMES if c in set(frame.category)]:
        pairs = [sizes.loc[(*c, category)] if (*c, category) in sizes.index else None for c in columns]
        pairs = ["–" if p is None else f"{count(p.fake)} / {count(p.real)}" for p in pairs]
        cells.append([CATEGORY_NAMES[category], *pairs])
    sums = [frame[(frame.source == source) & (frame.split == split)] for source, split in columns]
    cells.append(["all", *(f"{count(part.fake.sum())} / {count(part.real.sum())}" for part in sums)])
    owners = ["key", *(source for source, _ in columns)]
    return Sheet("FakeClue by category and split", head, owners, cells, frozenset({len(cells) - 1}))


def table1(inputs: Inputs, published: Published) -> ReportTable:
    """Data sets (paper Table 1), and FakeClue's images by category in the release and in this run."""
    rows: list[dict[str, Any]] = [
        {"source": "paper", **row.model_dump(), "categories": "yes" if row.categories else "no"}
        for row in published.datasets.rows
    ]
    rows += [_run_dataset(inputs, benchmark) for benchmark in BENCHMARKS]
    split = _by_category(inputs, published)
    tidy = pd.DataFrame([*rows, *split]).reindex(columns=_TABLE1 + _NUMBERS)
    tidy = tidy.astype({column: "Int64" for column in _NUMBERS})
    sheets = [_datasets(rows, inputs.params.profile), _splits(split, inputs.params.profile)]
    notes = [*(note.note for note in published.datasets.notes), layout()["release_note"]]
    return ReportTable("table1_datasets", "Table 1", published.datasets.caption, tidy, sheets, notes)


# ── Markdown ──────────────────────────────────────────────────────────────────────────────────────────


def pipe_table(head: Sequence[str], rows: Sequence[Sequence[str]], align: str = "---:") -> str:
    """Return a Markdown table; columns after the first are aligned by `align`."""
    lines = [head, *rows]
    text = [
        "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in line) + " |" for line in lines
    ]
    text.insert(1, "|" + "|".join(["---"] + [align] * (len(head) - 1)) + "|")
    return "\n".join(text)


def markdown(table: ReportTable, profile: str) -> str:
    """Return a whole table as Markdown: heading, how to read it, its sheets, its notes."""
    parts = [
        f"# {table.number}: {table.caption}",
        fill(layout()["reading"], profile=profile, name=table.name),
    ]
    for sheet in table.sheets:
        rows = [
            [f"**{row[0]}**" if i in sheet.strong else row[0], *row[1:]] for i, row in enumerate(sheet.rows)
        ]
        parts += [f"## {sheet.title}", pipe_table(sheet.head, rows)]
    if table.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in table.notes)]
    return "\n\n".join(parts) + "\n"
