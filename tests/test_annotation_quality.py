"""Clue quality and agreement on texts whose numbers can be counted by hand."""

import math

import pandas as pd
import pytest

from fakevlm.annotation.quality import (
    AGREEMENT_COLUMNS,
    QUALITY_COLUMNS,
    Agreement,
    ClueQuality,
    named_kinds,
)
from fakevlm.data.clues import KINDS
from fakevlm.data.ground_truth import Artifact, GroundTruth
from fakevlm.data.records import FAKE, REAL

BOX = (0.0, 0.0, 1.0, 1.0)
TRUTHS = {
    "a": GroundTruth("a", FAKE, "animal", [Artifact("smooth", BOX, 1.0), Artifact("halo", BOX, 1.0)]),
    "b": GroundTruth("b", FAKE, "animal", [Artifact("melt", BOX, 1.0), Artifact("melt", BOX, 0.5)]),
    "hidden": GroundTruth("hidden", FAKE, "animal"),
    "r": GroundTruth("r", REAL, "animal"),
}
ONE = {
    "a": "The fur is waxy. A grid covers it.",
    "b": "",
    "hidden": "A halo.",
    "r": "a bright halo; waxy fur",
}
TWO = {"a": "A halo surrounds it; the fur is waxy", "b": "the outline melts", "r": "no halo at all"}


def about(texts: dict[str, dict[str, str]], key: str) -> dict[str, set[str]]:
    return named_kinds({author: said[key] for author, said in texts.items() if key in said})


def clue_quality(texts: dict[str, dict[str, str]], truths: dict[str, GroundTruth]) -> pd.DataFrame:
    counted = ClueQuality(list(texts))
    for key, truth in truths.items():
        counted.add(truth, about(texts, key))
    return counted.table()


def agreement(texts: dict[str, dict[str, str]], fakes: list[str]) -> pd.DataFrame:
    counted = Agreement(list(texts))
    for key in fakes:
        counted.add(about(texts, key))
    return counted.table()


def test_precision_recall_and_spurious_clues() -> None:
    table = clue_quality({"one": ONE, "two": TWO, "none": {}}, TRUTHS).set_index("annotator")
    assert ["annotator", *table.columns] == QUALITY_COLUMNS
    one, two, none = table.loc["one"], table.loc["two"], table.loc["none"]
    assert (one.precision, one.recall) == (1 / 2, 1 / 3)
    assert one.f1 == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert one.spurious_per_real == 2
    assert (two.precision, two.recall, two.f1, two.spurious_per_real) == (1, 1, 1, 0)
    assert (none.precision, none.recall, none.f1) == (0, 0, 0)
    assert list(table.n) == [2, 2, 2]
    assert list(table.n_real) == [1, 1, 1]


def test_without_truth_the_table_is_empty_and_keeps_its_columns() -> None:
    assert list(clue_quality({"one": ONE}, {}).columns) == list(QUALITY_COLUMNS)
    assert clue_quality({"one": ONE}, {}).empty


def test_agreement_of_two() -> None:
    (row,) = agreement({"one": ONE, "two": TWO}, ["a", "b", "hidden"]).to_dict("records")
    assert list(row) == AGREEMENT_COLUMNS
    assert row["n"] == 3
    assert row["jaccard"] == pytest.approx((1 / 3 + 0 + 0) / 3)
    total = 3 * len(KINDS)  # yes: one 3 times, two 3 times, both once
    chance = (3 * 3 + (total - 3) ** 2) / total**2
    assert row["kappa"] == pytest.approx(((total - 4) / total - chance) / (1 - chance))


def test_agreement_with_oneself_is_one_and_of_the_silent_undefined() -> None:
    (row,) = agreement({"one": ONE, "again": ONE}, ["a", "b"]).to_dict("records")
    assert (row["jaccard"], row["kappa"], row["n"]) == (1, 1, 1)
    (row,) = agreement({"x": {}, "y": {}}, ["a"]).to_dict("records")
    assert (row["jaccard"], row["n"]) == (0, 0)
    assert math.isnan(row["kappa"])
    assert agreement({"one": ONE}, ["a"]).empty
