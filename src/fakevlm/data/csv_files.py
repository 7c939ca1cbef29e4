"""Tables as CSV files that a spreadsheet opens without running what a file's name or a model's words hold."""

import re
from pathlib import Path

import pandas as pd

# What a spreadsheet takes for a formula. An apostrophe before it makes it a text; where one stands already,
# another is added, so that every text comes back as it was. Numbers stay.
_FORMULA = re.compile(r"\A(?='*(?:[=@\t\r]|[+\-](?![\d.]+\Z)))")
_MARKED = re.compile(r"\A'" + _FORMULA.pattern.removeprefix(r"\A"))


def _replaced(frame: pd.DataFrame, pattern: re.Pattern[str], by: str) -> pd.DataFrame:
    texts = frame.select_dtypes(exclude=["number", "bool"])
    return frame.assign(**texts.map(lambda cell: pattern.sub(by, cell) if isinstance(cell, str) else cell))


def write_csv(frame: pd.DataFrame, file: Path) -> None:
    """Write a table, with formulas as texts."""
    _replaced(frame, _FORMULA, "'").to_csv(file, index=False, lineterminator="\n")


def read_csv(file: Path) -> pd.DataFrame:
    """Return a table that `write_csv` wrote, or any other."""
    return _replaced(pd.read_csv(file), _MARKED, "")
