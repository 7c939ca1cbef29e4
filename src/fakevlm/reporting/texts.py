"""report.yaml: the report's layout, its sentences (Jinja templates) and the names of things in print."""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

FILE, TEMPLATES = (Path(__file__).with_name(name) for name in ("report.yaml", "templates"))
METHOD, UNTUNED = "FakeVLM", "LLaVA (untuned)"  # the paper's own method, and its base before tuning
TIDY = ["method", "source", "benchmark", "subset", "metric", "value", "ci_low", "ci_high", "n"]
VALUE = ("value", "ci_low", "ci_high")
LABELS = {0: "fake", 1: "real"}
MANIPULATIONS = {"FF-DF": "Deepfakes", "FF-F2F": "Face2Face", "FF-FS": "FaceSwap", "FF-NT": "NeuralTextures"}


@cache
def layout() -> dict[str, Any]:
    """Return the content of report.yaml."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


BENCHMARKS: dict[str, str] = layout()["names"]["benchmarks"]
METRICS: dict[str, str] = layout()["names"]["metrics"]
CATEGORY_NAMES: dict[str, str] = layout()["names"]["categories"]


def percent(value: float) -> str:
    """0.873 → "87 %"."""
    return f"{100 * value:.0f} %"


def count(number: int | float) -> str:
    """1234567 → "1,234,567"."""
    return f"{int(number):,}"


def fmt(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """0.9051 → `0.905`, with its interval `0.905 [0.881, 0.927]`; a dash for nothing."""
    value, low, high = (math.nan if number is None else number for number in (value, low, high))
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if math.isnan(low + high) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def main_numbers(tidy: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, str]]:
    """Return the numbers that `main` in report.yaml names, as text; `tidy` has rows by their files' stems.

    The keys are benchmark, method, metric, paper, run.
    """
    numbers = []
    for main in layout()["main"]:
        where = {key: main[key] for key in ("benchmark", "subset", "method")}
        rows = [row for row in tidy[main["table"]] if where.items() <= row.items()]
        cells = {(row["metric"], row["source"]): fmt(*(row[key] for key in VALUE)) for row in rows}
        for metric in main["metrics"]:
            number = {"benchmark": main["benchmark"], "method": main["method"], "metric": metric}
            numbers.append(number | {source: cells.get((metric, source), "–") for source in ("paper", "run")})
    return numbers


def listed(names: list[str]) -> str:
    """["a", "b", "c"] → "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def numbers(values: dict[str, float]) -> str:
    """{"a": 0.5, "b": 0.25} → "a 0.500, b 0.250"."""
    return ", ".join(f"{name} {value:.3f}" for name, value in values.items())


def environment(**options: Any) -> Environment:
    """Return a Jinja environment with the report's templates and filters; an unknown slot is an error."""
    loader = FileSystemLoader(TEMPLATES)
    jinja = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, **options)
    jinja.filters |= {f.__name__: f for f in (percent, count, listed, numbers, fmt)}
    return jinja


def render(template: str, **facts: Any) -> str:
    """Return a Markdown or YAML template of `templates/` with its slots filled."""
    return environment(trim_blocks=True).get_template(template).render(**facts)


def fill(sentence: str, **facts: Any) -> str:
    """Return a sentence of report.yaml with its slots filled."""
    return environment().from_string(sentence).render(**facts)


def sentences(templates: list[str], **facts: Any) -> list[str]:
    """Return the sentences that are not empty once their slots are filled."""
    return [text for text in (fill(template, **facts) for template in templates) if text]
