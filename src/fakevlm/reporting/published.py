"""The paper's printed numbers as typed data, with the contradictions noted beside them.

`published.yaml` holds what is printed; none of it is computed. `Published.frame()` gives
the tables in the tidy shape of this project's own scores, as fractions.
"""

from functools import cache
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fakevlm.errors import UserError

FILE = Path(__file__).with_name("published.yaml")
TIDY = ["method", "source", "benchmark", "subset", "metric", "value", "ci_low", "ci_high", "n"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Note(_Strict):
    """A remark on printed numbers; `keep` marks a contradiction that the report lists.

    `cells` are benchmark/subset/metric as in the table's columns; empty means the whole row or table.
    """

    id: str
    note: str
    cells: list[str] = Field(default_factory=list)
    keep: bool = False


class Row(_Strict):
    """A method's values as printed; `v2`: the camera-ready version's by column."""

    method: str
    values: list[float | None]
    v2: dict[str, float] = Field(default_factory=dict)
    reference: int | None = None
    ours: bool = False
    expert: bool = False
    notes: list[Note] = Field(default_factory=list)


class Table(_Strict):
    """One of Tables 2–8; `columns` are benchmark/subset/metric, `values` of a row follow them."""

    id: str
    caption: str
    scale: Literal["fraction", "percent"]
    columns: list[str]
    rows: list[Row]
    notes: list[Note] = Field(default_factory=list)

    @model_validator(mode="after")
    def _rectangular(self) -> "Table":
        for column in self.columns:
            if column.count("/") != 2:
                raise ValueError(f"{self.id}: column {column!r} is not benchmark/subset/metric")
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(
                    f"{self.id}, row {row.method}: {len(row.values)} values, {len(self.columns)} columns"
                )
            named = {*row.v2, *(cell for note in row.notes for cell in note.cells)}
            if unknown := named - set(self.columns):
                raise ValueError(f"{self.id}, row {row.method}: no such column {sorted(unknown)}")
        return self

    @property
    def number(self) -> str:
        return f"Table {self.id.removeprefix('table')}"

    def all_notes(self) -> list[Note]:
        return [*self.notes, *(note for row in self.rows for note in row.notes)]

    def printed(self, method: str, column: str) -> float | None:
        """Return the value as printed, in the table's own scale.

        Raises:
            KeyError: no such row or column.
        """
        values = {row.method: dict(zip(self.columns, row.values, strict=True)) for row in self.rows}
        return values[method][column]


class Dataset(_Strict):
    """A row of Table 1; `number` as printed."""

    dataset: str
    field: str
    artifact: str
    annotator: str
    categories: bool
    number: str


class Datasets(_Strict):
    id: Literal["table1"]
    caption: str
    rows: list[Dataset]
    notes: list[Note] = Field(default_factory=list)


class Claim(_Strict):
    """A number printed in prose, with the section that prints it; `v2` is the camera-ready version's."""

    id: str
    section: str
    value: float
    text: str
    v2: float | str | None = None
    note: str | None = None
    keep: bool = False


class Setting(_Strict):
    """A setting; `v2` (camera-ready) and `released` (the authors' script) where they differ."""

    value: str | int | float
    v2: str | int | float | None = None
    released: str | int | float | None = None
    note: str | None = None
    keep: bool = False


class PaperFigure(_Strict):
    id: str
    caption: str
    note: str | None = None
    keep: bool = False


class Release(_Strict):
    """The released FakeClue and its weights: not printed in the paper.

    Attributes:
        fakeclue: category → images: train fake, train real, test fake, test real.
        fakeclue_accuracy: category → accuracy of the released weights on the test split.
        fakeclue_answers: how the released weights answer on it (`fake_as_real`: a fake called real).
    """

    fakeclue: dict[str, list[int]]
    fakeclue_accuracy: dict[str, float]
    fakeclue_answers: dict[str, int]

    def frame(self) -> pd.DataFrame:
        """One row a category, split and label: category, split, label (1 real, 0 fake), n."""
        cells = [("train", 0), ("train", 1), ("test", 0), ("test", 1)]
        rows = [
            (category, split, label, counts[i])
            for category, counts in self.fakeclue.items()
            for i, (split, label) in enumerate(cells)
        ]
        return pd.DataFrame(rows, columns=["category", "split", "label", "n"])


class Paper(_Strict):
    title: str
    method: str
    dataset: str


class Published(_Strict):
    """All that the paper prints."""

    paper: Paper
    datasets: Datasets
    tables: list[Table]
    figures: list[PaperFigure]
    claims: list[Claim]
    training: dict[str, Setting]
    release: Release

    @model_validator(mode="after")
    def _distinct(self) -> "Published":
        ids = [note.id for table in self.tables for note in table.all_notes()]
        ids += [note.id for note in self.datasets.notes] + [claim.id for claim in self.claims]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f"ids used twice: {', '.join(twice)}")
        return self

    def table(self, name: str) -> Table:
        """Table by id (`table2` … `table8`)."""
        return next(table for table in self.tables if table.id == name)

    def claim(self, name: str) -> Claim:
        return next(claim for claim in self.claims if claim.id == name)

    def frame(self, name: str) -> pd.DataFrame:
        """Return a table's printed values, tidy (`TIDY`), as fractions, without its dashes."""
        table = self.table(name)
        scale = 100 if table.scale == "percent" else 1
        rows = [
            (row.method, "paper", *column.split("/"), round(value / scale, 6), None, None, None)
            for row in table.rows
            for column, value in zip(table.columns, row.values, strict=True)
            if value is not None
        ]
        return pd.DataFrame(rows, columns=TIDY)

    def column(self, name: str, column: str) -> dict[str, float]:
        """Return one column of a table as fractions, by method, without the dashes."""
        frame = self.frame(name)
        frame = frame[frame.benchmark + "/" + frame.subset + "/" + frame.metric == column]
        return dict(zip(frame.method, frame.value, strict=True))

    def contradictions(self) -> list[tuple[str, str]]:
        """(where, note) of every note marked as a contradiction, in the paper's order."""
        found = [("Table 1", note.note) for note in self.datasets.notes if note.keep]
        for table in self.tables:
            found += [(table.number, note.note) for note in table.all_notes() if note.keep]
        for figure in self.figures:
            if figure.keep and figure.note:
                where = figure.id.replace("fig", "Figure ") if figure.id.startswith("fig") else "Supplement"
                found.append((where, figure.note))
        found += [
            (f"Section {claim.section}", f"Printed: {claim.text}, {claim.value:g}. {claim.note}")
            for claim in self.claims
            if claim.keep and claim.note
        ]
        found += [("Section 4.3", s.note) for s in self.training.values() if s.keep and s.note]
        return found


@cache
def load_published(file: Path = FILE) -> Published:
    """The paper's numbers.

    Raises:
        UserError: the file is missing, not YAML, or a row, key or type does not fit; the message names it.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(
            f"{file} is not readable YAML: {error}", f"restore it: git checkout {file.name}"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no sections", f"restore it: git checkout {file.name}")
    try:
        return Published(**content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise UserError(f"{file.name} does not fit:\n  " + "\n  ".join(problems), f"edit {file}") from error
