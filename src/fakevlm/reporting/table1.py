"""Table 1: data sets by size and kind, with this run's counts; and FakeClue's images by category and split."""

import pandas as pd

from fakevlm.config.params import Params
from fakevlm.data.records import read_frame
from fakevlm.reporting.inputs import evaluated
from fakevlm.reporting.published import Published
from fakevlm.reporting.tables import ReportTable, Sheet
from fakevlm.reporting.words import BENCHMARKS, CATEGORY_NAMES, count

COLUMNS = [
    "dataset",
    "source",
    "split",
    "category",
    "field",
    "artifact",
    "annotator",
    "categories",
    "number",
    "images",
    "real",
    "fake",
    "rows",
]
_FIELDS = {
    "loki": ("Gen", "Syn"),
    "dmimage": ("Gen", "Syn"),
    "ddvqa": ("DF", "Syn"),
    "ffpp": ("DF", "Syn"),
}


def annotators(params: Params) -> str:
    """Who annotates in this run: the back ends by name, e.g. `3 × observer`; nobody where the texts are the release's."""
    if not params.annotate.annotators:
        return "nobody: the released texts"
    backends = [annotator.backend for annotator in params.annotate.annotators]
    return ", ".join(f"{backends.count(b)} × {b}" for b in dict.fromkeys(backends))


def _counts(frame: pd.DataFrame) -> dict[str, int]:
    """Images, real, fake and rows of records: several rows (questions) may share an image."""
    images = frame.assign(path=frame.id.str.split("#").str[0]).drop_duplicates("path")
    real = int((images.label == 1).sum())
    return {"images": len(images), "real": real, "fake": len(images) - real, "rows": len(frame)}


def _run_rows(fakeclue: pd.DataFrame, params: Params) -> list[dict]:
    rows = [
        {
            "dataset": "FakeClue",
            "field": "DF+Gen",
            "artifact": "Syn",
            "annotator": annotators(params),
            "categories": "yes",
        }
        | _counts(fakeclue)
    ]
    for benchmark, (field, artifact) in _FIELDS.items():
        frame = read_frame(evaluated(benchmark), ["id", "label", "category"])
        categories = "yes" if frame.category.nunique() > 1 else "no"
        rows.append(
            {
                "dataset": BENCHMARKS[benchmark],
                "field": field,
                "artifact": artifact,
                "categories": categories,
                **_counts(frame),
            }
        )
    return [{"source": "run", **row, "number": count(row["images"])} for row in rows]


def _category_rows(fakeclue: pd.DataFrame, published: Published) -> list[dict]:
    release = published.release.frame()
    run = fakeclue.groupby(["split", "category", "label"]).size().rename("n").reset_index()
    rows = []
    for source, frame in (("release", release), ("run", run)):
        for split in ("train", "val", "test"):
            for category in CATEGORY_NAMES:
                part = frame[(frame.split == split) & (frame.category == category)].set_index("label").n
                if part.empty:
                    continue
                real, fake = int(part.get(1, 0)), int(part.get(0, 0))
                rows.append(
                    {"dataset": "FakeClue", "source": source, "split": split, "category": category}
                    | {"images": real + fake, "real": real, "fake": fake, "rows": real + fake}
                )
    return rows


def _compared(rows: list[dict], profile: str) -> Sheet:
    head = ["Data set", "Field", "Artifact", "Annotator, paper", "Categories, paper", "Number, paper"]
    head += [
        f"Annotator, this run ({profile})",
        f"Images, this run ({profile})",
        f"real / fake, this run ({profile})",
    ]
    owners = ["key", "paper", "paper", "paper", "paper", "paper", "run", "run", "run"]
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    cells = []
    for name in names:
        paper = next((r for r in rows if r["dataset"] == name and r["source"] == "paper"), {})
        run = next((r for r in rows if r["dataset"] == name and r["source"] == "run"), None)
        known = [str(paper.get(k) or "–") for k in ("field", "artifact", "annotator", "categories", "number")]
        ours = ["–", "–", "–"]
        if run:
            images = count(run["images"])
            if run["rows"] != run["images"]:
                images += f" ({count(run['rows'])} questions)"
            ours = [run.get("annotator") or "–", images, f"{count(run['real'])} / {count(run['fake'])}"]
        cells.append([name, *known, *ours])
    return Sheet("Data sets", head, owners, cells, frozenset({names.index("FakeClue")}))


def _split(rows: list[dict], profile: str) -> Sheet:
    """FakeClue by category: fakes / real images of each split, release beside run."""
    head = ["Category"] + [f"{s} fake / real, release" for s in ("train", "test")]
    head += [f"{s} fake / real, this run ({profile})" for s in ("train", "val", "test")]
    owners = ["key", "release", "release", "run", "run", "run"]
    columns = [("release", "train"), ("release", "test"), ("run", "train"), ("run", "val"), ("run", "test")]
    cells = {(r["source"], r["split"], r["category"]): (r["fake"], r["real"]) for r in rows}
    lines = []
    for category, name in CATEGORY_NAMES.items():
        found = [cells.get((source, split, category)) for source, split in columns]
        if any(found):
            lines.append([name, *(f"{count(c[0])} / {count(c[1])}" if c else "–" for c in found)])
    sums = []
    for source, split in columns:
        pairs = [v for (a, b, _), v in cells.items() if (a, b) == (source, split)]
        sums.append(f"{count(sum(p[0] for p in pairs))} / {count(sum(p[1] for p in pairs))}")
    return Sheet(
        "FakeClue by category and split", head, owners, [*lines, ["all", *sums]], frozenset({len(lines)})
    )


def table1(published: Published, fakeclue: pd.DataFrame, params: Params) -> ReportTable:
    """Data sets (paper Table 1), and FakeClue's images by category in the release and in this run.

    Args:
        fakeclue: id, label, category, split of this run's FakeClue.
    """
    rows = [
        {"source": "paper", **row.model_dump(), "categories": "yes" if row.categories else "no"}
        for row in published.datasets.rows
    ]
    rows = [{k: v for k, v in row.items() if k != "at_least"} for row in rows]
    rows += _run_rows(fakeclue, params)
    split = _category_rows(fakeclue, published)
    tidy = pd.DataFrame([*rows, *split]).reindex(columns=list(COLUMNS))
    for column in ("images", "real", "fake", "rows"):
        tidy[column] = pd.to_numeric(tidy[column]).astype("Int64")
    sheets = [_compared(rows, params.profile), _split(split, params.profile)]
    notes = [note.note for note in published.datasets.notes]
    notes.append(
        "The release's counts are not printed in the paper; they are the released FakeClue's, counted."
    )
    return ReportTable("table1_datasets", "Table 1", published.datasets.caption, tidy, sheets, notes)
