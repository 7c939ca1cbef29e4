"""The paper's printed numbers as typed data, with their contradictions noted beside them.

`published.yaml` holds what is printed; none of it is computed. `Published.frame()` gives a table in the tidy
shape of this project's own scores, as fractions.
"""

from functools import cache
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, model_validator

FILE = Path(__file__).with_name("published.yaml")
TIDY = ["method", "source", "benchmark", "subset", "metric", "value", "ci_low", "ci_high", "n"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Noted(_Strict):
    """Something printed, with a remark; `keep` marks a contradiction that the report lists."""

    note: str | None = None
    keep: bool = False


class Note(Noted):
    """A remark on a table's `cells` (benchmark/subset/metric); none: the whole row or table."""

    id: str
    cells: list[str] = []


class Row(_Strict):
    """A method's values as printed; `v2`: the camera-ready version's by column."""

    method: str
    values: list[float | None]
    v2: dict[str, float] = {}
    reference: int | None = None
    ours: bool = False
    expert: bool = False
    notes: list[Note] = []


class Table(_Strict):
    """One of Tables 2–8; `columns` are benchmark/subset/metric, `values` of a row follow them."""

    id: str
    caption: str
    scale: Literal["fraction", "percent"]
    columns: list[str]
    rows: list[Row]
    notes: list[Note] = []

    @model_validator(mode="after")
    def _rectangular(self) -> "Table":
        if wrong := [column for column in self.columns if column.count("/") != 2]:
            raise ValueError(f"{self.id}: not benchmark/subset/metric: {wrong}")
        for row in self.rows:
            if len(row.values) != len(self.columns):
                sizes = f"{len(row.values)} values, {len(self.columns)} columns"
                raise ValueError(f"{self.id}, row {row.method}: {sizes}")
            named = {*row.v2, *(cell for note in row.notes for cell in note.cells)}
            if unknown := named - set(self.columns):
                raise ValueError(f"{self.id}, row {row.method}: no such column {sorted(unknown)}")
        return self

    @property
    def number(self) -> str:
        """Return its name in print, e.g. `Table 2`."""
        return self.id.replace("table", "Table ")

    def all_notes(self) -> list[Note]:
        return [*self.notes, *(note for row in self.rows for note in row.notes)]

    def values(self) -> pd.DataFrame:
        """Return the printed values as fractions: methods × columns, NaN for a dash."""
        rows, methods = [row.values for row in self.rows], [row.method for row in self.rows]
        printed = pd.DataFrame(rows, methods, self.columns, dtype=float)
        return (printed / 100).round(6) if self.scale == "percent" else printed


class Dataset(_Strict):
    """A row of Table 1; `number` as printed."""

    dataset: str
    field: str
    artifact: str
    annotator: str
    categories: bool
    number: str


class Datasets(_Strict):
    """Table 1."""

    caption: str
    rows: list[Dataset]
    notes: list[Note]


class Claim(Noted):
    """A number printed in prose, with the section that prints it; `v2` is the camera-ready version's."""

    id: str
    section: str
    value: float
    text: str
    v2: float | None = None


class Setting(Noted):
    """A setting; `v2` (camera-ready) and `released` (the authors' script) where they differ."""

    value: str | int | float
    v2: float | None = None
    released: str | float | None = None


class PaperFigure(Noted):
    """A figure of the paper; `where` as the page names it."""

    where: str
    caption: str


class Release(_Strict):
    """The released FakeClue and its weights' answers on the test split: not printed in the paper."""

    fakeclue: dict[str, list[int]]  # category → images: train fake, train real, test fake, test real
    fakeclue_accuracy: dict[str, float]  # by category
    fakeclue_answers: dict[str, int]  # `fake_as_real`: fakes called real

    def frame(self) -> pd.DataFrame:
        """Return category, split, label (1 real, 0 fake), n: one row a category, split and label."""
        cells = pd.MultiIndex.from_product([["train", "test"], [0, 1]], names=["split", "label"])
        counts = pd.DataFrame.from_dict(self.fakeclue, orient="index", columns=cells)
        return counts.rename_axis("category").stack(["split", "label"]).rename("n").reset_index()


class Published(_Strict):
    """Everything that the paper prints."""

    paper: dict[str, str]
    datasets: Datasets
    tables: list[Table]
    figures: list[PaperFigure]
    claims: list[Claim]
    training: dict[str, Setting]
    release: Release

    @model_validator(mode="after")
    def _distinct(self) -> "Published":
        notes = [*self.datasets.notes, *(note for table in self.tables for note in table.all_notes())]
        ids = pd.Series([entry.id for entry in (*notes, *self.claims)])
        if ids.duplicated().any():
            raise ValueError(f"ids used twice: {', '.join(ids[ids.duplicated()])}")
        return self

    def table(self, name: str) -> Table:
        """Return a table by id (`table2` … `table8`)."""
        return next(table for table in self.tables if table.id == name)

    def claim(self, name: str) -> Claim:
        return next(claim for claim in self.claims if claim.id == name)

    def frame(self, name: str) -> pd.DataFrame:
        """Return a table's printed values, tidy (`TIDY`), as fractions, without its dashes."""
        values = self.table(name).values().rename_axis(index="method", columns="column")
        frame = values.stack().dropna().rename("value").reset_index()
        frame[["benchmark", "subset", "metric"]] = frame["column"].str.split("/", expand=True)
        return frame.assign(source="paper").reindex(columns=TIDY)

    def column(self, name: str, column: str) -> dict[str, float]:
        """Return one column of a table as fractions, by method, without the dashes."""
        return self.table(name).values()[column].dropna().to_dict()

    def contradictions(self) -> list[tuple[str, Noted]]:
        """Return where each contradiction stands and its entry, in the paper's order."""
        entries: list[tuple[str, Noted]] = [("Table 1", note) for note in self.datasets.notes]
        entries += [(table.number, note) for table in self.tables for note in table.all_notes()]
        entries += [(figure.where, figure) for figure in self.figures]
        entries += [(f"Section {claim.section}", claim) for claim in self.claims]
        entries += [("Section 4.3", setting) for setting in self.training.values()]
        return [(where, entry) for where, entry in entries if entry.keep]


@cache
def load_published(file: Path = FILE) -> Published:
    """Return the paper's numbers.

    Raises:
        pydantic.ValidationError: a row, key or type does not fit; the message names it.
    """
    with file.open(encoding="utf-8") as stream:
        return Published.model_validate(yaml.safe_load(stream))
