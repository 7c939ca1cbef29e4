"""What a run ends with: the main numbers beside the paper's, and where the pictures are (`fakevlm summary`).

Reads the tidy tables of `figures/` (`table*.csv`: method, source = paper|run, benchmark, [subset,] metric, value, ci_low,
ci_high, n) with the standard library alone, so that it costs nothing at the end of a run with nothing to do.
"""

import csv
import math
from pathlib import Path

from fakevlm import paths
from fakevlm.errors import UserError

WHOLE = ("all", "Overall", "Average")  # how the tables call a benchmark as a whole
METRICS = {
    "acc": "accuracy",
    "f1": "F1",
    "auc": "AUC",
    "rouge_l": "ROUGE-L",
    "css": "CSS",
    "clue_precision": "clue precision",
    "clue_recall": "clue recall",
}
# (table, benchmark, its name in print, method, metrics)
MAIN = (
    ("table2_fakeclue_loki", "fakeclue", "FakeClue", "FakeVLM", tuple(METRICS)),
    ("table2_fakeclue_loki", "fakeclue", "FakeClue", "LLaVA (untuned)", ("acc", "auc")),
    ("table2_fakeclue_loki", "loki", "LOKI", "FakeVLM", ("acc", "f1", "rouge_l", "css")),
    ("table3_dmimage", "dmimage", "DMimage", "FakeVLM", ("acc", "f1")),
    ("table4_ddvqa", "ddvqa", "DD-VQA", "FakeVLM", ("acc", "f1", "rouge_l", "css")),
    ("table5_ffpp", "ffpp", "FF++", "FakeVLM", ("auc",)),
    ("table6_ablation", "loki", "LOKI", "LLaVA + Linear Head", ("acc", "f1")),
    ("table6_ablation", "loki", "LOKI", "LLaVA + Explanatory Text", ("acc", "f1")),
)


def read_tidy(file: Path) -> list[dict[str, str]]:
    """The rows of a tidy table that speak of a whole benchmark.

    Raises:
        UserError: the file is missing or lacks a column.
    """
    if not file.is_file():
        raise UserError(f"no {file}", "`make repro` draws every table and figure")
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    missing = {"method", "source", "benchmark", "metric", "value"} - set(rows[0] if rows else ())
    if missing:
        raise UserError(f"{file} lacks {', '.join(sorted(missing))}", "`dvc repro -f report` draws it anew")
    return [row for row in rows if row.get("subset", "all") in WHOLE]


def _number(row: dict[str, str], key: str) -> float:
    return float(row.get(key) or "nan")


def _text(row: dict[str, str] | None) -> str:
    """`0.905`, with its 95 % interval `0.905 [0.881, 0.927]` where there is one; a dash for nothing."""
    if row is None or math.isnan(_number(row, "value")):
        return "–"
    low, high = _number(row, "ci_low"), _number(row, "ci_high")
    interval = "" if math.isnan(low) or math.isnan(high) else f" [{low:.3f}, {high:.3f}]"
    return f"{_number(row, 'value'):.3f}{interval}"


def main_numbers(folder: Path) -> list[tuple[str, str, str, str, str]]:
    """(benchmark, method, metric, the paper's value, this run's) in the paper's order; what neither has is left out."""
    tables: dict[str, list[dict[str, str]]] = {}
    numbers = []
    for table, benchmark, name, method, metrics in MAIN:
        if table not in tables:
            tables[table] = read_tidy(folder / f"{table}.csv")
        found = {
            (row["source"], row["metric"]): row
            for row in tables[table]
            if row["benchmark"] == benchmark and row["method"] == method
        }
        for metric in metrics:
            paper, run = (_text(found.get((source, metric))) for source in ("paper", "run"))
            if (paper, run) != ("–", "–"):
                numbers.append((name, method, METRICS[metric], paper, run))
    return numbers


def _profile() -> str:
    lines = (paths.root() / "params.yaml").read_text(encoding="utf-8").splitlines()
    return next(
        (line.split(":")[1].split("#")[0].strip() for line in lines if line.startswith("profile:")), "?"
    )


def render(folder: Path) -> str:
    """Return the summary as text, for the tables and pictures in `folder`."""
    profile = _profile()
    head = ("benchmark", "method", "metric", "paper", f"this run ({profile}) [95 % interval]")
    numbers = main_numbers(folder)
    widths = [max(len(row[i]) for row in [head, *numbers]) for i in range(len(head))]
    lines, shown = [], ("", "")
    for row in [head, *numbers]:
        cells = ("", "", *row[2:]) if row[:2] == shown else row  # a benchmark and its method are named once
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
        shown = row[:2]
    lines.insert(1, "  ".join("─" * width for width in widths))
    pictures = sorted(folder.glob("*.png"))
    lines += ["", "Pictures (each as .svg too):", *(f"  {_short(picture)}" for picture in pictures)]
    if (folder / "report.html").is_file():
        lines += ["Everything on one page, this run beside the paper:", f"  {_short(folder / 'report.html')}"]
    return "\n".join(lines)


def markdown(folder: Path, method: str = "FakeVLM") -> str:
    """Return a method's main numbers as a Markdown table: the paper's beside this run's."""
    lines = ["| Benchmark | Metric | Paper | This run |", "|---|---|---:|---:|"]
    lines += [
        f"| {benchmark} | {metric} | {paper} | {run} |"
        for benchmark, row_method, metric, paper, run in main_numbers(folder)
        if row_method == method
    ]
    return "\n".join(lines)


def _short(file: Path) -> str:
    return str(file.relative_to(paths.root())) if file.is_relative_to(paths.root()) else str(file)
