"""The main numbers of the last run beside the paper's, and where the pictures are (`fakevlm summary`).

Reads the tidy tables of `figures/` (`table*.csv`; `source` is paper or run).
"""

from pathlib import Path

import pandas as pd
import yaml

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.reporting.texts import fmt

SUBSETS = ("all", "Overall", "Average")  # how the tables call a benchmark as a whole
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
    return frame[frame["subset"].isin(SUBSETS)]


def main_numbers(folder: Path) -> pd.DataFrame:
    """Return benchmark, method, metric, the paper's value and this run's with its interval."""
    rows = []
    tables = {table: read_tidy(folder / f"{table}.csv") for table in dict.fromkeys(row[0] for row in MAIN)}
    for table, benchmark, name, method, metrics in MAIN:
        frame = tables[table]
        frame = frame[(frame["benchmark"] == benchmark) & (frame["method"] == method)]
        keys = zip(frame["source"], frame["metric"], strict=True)
        texts = map(fmt, frame["value"], frame["ci_low"], frame["ci_high"])
        cells = dict(zip(keys, texts, strict=True))
        for metric in metrics:
            values = [cells.get((source, metric), "–") for source in ("paper", "run")]
            if values != ["–", "–"]:
                rows.append((name, method, METRICS[metric], *values))
    return pd.DataFrame(rows, columns=["benchmark", "method", "metric", "paper", "this run"])


def render(folder: Path) -> str:
    """Return the summary as text, for the tables and pictures in `folder`."""
    profile = yaml.safe_load((paths.root() / "params.yaml").read_text(encoding="utf-8"))["profile"]
    numbers = main_numbers(folder).rename(columns={"this run": f"this run ({profile}) [95 % interval]"})
    names = ["benchmark", "method"]
    numbers[names] = numbers[names].mask(
        numbers.duplicated(names), ""
    )  # a benchmark and its method are named once
    page = folder / "report.html"
    return "\n".join(
        [
            numbers.to_markdown(index=False, tablefmt="simple", disable_numparse=True),
            "",
            "Pictures (each as .svg too):",
            *(f"  {_short(file)}" for file in sorted(folder.glob("*.png"))),
            *(
                ["Everything on one page, this run beside the paper:", f"  {_short(page)}"]
                if page.is_file()
                else []
            ),
        ]
    )


def markdown(folder: Path, method: str = "FakeVLM") -> str:
    """Return a method's main numbers as a Markdown table: the paper's beside this run's."""
    numbers = main_numbers(folder)
    numbers = numbers[numbers["method"] == method].drop(columns="method")
    lines = ["| Benchmark | Metric | Paper | This run |", "|---|---|---:|---:|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in numbers.to_numpy()])


def _short(file: Path) -> str:
    return str(file.relative_to(paths.root())) if file.is_relative_to(paths.root()) else str(file)
