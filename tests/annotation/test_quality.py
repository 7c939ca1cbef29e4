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
GROUND_TRUTH = [
    GroundTruth("a", FAKE, "animal", [Artifact("smooth", BOX, 1.0), Artifact("halo", BOX, 1.0)]),
    GroundTruth("b", FAKE, "animal", [Artifact("melt", BOX, 1.0), Artifact("melt", BOX, 0.5)]),
    GroundTruth("hidden", FAKE, "animal"),
    GroundTruth("r", REAL, "animal"),
]
ONE = {
    "a": "The fur is waxy. A grid covers it.",
    "b": "",
    "hidden": "A halo.",
    "r": "a bright halo; waxy fur",
}
TWO = {"a": "A halo surrounds it; the fur is waxy", "b": "the outline melts", "r": "no halo at all"}


def named(texts: dict[str, dict[str, str]], key: str) -> dict[str, set[str]]:
    return named_kinds({author: by_id[key] for author, by_id in texts.items() if key in by_id})


def agreement(texts: dict[str, dict[str, str]], *fakes: str) -> pd.DataFrame:
    counts = Agreement(list(texts))
    for key in fakes:
        counts.add(named(texts, key))
    return counts.table()


def test_precision_recall_and_spurious_clues() -> None:
    texts = {"one": ONE, "two": TWO, "none": {}}
    quality = ClueQuality(list(texts))
    assert quality.table().empty
    assert list(quality.table()) == QUALITY_COLUMNS
    for truth in GROUND_TRUTH:
        quality.add(truth, named(texts, truth.path))
    rows = quality.table().set_index("annotator").T.to_dict()
    counts = {"n": 2, "n_real": 1}
    f1 = 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)
    assert rows["one"] == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 3, "f1": f1, "spurious_per_real": 2} | counts
    )
    assert rows["two"] == {"precision": 1, "recall": 1, "f1": 1, "spurious_per_real": 0} | counts
    assert rows["none"] == {"precision": 0, "recall": 0, "f1": 0, "spurious_per_real": 0} | counts


def test_agreement() -> None:
    (row,) = agreement({"one": ONE, "two": TWO}, "a", "b", "hidden").to_dict("records")
    assert list(row) == AGREEMENT_COLUMNS
    assert row["n"] == 3
    assert row["jaccard"] == pytest.approx((1 / 3 + 0 + 0) / 3)
    total = 3 * len(KINDS)  # yes: one 3 times, two 3 times, both once
    chance = (3 * 3 + (total - 3) ** 2) / total**2
    assert row["kappa"] == pytest.approx(((total - 4) / total - chance) / (1 - chance))


def test_agreement_with_oneself_is_one_and_of_the_silent_undefined() -> None:
    (row,) = agreement({"one": ONE, "again": ONE}, "a", "b").to_dict("records")
    assert (row["jaccard"], row["kappa"], row["n"]) == (1, 1, 1)
    (row,) = agreement({"x": {}, "y": {}}, "a").to_dict("records")
    assert (row["jaccard"], row["n"]) == (0, 0)
    assert math.isnan(row["kappa"])
    assert agreement({"one": ONE}, "a").empty
