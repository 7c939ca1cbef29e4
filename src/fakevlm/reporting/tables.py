"""Tables 1–8: the paper's numbers and this run's, tidy for machines and side by side for people, never mixed.

Which scores, columns and notes a table has is data: `tables` in report.yaml. A new column is one entry there.
"""

from collections import Counter
from dataclasses import dataclass
from fnmatch import filter as matching
from typing import Any

import pandas as pd

from fakevlm.data.records import read_frame
from fakevlm.reporting import texts
from fakevlm.reporting.inputs import SPLITS, Inputs, evaluated
from fakevlm.reporting.published import TIDY, Published
from fakevlm.reporting.texts import BENCHMARKS, CATEGORY_NAMES, METHOD, METRICS, count, fmt, layout, sentences

TRAINED = ("CNNSpot", "UnivFD", "Frequency")  # detectors of stage experts, as evaluate.methods names them
STRONG = (METHOD, "LLaVA + Explanatory Text", "FakeClue", "all")  # rows of the paper's own method, and sums


@dataclass(frozen=True)
class Sheet:
    """Text: each column has an owner (`key`, `paper`, `run`, `release`); `strong` rows are bold."""

    title: str
    head: list[str]
    owners: list[str]
    rows: list[list[str]]
    strong: tuple[str, ...] = STRONG


@dataclass(frozen=True)
class ReportTable:
    """One of the paper's tables: `name` is the file's stem in figures/, `tidy` what its CSV holds."""

    name: str
    number: str
    caption: str
    tidy: pd.DataFrame
    sheets: list[Sheet]
    notes: list[str]


def build_tables(inputs: Inputs, published: Published) -> list[ReportTable]:
    """Return Tables 1–8."""
    return [table1(inputs, published), *(build_table(name, inputs, published) for name in layout()["tables"])]


def build_table(name: str, inputs: Inputs, published: Published) -> ReportTable:
    """Return one of Tables 2–8 (`table2` …), the paper beside this run, as report.yaml lays it out."""
    spec, paper = layout()["tables"][name], published.tables[name]
    scores = pd.concat([inputs.scores, inputs.robustness], ignore_index=True)
    average = inputs.average.assign(source="run")
    run = [average if entry.get("average") else _run_rows(scores, entry) for entry in spec["run"]]
    tidy = pd.concat([published.frame(name), *run], ignore_index=True)[TIDY]
    tidy = tidy.astype(dict.fromkeys(["value", "ci_low", "ci_high", "n"], float)).round(6)
    tidy = tidy.astype({"n": "Int64"})
    accuracies = published.release["fakeclue_accuracy"].items()
    released = [(METHOD, "release", "fakeclue", f"category={c}", "acc", value) for c, value in accuracies]
    everything = pd.concat([tidy, pd.DataFrame(released, columns=TIDY[:6])], ignore_index=True)
    sheets = filter(None, (_sheet(everything, sheet, inputs.params.profile) for sheet in spec["sheets"]))
    facts = {
        "trained": [method for method in inputs.params.evaluate.methods if method in TRAINED],
        "videos": inputs.predictions["ffpp"]["group"].nunique(),
        "measured": (tidy.source == "run").any(),
    }
    notes = [note["note"] for note in published.notes(name)] + sentences(spec["notes"], **facts)
    number = name.replace("table", "Table ")
    return ReportTable(spec["file"], number, paper["caption"], tidy, list(sheets), notes)


def markdown(table: ReportTable, profile: str) -> str:
    """Return a whole table as Markdown: heading, how to read it, its sheets, its notes."""
    reading = texts.fill(layout()["reading"], profile=profile, name=table.name)
    return texts.render("table.md.j2", table=table, reading=reading)


def _run_rows(scores: pd.DataFrame, spec: dict[str, Any]) -> pd.DataFrame:
    """Return the scores that an entry of `run` asks for, tidy, plus `f1`: the paper's name of F1(real)."""
    scores = scores[(scores.benchmark == spec["benchmark"]) & scores.metric.isin(METRICS)]
    f1 = scores[scores.metric == spec.get("f1", "f1_real")].assign(metric="f1")
    scores = pd.concat([scores, f1]).dropna(subset=["value"])
    subsets: dict[str, str] = {}
    for pattern, name in spec["subsets"].items():
        subsets |= {subset: name or subset for subset in sorted(matching(scores.subset.unique(), pattern))}
    part = scores[scores.subset.isin(subsets)]
    if part.empty:
        return part.reindex(columns=TIDY)
    part = part.assign(subset=part.subset.map(subsets), source="run")
    part = part[(part.subset + "/" + part.metric).str.fullmatch(spec.get("only", ".*"))]
    methods = spec.get("methods", {method: method for method in part.method.unique()})
    part = part[part.method.isin(methods)]
    orders = {"method": [METHOD, *sorted(set(methods) - {METHOD})]}
    orders |= {"subset": list(subsets.values()), "metric": list(METRICS)}
    part = part.sort_values(list(orders), key=lambda c: c.map(orders[c.name].index), kind="stable")
    return part.assign(method=part.method.map(methods))[TIDY]


def _texts(tidy: pd.DataFrame) -> pd.DataFrame:
    """Return a tidy frame with its cells as `text`, and `n`, the number of images, as one more metric."""
    cells = [fmt(*row) for row in tidy[["value", "ci_low", "ci_high"]].itertuples(index=False)]
    sizes = tidy[(tidy.metric == "acc") & (tidy.source == "run")].assign(metric="n")
    return pd.concat([tidy.assign(text=cells), sizes.assign(text=sizes.n.map(count))])


def _rank(subset: str) -> tuple[bool, str, float, str]:
    """Order `none` first, then by name, then by strength as a number."""
    name, _, strength = subset.partition("=")
    number = float(strength) if strength.replace(".", "", 1).isdigit() else 0.0
    return subset != "none", name, number, strength


def _columns(spec: dict[str, Any], profile: str) -> dict[tuple[str, str, str], str]:
    """Return the columns of a sheet in order: (source, subset or with `by` method, metric) → head."""
    owners = {"paper": "paper", "run": f"this run ({profile})"}
    if "columns" in spec:
        pairs = [(tuple(key.split("/")), label) for key, label in spec["columns"].items()]
        return {(o, *key): f"{label}, {owners[o]}" for key, label in pairs for o in owners}
    place = METHOD if "by" in spec else spec.get("of", "all")
    sources = spec.get("sources", ["run"])
    columns = {("run", place, "n"): f"Images ({profile})"} if sources == ["run"] else {}
    if "release" in spec:
        columns["release", place, "acc"] = spec["release"]
    return columns | {(o, place, m): f"{METRICS[m]}, {owners[o]}" for o in sources for m in spec["metrics"]}


def _sheet(tidy: pd.DataFrame, spec: dict[str, Any], profile: str) -> Sheet | None:
    """Return a sheet of methods or, with `by`, of FakeVLM's subsets that begin so; None if it has no rows."""
    columns, prefix = _columns(spec, profile), spec.get("by", "")
    tidy = tidy[(tidy.benchmark == spec["benchmark"]) & tidy.source.isin({source for source, *_ in columns})]
    if "by" in spec:
        key, other = "subset", "method"
        tidy = tidy[(tidy.method == METHOD) & tidy.subset.str.startswith(prefix)]
        rows = sorted(tidy[tidy.source != "release"].subset.unique(), key=_rank)
    else:
        key, other = "method", "subset"
        if "having" in spec:
            tidy = tidy[tidy.method.isin(tidy[tidy.metric == spec["having"]].method)]
        rows = list(tidy.method.unique())
    table = _texts(tidy).pivot(index=key, columns=["source", other, "metric"], values="text")
    # A column without values is left out, except this run's beside the paper's.
    shown = [c for c in columns if c in table or ("columns" in spec and c[0] == "run")]
    if not shown:
        return None
    table = table.reindex(rows, columns=pd.MultiIndex.from_tuples(shown)).dropna(how="all").fillna("–")
    labels = table.index.str.removeprefix(prefix).str.replace("=", " ")
    table.insert(0, "label", [CATEGORY_NAMES.get(label, label) for label in labels])
    head = [spec.get("key", "Method"), *(columns[column] for column in shown)]
    owners, strong = ["key", *(c[0] for c in shown)], STRONG if "columns" in spec else (METHOD,)
    return Sheet(spec["title"], head, owners, table.to_numpy().tolist(), strong) if len(table) else None


_NUMBERS = ["images", "real", "fake", "rows"]
_TABLE1 = ["dataset", "source", "split", "category", "field", "artifact", "annotator", "categories", "number"]


def table1(inputs: Inputs, published: Published) -> ReportTable:
    """Return the data sets (paper Table 1), and FakeClue by category in the release and in this run."""
    paper = pd.DataFrame(published.datasets["rows"])
    paper = paper.assign(source="paper", categories=paper.categories.map({True: "yes", False: "no"}))
    run = pd.DataFrame([_run_dataset(inputs, benchmark) for benchmark in BENCHMARKS])
    datasets = pd.concat([paper, run], ignore_index=True)
    counts = inputs.fakeclue.value_counts(["split", "category", "label"]).rename("n").reset_index()
    splits = pd.concat([_by_category(published.released(), "release"), _by_category(counts, "run")])
    tidy = pd.concat([datasets, splits]).reindex(columns=_TABLE1 + _NUMBERS)
    tidy = tidy.astype(dict.fromkeys(_NUMBERS, "Int64"))
    sheets = [_datasets(datasets, inputs.params.profile), _splits(splits, inputs.params.profile)]
    notes = [note["note"] for note in published.datasets["notes"]] + [layout()["release_note"]]
    return ReportTable("table1_datasets", "Table 1", published.datasets["caption"], tidy, sheets, notes)


def annotators(inputs: Inputs) -> str:
    """Return who annotates in this run: the back ends by name, e.g. `3 × observer`."""
    numbers = Counter(annotator.backend for annotator in inputs.params.annotate.annotators)
    return ", ".join(f"{n} × {name}" for name, n in numbers.items()) or "nobody: the released texts"


def _run_dataset(inputs: Inputs, benchmark: str) -> dict[str, Any]:
    """Return this run's row of one benchmark; several questions may share an image."""
    annotated = benchmark == "fakeclue"
    frame = inputs.fakeclue if annotated else read_frame(evaluated(benchmark), ["id", "label", "category"])
    images = frame.assign(path=frame.id.str.split("#").str[0]).drop_duplicates("path")
    field, artifact = layout()["datasets"][benchmark]
    real = int((images.label == 1).sum())
    row = {"dataset": BENCHMARKS[benchmark], "source": "run", "field": field, "artifact": artifact}
    row |= {"images": len(images), "real": real, "fake": len(images) - real, "rows": len(frame)}
    row |= {"annotator": annotators(inputs) if annotated else None, "number": count(len(images))}
    return row | {"categories": "yes" if annotated or frame.category.nunique() > 1 else "no"}


def _by_category(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """Return FakeClue's images by split and category, from counts `n` by split, category and label."""
    table = frame.pivot_table(index=["split", "category"], columns="label", values="n", fill_value=0)
    wanted = pd.MultiIndex.from_product([SPLITS, CATEGORY_NAMES], names=["split", "category"])
    table = table.reindex(wanted.intersection(table.index, sort=False)).reindex(columns=[0, 1], fill_value=0)
    table = table.set_axis(["fake", "real"], axis=1).reset_index()
    images = table.fake + table.real
    return table.assign(dataset="FakeClue", source=source, images=images, rows=images)


def _datasets(tidy: pd.DataFrame, profile: str) -> Sheet:
    """Return the data sets as the paper describes them, beside this run's."""
    paper, run = (tidy[tidy.source == source].set_index("dataset") for source in ("paper", "run"))
    questions = [f" ({count(r.rows)} questions)" if r.rows != r.images else "" for r in run.itertuples()]
    run["size"] = run.images.map(count) + questions
    run["labels"] = run.real.map(count) + " / " + run.fake.map(count)
    table = paper[["field", "artifact", "annotator", "categories", "number"]]
    table = table.join(run[["annotator", "size", "labels"]], how="outer", rsuffix="_run")
    rows = table.reindex(tidy.dataset.unique()).fillna("–").reset_index().to_numpy().tolist()
    head = ["Data set", "Field", "Artifact", "Annotator, paper", "Categories, paper", "Number, paper"]
    head += [f"{name}, this run ({profile})" for name in ("Annotator", "Images", "real / fake")]
    return Sheet("Data sets", head, ["key", *["paper"] * 5, *["run"] * 3], rows)


def _splits(tidy: pd.DataFrame, profile: str) -> Sheet:
    """Return FakeClue by category: fakes / real images of each split, release beside run."""
    columns = [("release", "train"), ("release", "test"), ("run", "train"), ("run", "val"), ("run", "test")]
    sums = tidy.groupby(["source", "split"], as_index=False)[["fake", "real"]].sum().assign(category="all")
    cells = pd.concat([tidy, sums])
    cells = cells.assign(text=cells.fake.map(count) + " / " + cells.real.map(count))
    table = cells.pivot(index="category", columns=["source", "split"], values="text")
    table = table.reindex(columns=pd.MultiIndex.from_tuples(columns)).fillna("–")
    names = CATEGORY_NAMES | {"all": "all"}
    rows = [[name, *table.loc[key]] for key, name in names.items() if key in table.index]
    owners = {"release": "release", "run": f"this run ({profile})"}
    head = ["Category", *(f"{split} fake / real, {owners[source]}" for source, split in columns)]
    return Sheet("FakeClue by category and split", head, ["key", *(c[0] for c in columns)], rows)
