"""Tables as CSV files: no spreadsheet runs a text, and every text comes back."""

from pathlib import Path

import pandas as pd

from fakevlm.data.csv_files import read_csv, write_csv


def test_a_formula_is_a_text_to_a_spreadsheet_and_comes_back(tmp_path: Path) -> None:
    formulas = ["=1+1", "+49 30", "-x.jpg", "@SUM(A1)", "\t=1", "'=1", "''@", "=cmd|'/c calc'!A0"]
    others = ["-5", "+.5", "'quoted", "a=b", "–", "", None]
    frame = pd.DataFrame({"text": formulas + others, "n": -1, "value": -1.5, "flag": True})
    write_csv(frame, tmp_path / "a.csv")
    written = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    assert written["text"].tolist() == [f"'{text}" for text in formulas] + [text or "" for text in others]
    back = read_csv(tmp_path / "a.csv").fillna({"text": ""})
    assert back.to_dict("list") == frame.fillna({"text": ""}).to_dict("list")
