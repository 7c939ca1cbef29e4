"""The main numbers of the last run beside the paper's, and where the pictures are (`fakevlm summary`)."""

import csv
import math
import os
from pathlib import Path

import yaml
from tabulate import tabulate

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.reporting import texts
from fakevlm.reporting.texts import BENCHMARKS, METHOD, TIDY, VALUE, layout


def read_tidy(file: Path) -> list[dict]:
    """Return the rows of a tidy table; raise a UserError where the file or a column is missing."""
    if not file.is_file():
        raise UserError(f"no {file}", "`make repro` draws every table and figure")
    with file.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines)
        if missing := set(TIDY) - set(table.fieldnames or ()):
            what = f"{file} lacks {', '.join(sorted(missing))}"
            raise UserError(what, "`dvc repro -f report` draws it anew")
        return [row | {key: float(row[key] or math.nan) for key in VALUE} for row in table]


def main_numbers(folder: Path) -> list[list[str]]:
    """Return benchmark, method, metric, the paper's value and this run's with its interval."""
    stems = dict.fromkeys(main["table"] for main in layout()["main"])
    rows = texts.main_numbers({stem: read_tidy(folder / f"{stem}.csv") for stem in stems})
    names = BENCHMARKS | layout()["names"]["words"]
    numbers = [[names.get(text, text) for text in row.values()] for row in rows]
    return [number for number in numbers if number[-2:] != ["–", "–"]]


def render(folder: Path) -> str:
    """Return the summary as text, for the tables and pictures in `folder`."""
    profile = yaml.safe_load((paths.root() / "params.yaml").read_text(encoding="utf-8"))["profile"]
    rows, before = [], None
    for benchmark, method, *rest in main_numbers(folder):  # named once, for the first of their rows
        rows.append(["", "", *rest] if (benchmark, method) == before else [benchmark, method, *rest])
        before = (benchmark, method)
    head = ["benchmark", "method", "metric", "paper", f"this run ({profile}) [95 % interval]"]
    place = os.path.relpath(folder, paths.root())
    lines = [tabulate(rows, head, tablefmt="simple", disable_numparse=True), ""]
    pictures = sorted(file.name for file in folder.glob("*.png"))
    lines += ["Pictures (each as .svg too):", *(f"  {place}/{name}" for name in pictures)]
    if (folder / "report.html").is_file():
        lines += ["Everything on one page, this run beside the paper:", f"  {place}/report.html"]
    return "\n".join(lines)


def markdown(folder: Path) -> str:
    """Return FakeVLM's main numbers as a Markdown table: the paper's beside this run's."""
    rows = [[name, *rest] for name, of, *rest in main_numbers(folder) if of == METHOD]
    lines = ["| Benchmark | Metric | Paper | This run |", "|---|---|---:|---:|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
