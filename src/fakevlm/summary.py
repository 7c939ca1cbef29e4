"""What a run ends with: the main numbers beside the paper's, and where the pictures are (`fakevlm summary`).

Reads the tidy tables of `figures/` (`table*.csv`; `source` is paper or run).
"""

from pathlib import Path

import pandas as pd
import yaml

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.reporting.texts import fmt

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


def read_tidy(file: Path) -> pd.DataFrame:
    """Return the rows of a tidy table about a whole benchmark.

    Raises:
        UserError: the file is missing or lacks a column.
    """
    if not file.is_file():
        raise UserError(f"no {file}", "`make repro` draws every table and figure")
    frame = pd.read_csv(file)
    if missing := {"method", "source", "benchmark", "subset", "metric", "value"} - set(frame):
        raise UserError(f"{file} lacks {', '.join(sorted(missing))}", "`dvc repro -f report` draws it anew")
    return frame[frame["subset"].isin(WHOLE)]


def main_numbers(folder: Path) -> list[tuple[str, str, str, str, str]]:
    """Return (benchmark, method, metric, the paper's value, this run's), without empty pairs."""
    tables = {table: read_tidy(folder / f"{table}.csv") for table in dict.fromkeys(row[0] for row in MAIN)}
    numbers = []
    for table, benchmark, name, method, metrics in MAIN:
        frame = tables[table]
        frame = frame[(frame["benchmark"] == benchmark) & (frame["method"] == method)]
        columns = (frame[column].tolist() for column in ("source", "metric", "value", "ci_low", "ci_high"))
        cells = {(source, metric): fmt(*values) for source, metric, *values in zip(*columns, strict=True)}
        for metric in metrics:
            paper, run = (cells.get((source, metric), "–") for source in ("paper", "run"))
            if (paper, run) != ("–", "–"):
                numbers.append((name, method, METRICS[metric], paper, run))
    return numbers


def render(folder: Path) -> str:
    """Return the summary as text, for the tables and pictures in `folder`."""
    profile = yaml.safe_load((paths.root() / "params.yaml").read_text(encoding="utf-8"))["profile"]
    head = ("benchmark", "method", "metric", "paper", f"this run ({profile}) [95 % interval]")
    rows = [head, *main_numbers(folder)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines, shown = [], ("", "")
    for row in rows:
        cells = ("", "", *row[2:]) if row[:2] == shown else row  # a benchmark and its method are named once
        lines.append("  ".join(map(str.ljust, cells, widths)).rstrip())
        shown = row[:2]
    lines.insert(1, "  ".join("─" * width for width in widths))
    lines += [
        "",
        "Pictures (each as .svg too):",
        *(f"  {_short(file)}" for file in sorted(folder.glob("*.png"))),
    ]
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
