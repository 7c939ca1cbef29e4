"""Clue quality and agreement on texts whose numbers can be counted by hand."""

import math

import numpy as np
import pandas as pd
import pytest

from fakevlm.annotation.quality import QUALITY_COLUMNS, agreement, clue_quality, kinds_row
from fakevlm.data.clues import KINDS, kinds_named

TRUTH = [{"smooth", "halo"}, {"melt"}, set(), set()]  # of fakes a, b, c (nothing visible), a real image r
LABELS = np.array([0, 0, 0, 1])
ONE = ["The fur is waxy. A grid covers it.", "", "A halo.", "a bright halo; waxy fur"]
TWO = ["A halo surrounds it; the fur is waxy", "the outline melts", "", "no halo at all"]
NONE = [""] * 4


def named(*texts: list[str]) -> np.ndarray:
    return np.array([[kinds_row(kinds_named(text)) for text in row] for row in zip(*texts, strict=True)])


def pair(rows: np.ndarray) -> dict:
    (row,) = agreement(["a", "b"], rows).to_dict("records")
    return row


def test_precision_recall_and_spurious_clues() -> None:
    ground_truth = np.array([kinds_row(kinds) for kinds in TRUTH])
    quality = clue_quality(["one", "two", "none"], named(ONE, TWO, NONE), ground_truth, LABELS)
    f1 = 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3)
    expected = [("one", 1 / 2, 1 / 3, f1, 2, 2, 1), ("two", 1, 1, 1, 2, 0, 1), ("none", 0, 0, 0, 2, 0, 1)]
    pd.testing.assert_frame_equal(quality, pd.DataFrame(expected, columns=QUALITY_COLUMNS), check_dtype=False)
    hidden = clue_quality(["one"], named(ONE)[2:], ground_truth[2:], LABELS[2:])
    assert list(hidden) == QUALITY_COLUMNS
    assert hidden.empty


def test_agreement_counts_images_that_one_of_the_two_explains() -> None:
    row = pair(named(ONE[:3], TWO[:3]))
    assert row["n"] == 3
    assert row["jaccard"] == pytest.approx((1 / 3 + 0 + 0) / 3)
    total = 3 * len(KINDS)  # yes: one 3 times, two 3 times, both once
    chance = (3 * 3 + (total - 3) ** 2) / total**2
    assert row["kappa"] == pytest.approx(((total - 4) / total - chance) / (1 - chance))
    same = pair(named(ONE[:2], ONE[:2]))
    assert (same["jaccard"], same["kappa"], same["n"]) == (1, 1, 1)
    silent = pair(named(NONE, NONE))
    assert (silent["jaccard"], silent["n"], math.isnan(silent["kappa"])) == (0, 0, True)
    assert agreement(["a"], named(ONE)).empty
