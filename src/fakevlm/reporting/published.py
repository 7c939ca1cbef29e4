"""The paper's printed numbers with their contradictions: published.yaml, whose head explains its entries."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fakevlm.reporting.texts import TIDY

FILE = Path(__file__).with_name("published.yaml")
Entry = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """Everything that the paper prints; `frame` and `values` give Tables 2–8 (`table2` …) as fractions."""

    paper: dict[str, str]
    datasets: Entry  # Table 1
    tables: dict[str, Entry]
    figures: list[Entry]
    claims: dict[str, Entry]  # numbers in prose
    training: dict[str, Entry]
    release: Entry  # not printed: the released FakeClue, and its weights' answers on the test split

    def values(self, name: str) -> pd.DataFrame:
        """Return a table's printed values: methods × benchmark/subset/metric, NaN for a dash."""
        table = self.tables[name]
        rows, methods = [row["values"] for row in table["rows"]], [row["method"] for row in table["rows"]]
        printed = pd.DataFrame(rows, methods, table["columns"], dtype=float)
        return (printed / 100).round(6) if table["scale"] == "percent" else printed

    def frame(self, name: str) -> pd.DataFrame:
        """Return a table's printed values in the tidy shape of this project's scores, without its dashes."""
        values = self.values(name).rename_axis(index="method", columns="column")
        frame = values.stack().dropna().rename("value").reset_index()
        frame[["benchmark", "subset", "metric"]] = frame["column"].str.split("/", expand=True)
        return frame.assign(source="paper").reindex(columns=TIDY)

    def notes(self, name: str) -> list[Entry]:
        """Return the notes on a table and on its rows."""
        table = self.tables[name]
        return [note for part in (table, *table["rows"]) for note in part.get("notes", [])]

    def contradictions(self) -> list[tuple[str, Entry]]:
        """Return where each contradiction stands and its entry, in the paper's order."""
        entries = [("Table 1", note) for note in self.datasets["notes"]]
        for name in self.tables:
            entries += [(name.replace("table", "Table "), note) for note in self.notes(name)]
        entries += [(figure["where"], figure) for figure in self.figures]
        entries += [(f"Section {claim['section']}", claim) for claim in self.claims.values()]
        entries += [("Section 4.3", setting) for setting in self.training.values()]
        return [(where, entry) for where, entry in entries if entry.get("keep")]

    def released(self) -> pd.DataFrame:
        """Return category, split, label (1 real, 0 fake), n: the released FakeClue's images."""
        cells = pd.MultiIndex.from_product([["train", "test"], [0, 1]], names=["split", "label"])
        counts = pd.DataFrame.from_dict(self.release["fakeclue"], orient="index", columns=cells)
        return counts.rename_axis("category").stack(["split", "label"]).rename("n").reset_index()


@cache
def load_published() -> Published:
    """Return the paper's numbers."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    by_id = {key: {entry["id"]: entry for entry in content[key]} for key in ("tables", "claims")}
    return Published(**(content | by_id))
