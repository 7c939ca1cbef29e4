"""The paper's numbers, and tables 2–8: tidy files with both the paper's and the run's, sheets, notes."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import madeup
from fakevlm.reporting import arithmetic
from fakevlm.reporting.inputs import average_auc
from fakevlm.reporting.published import FILE, TIDY, load_published
from fakevlm.reporting.tables import ReportTable, build_table, markdown
from fakevlm.reporting.texts import MANIPULATIONS, layout

PUBLISHED = load_published()
FRAMES = [madeup.scores(b, np.random.default_rng(i)) for i, b in enumerate(madeup.GENERATORS)]
SCORES = pd.concat([*FRAMES, madeup.robustness()], ignore_index=True)
AVERAGE = pd.DataFrame({"method": ["FakeVLM"], "value": [0.9], "n": 84, "ci_low": 0.8, "ci_high": 0.95})
AVERAGE = AVERAGE.assign(benchmark="ffpp", subset="Average", metric="auc")


def build(name: str, scores: pd.DataFrame = SCORES, methods: tuple = (), videos: int = 0) -> ReportTable:
    """A table from made-up scores."""
    params = SimpleNamespace(profile="mini", evaluate=SimpleNamespace(methods=methods))
    frames = {"scores": scores, "robustness": scores[:0], "average": AVERAGE}
    predictions = {"ffpp": pd.DataFrame({"group": range(videos)})}
    return build_table(name, SimpleNamespace(params=params, predictions=predictions, **frames), PUBLISHED)


ALL = {name: build(name) for name in layout()["tables"]}


def test_notes_and_corrections_name_columns_that_exist_and_ids_are_unique() -> None:
    for name, table in PUBLISHED.tables.items():
        named = {cell for note in PUBLISHED.notes(name) for cell in note.get("cells", [])}
        named |= {column for row in table["rows"] for column in row.get("v2", {})}
        assert named <= set(table["columns"]), name
    ids = re.findall(r"\bid: ([\w-]+)", FILE.read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("words", "following"),
    [
        ("2a/(1+a)", ["CNNSpot, Fake", "Gram-Net, Fake", "LNP, Fake", "FakeVLM, Real", "FakeVLM, Fake"]),
        ("average of the four", ["CDFA", "FakeVLM"]), ("Qwen2-VL-72B", []), ("LOKI ", []),
        ("patches an image", ["patches an image"]),
        (
            "released weights' answers",
            ["FakeVLM's F1 on FakeClue as F1(real) of the released weights' answers"],
        ),
    ],
)  # fmt: skip
def test_which_claims_follow(words: str, following: list[str]) -> None:
    checks = [check for check in arithmetic.checks(PUBLISHED) if words in check.what]
    assert checks
    assert [check.what.split(":")[0] for check in checks if check.follows] == following


def test_means_and_mixtures_behind_printed_numbers() -> None:
    checks = arithmetic.checks(PUBLISHED)
    means = {c.what.split(":")[0]: c.middle for c in checks if "average of the four" in c.what}
    assert means["FWA"] == pytest.approx((92.1 + 90.0 + 88.4 + 81.2) / 4)
    assert max(means, key=means.__getitem__) == "Face X-ray"  # not FakeVLM, as the paper says
    mixtures = pd.DataFrame(arithmetic.mixtures(PUBLISHED)).set_index("method")
    assert mixtures.positive["FakeVLM"] == "real"
    assert mixtures.index[mixtures.positive == "fake"].to_list() == ["CNNSpot", "Gram-Net", "LNP"]
    assert mixtures.share["CNNSpot"][1] < 0.25 < 0.45 < mixtures.share["FakeVLM"][0]


def value(tidy: pd.DataFrame, **where: str) -> float:
    for column, wanted in where.items():
        tidy = tidy[tidy[column] == wanted]
    assert len(tidy) == 1, where
    return float(tidy.value.iloc[0])


@pytest.mark.parametrize("name", ALL)
def test_the_paper_is_unchanged_and_the_run_beside_it(name: str) -> None:
    table, keys = ALL[name], ["method", "benchmark", "subset", "metric"]
    assert list(table.tidy.columns) == TIDY
    paper, run = (table.tidy[table.tidy.source == source] for source in ("paper", "run"))
    printed = PUBLISHED.frame(name).set_index(keys).value
    pd.testing.assert_series_equal(paper.set_index(keys).value, printed, check_names=False)
    assert printed.between(0, 1).all()
    assert not table.tidy.duplicated(["source", *keys]).any()
    assert (run.ci_low <= run.value).all()
    assert paper.ci_low.isna().all()
    text = markdown(table, "mini")
    for sheet in table.sheets:
        assert f"## {sheet.title}" in text
        assert {len(sheet.head), *map(len, sheet.rows)} == {len(sheet.owners)}
        for head, owner, cells in zip(sheet.head, sheet.owners, zip(*sheet.rows, strict=True), strict=True):
            assert ("mini" in head) == (owner == "run")
            assert owner != "paper" or "paper" in head
            assert owner == "run" or not any("[" in cell for cell in cells)  # the paper prints no intervals
    assert [note for note in PUBLISHED.notes(name) if f"- {note['note']}" not in text] == []


@pytest.mark.parametrize(
    ("table", "method", "benchmark", "cell", "score"),
    [
        ("table2", "FakeVLM", "loki", ("all", "f1"), ("all", "f1_real")),
        ("table2", "UnivFD", "fakeclue", ("category=animal", "acc"), ("category=animal", "acc")),
        ("table3", "FakeVLM", "dmimage", ("Real", "f1"), ("label=real", "f1_real")),
        ("table3", "FakeVLM", "dmimage", ("Fake", "f1"), ("label=fake", "f1_fake")),
        ("table3", "FakeVLM", "dmimage", ("Overall", "f1"), ("all", "f1_real")),
        ("table5", "FakeVLM", "ffpp", ("FF-F2F", "auc"), ("generator=Face2Face", "auc")),
        ("table6", "LLaVA + Explanatory Text", "loki", ("all", "acc"), ("all", "acc")),
    ],
)
def test_run_values_are_the_scores(table: str, method: str, benchmark: str, cell: tuple, score: tuple):
    shown, scored = ({"benchmark": benchmark, "subset": s, "metric": m} for s, m in (cell, score))
    expected = value(SCORES, method=method.replace("LLaVA + Explanatory Text", "FakeVLM"), **scored)
    assert value(ALL[table].tidy, source="run", method=method, **shown) == pytest.approx(expected, abs=1e-6)


def test_language_models_are_shown_as_said_and_forced() -> None:
    shown = [sheet for sheet in ALL["table2"].sheets if sheet.title.endswith("as said and forced")]
    heads = ["Acc", "Acc, forced", "F1 (real)", "F1 (real), forced", "Unparsed"]
    for sheet in shown:
        assert {row[0] for row in sheet.rows} == set(madeup.WRITERS)
        assert [head.removesuffix(", this run (mini)") for head in sheet.head[2:]] == heads
    assert len(build("table2", SCORES[SCORES.metric != "acc_forced"]).sheets) == len(ALL["table2"].sheets) - 2


def test_rows_of_perturbations_are_in_order_of_strength() -> None:
    rows = [row[0] for row in ALL["table7"].sheets[0].rows]
    assert rows[0] == "none"
    assert [row for row in rows if row.startswith("noise")] == [f"noise {n}" for n in (4, 5, 8, 10, 16)]


def test_average_auc_is_the_mean_of_the_four_with_its_own_interval() -> None:
    rng, names = np.random.default_rng(0), np.array(list(MANIPULATIONS.values()))
    frame = pd.DataFrame({"method": "FakeVLM", "group": np.arange(400), "label": np.arange(400) % 2})
    frame["generator"] = np.where(frame.label == 1, None, names[frame.group // 2 % 4])
    frame["p_fake"] = rng.normal(0.4 + 0.2 * (frame.label == 0), 0.2)
    pooled = average_auc(frame, bootstrap=200, seed=1)
    parts = [frame[(frame.label == 1) | (frame.generator == name)] for name in names]
    single = [roc_auc_score(part.label == 0, part.p_fake) for part in parts]
    ((mean, low, high),) = pooled[["value", "ci_low", "ci_high"]].to_numpy()
    assert mean == pytest.approx(np.mean(single))
    assert low < mean < high < low + 0.2
    assert average_auc(frame[frame.generator != "FaceSwap"], bootstrap=10, seed=1).empty
    assert value(ALL["table5"].tidy, source="run", subset="Average", metric="auc") == 0.9, "AVERAGE is shown"


def test_notes_that_depend_on_the_run() -> None:
    notes = build("table3", methods=("CNNSpot", "FakeVLM", "Frequency")).notes
    assert any(note.startswith("CNNSpot and Frequency of this run: after those papers") for note in notes)
    assert any("12 videos" in note for note in build("table5", videos=12).notes)
    for table in (build("table3"), build("table5")):
        assert not any("trained here" in note or "videos and" in note for note in table.notes)
