"""The paper's printed numbers as data: complete, in range, and their arithmetic done again."""

import re

import pandas as pd
import pytest

from fakevlm.reporting import arithmetic
from fakevlm.reporting.published import FILE, TIDY, load_published

PUBLISHED = load_published()
CHECKS = arithmetic.checks(PUBLISHED)


@pytest.mark.parametrize(
    ("table", "cells", "method", "column", "value"),
    [
        ("table2", 89, "GPT-4o", "loki/all/acc", 0.634),
        ("table3", 48, "SIDA", "dmimage/Overall/f1", 0.924),
        ("table4", 33, "Common-DF-TI", "ddvqa/all/rouge_l", 0.609),
        ("table5", 25, "CDFA", "ffpp/FF-NT/auc", 0.807),
        ("table6", 6, "LLaVA + Linear Head", "loki/all/f1", 0.778),
        ("table7", 52, "FakeVLM", "fakeclue/blur=3/css", 0.812),
        ("table8", 79, "GPT-4o", "loki/category=human/acc", 0.844),
    ],
)
def test_every_printed_cell_is_there_as_a_fraction(table, cells, method, column, value) -> None:
    frame = PUBLISHED.frame(table)
    assert list(frame.columns) == TIDY
    assert len(frame) == cells
    assert frame.value.between(0, 1).all()
    assert not frame.duplicated(["method", "benchmark", "subset", "metric"]).any()
    assert PUBLISHED.values(table)[column][method] == value  # which has NaN for a dash, no row in the frame


def test_the_release_adds_up() -> None:
    totals = PUBLISHED.released().groupby(["split", "label"]).n.sum().to_dict()
    assert totals == {("train", 0): 68_396, ("train", 1): 35_947, ("test", 0): 3_192, ("test", 1): 1_808}
    answers = PUBLISHED.release["fakeclue_answers"]
    assert sum(answers.values()) == 5_000
    assert answers["real_as_real"] + answers["real_as_fake"] == 1_808


@pytest.mark.parametrize(
    ("words", "following"),
    [
        ("2a/(1+a)", ["CNNSpot, Fake", "Gram-Net, Fake", "LNP, Fake", "FakeVLM, Real", "FakeVLM, Fake"]),
        ("average of the four", ["CDFA", "FakeVLM"]),
        ("Qwen2-VL-72B", []),
        ("LOKI ", []),
    ],
)
def test_which_claims_follow(words: str, following: list[str]) -> None:
    checks = [check for check in CHECKS if words in check.what]
    assert checks
    assert [check.what.split(":")[0] for check in checks if check.follows] == following


def test_claims_in_prose_and_the_released_answers() -> None:
    follows = {check.what: check.follows for check in CHECKS}
    assert sum("Common-DF" in what and ok for what, ok in follows.items()) == 3
    assert follows["patches an image: (image size / patch size)²"]
    assert follows["FakeVLM's F1 on FakeClue as F1(real) of the released weights' answers"]
    means = {c.what.split(":")[0]: c.middle for c in CHECKS if "average of the four" in c.what}
    assert means["FWA"] == pytest.approx((92.1 + 90.0 + 88.4 + 81.2) / 4)
    assert max(means, key=means.__getitem__) == "Face X-ray"  # not FakeVLM, as the paper says


def test_table_3_mixes_test_sets_and_positive_classes() -> None:
    mixtures = pd.DataFrame(arithmetic.mixtures(PUBLISHED)).set_index("method")
    assert mixtures.positive["FakeVLM"] == "real"
    assert mixtures.index[mixtures.positive == "fake"].to_list() == ["CNNSpot", "Gram-Net", "LNP"]
    assert mixtures.share["FakeVLM"][0] > 0.45
    assert all(mixtures.share[m][1] < 0.25 for m in ("CNNSpot", "Gram-Net", "LNP", "UnivFD"))


def test_notes_and_corrections_name_columns_that_exist_and_ids_are_unique() -> None:
    for name, table in PUBLISHED.tables.items():
        named = {cell for note in PUBLISHED.notes(name) for cell in note.get("cells", [])}
        named |= {column for row in table["rows"] for column in row.get("v2", {})}
        assert named <= set(table["columns"]), name
    ids = re.findall(r"\bid: ([\w-]+)", FILE.read_text(encoding="utf-8"))
    assert [i for i in set(ids) if ids.count(i) > 1] == []
