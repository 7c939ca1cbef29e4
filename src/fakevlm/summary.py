"""The main numbers of the last run beside the paper's, and where the pictures are (`fakevlm summary`)."""

import os
from pathlib import Path

import pandas as pd
import yaml

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.reporting import tables
from fakevlm.reporting.published import TIDY
from fakevlm.reporting.texts import BENCHMARKS, METHOD, layout


def read_tidy(file: Path) -> pd.DataFrame:
    """Return a tidy table; raise a UserError where the file or a column is missing."""
    if not file.is_file():
        raise UserError(f"no {file}", "`make repro` draws every table and figure")
    frame = pd.read_csv(file)
    if missing := set(TIDY) - set(frame):
        raise UserError(f"{file} lacks {', '.join(sorted(missing))}", "`dvc repro -f report` draws it anew")
    return frame


def main_numbers(folder: Path) -> pd.DataFrame:
    """Return benchmark, method, metric, the paper's value and this run's with its interval."""
    stems = dict.fromkeys(main["table"] for main in layout()["main"])
    numbers = tables.main_numbers({stem: read_tidy(folder / f"{stem}.csv") for stem in stems})
    numbers = numbers[(numbers[["paper", "run"]] != "–").any(axis=1)].rename(columns={"run": "this run"})
    return numbers.replace({"benchmark": BENCHMARKS, "metric": layout()["names"]["words"]})


def render(folder: Path) -> str:
    """Return the summary as text, for the tables and pictures in `folder`."""
    profile = yaml.safe_load((paths.root() / "params.yaml").read_text(encoding="utf-8"))["profile"]
    numbers = main_numbers(folder).rename(columns={"this run": f"this run ({profile}) [95 % interval]"})
    names = ["benchmark", "method"]  # named once, for the first of their rows
    numbers[names] = numbers[names].mask(numbers.duplicated(names), "")
    place = os.path.relpath(folder, paths.root())
    lines = [numbers.to_markdown(index=False, tablefmt="simple", disable_numparse=True), ""]
    pictures = sorted(file.name for file in folder.glob("*.png"))
    lines += ["Pictures (each as .svg too):", *(f"  {place}/{name}" for name in pictures)]
    if (folder / "report.html").is_file():
        lines += ["Everything on one page, this run beside the paper:", f"  {place}/report.html"]
    return "\n".join(lines)


def markdown(folder: Path, method: str = METHOD) -> str:
    """Return a method's main numbers as a Markdown table: the paper's beside this run's."""
    numbers = main_numbers(folder)
    numbers = numbers[numbers["method"] == method].drop(columns="method")
    lines = ["| Benchmark | Metric | Paper | This run |", "|---|---|---:|---:|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in numbers.to_numpy()])
