"""The report's layout and sentences (`report.yaml`), filled in by Jinja, and the names of things in print."""

from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, StrictUndefined

FOLDER = Path(__file__).parent
METHOD, UNTUNED = "FakeVLM", "LLaVA (untuned)"  # the paper's own method, and its base before tuning
BENCHMARKS = {
    "fakeclue": "FakeClue",
    "loki": "LOKI",
    "dmimage": "DMimage",
    "ddvqa": "DD-VQA",
    "ffpp": "FF++",
}
METRICS = {
    "acc": "Acc",
    "f1": "F1",
    "f1_real": "F1 (real)",
    "f1_fake": "F1 (fake)",
    "f1_macro": "F1 (macro)",
    "auc": "AUC",
    "rouge_l": "ROUGE-L",
    "css": "CSS",
    "clue_precision": "Clue precision",
    "clue_recall": "Clue recall",
    "acc_forced": "Acc, forced",
    "f1_real_forced": "F1 (real), forced",
    "unparsed": "Unparsed",
}
CATEGORY_NAMES = {
    "animal": "animals",
    "human": "people",
    "object": "objects",
    "scene": "scenery",
    "satellite": "satellite",
    "doc": "documents",
    "deepfake": "deepfake",
    "medicine": "medicine",
}
LABELS = {0: "fake", 1: "real"}


def percent(value: float) -> str:
    """0.873 → "87 %"."""
    return f"{100 * value:.0f} %"


def count(number: int | float) -> str:
    """1234567 → "1,234,567"."""
    return f"{int(number):,}"


def fmt(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """0.9051 → `0.905`, with its interval `0.905 [0.881, 0.927]`; a dash for nothing."""
    if value is None or pd.isna(value):
        return "–"
    text = f"{value:.3f}"
    if low is not None and high is not None and pd.notna(low) and pd.notna(high):
        text += f" [{low:.3f}, {high:.3f}]"
    return text


def listed(names: list[str]) -> str:
    """["a", "b", "c"] → "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def environment(**options: Any) -> Environment:
    """Return a Jinja environment with the report's filters; an unknown slot is an error."""
    jinja = Environment(undefined=StrictUndefined, keep_trailing_newline=True, **options)
    jinja.filters |= {"percent": percent, "count": count, "listed": listed}
    return jinja


@cache
def layout() -> dict[str, Any]:
    """Return the content of report.yaml."""
    return yaml.safe_load((FOLDER / "report.yaml").read_text(encoding="utf-8"))


_ENVIRONMENT = environment()


def fill(sentence: str, **facts: Any) -> str:
    """Return a sentence of report.yaml with its slots filled."""
    return _ENVIRONMENT.from_string(sentence).render(**facts)


def sentences(templates: list[str], **facts: Any) -> list[str]:
    """Return the sentences that are not empty once their slots are filled."""
    return [text for text in (fill(template, **facts) for template in templates) if text]
