"""Tables 1–8: tidy files with the paper's and the run's numbers, sheets with one owner a column."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

import madeup
from fakevlm.config.params import load_params
from fakevlm.reporting.averages import MANIPULATIONS, average_auc
from fakevlm.reporting.inputs import load_inputs
from fakevlm.reporting.published import TIDY, load_published
from fakevlm.reporting.tables import ReportTable, build_table, markdown, table1
from fakevlm.reporting.texts import fmt, layout

PUBLISHED = load_published()
FRAMES = [madeup.scores(b, np.random.default_rng(i)) for i, b in enumerate(madeup.GENERATORS)]
SCORES = pd.concat([*FRAMES, madeup.robustness()], ignore_index=True)
AVERAGE = pd.DataFrame({"method": ["FakeVLM", "CNNSpot"], "value": [0.9, 0.8], "n": 84})
AVERAGE = AVERAGE.assign(ci_low=AVERAGE.value - 0.1, ci_high=AVERAGE.value + 0.1)
AVERAGE = AVERAGE.assign(benchmark="ffpp", subset="Average", metric="auc")


def build(name: str, scores: pd.DataFrame = SCORES, methods: tuple = (), videos: int = 0) -> ReportTable:
    """A table from made-up scores."""
    params = SimpleNamespace(profile="mini", evaluate=SimpleNamespace(methods=methods))
    frames = {"scores": scores, "robustness": scores[:0], "average": AVERAGE}
    predictions = {"ffpp": pd.DataFrame({"item": range(videos)})}
    return build_table(name, SimpleNamespace(params=params, predictions=predictions, **frames), PUBLISHED)


ALL = {name: build(name) for name in layout()["tables"]}


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
    assert not table.tidy.duplicated(["source", *keys]).any()
    assert (run.ci_low <= run.value).all()
    assert (run.n > 0).all()
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
    assert f"[`{table.name}.csv`]" in text


@pytest.mark.parametrize(
    ("table", "cell", "score"),
    [
        ("table2", ("FakeVLM", "loki", "all", "clue_recall"), ("FakeVLM", "all", "clue_recall")),
        ("table2", ("FakeVLM", "fakeclue", "all", "f1"), ("FakeVLM", "all", "f1_real")),
        ("table2", ("UnivFD", "fakeclue", "category=animal", "acc"), ("UnivFD", "category=animal", "acc")),
        ("table3", ("FakeVLM", "dmimage", "Real", "f1"), ("FakeVLM", "label=real", "f1_real")),
        ("table3", ("FakeVLM", "dmimage", "Fake", "f1"), ("FakeVLM", "label=fake", "f1_fake")),
        ("table3", ("FakeVLM", "dmimage", "Overall", "f1"), ("FakeVLM", "all", "f1_real")),
        ("table5", ("FakeVLM", "ffpp", "FF-F2F", "auc"), ("FakeVLM", "generator=Face2Face", "auc")),
        ("table6", ("LLaVA + Explanatory Text", "loki", "all", "acc"), ("FakeVLM", "all", "acc")),
        ("table8", ("FakeVLM", "loki", "category=doc", "acc"), ("FakeVLM", "category=doc", "acc")),
    ],
)
def test_run_values_are_the_scores(table: str, cell: tuple[str, ...], score: tuple[str, ...]) -> None:
    where = dict(zip(("method", "benchmark", "subset", "metric"), cell, strict=True))
    wanted = dict(zip(("method", "subset", "metric"), score, strict=True), benchmark=cell[1])
    assert value(ALL[table].tidy, source="run", **where) == pytest.approx(value(SCORES, **wanted), abs=1e-6)


def test_table_5_takes_the_mean_of_the_manipulations() -> None:
    assert value(ALL["table5"].tidy, source="run", method="FakeVLM", subset="Average", metric="auc") == 0.9


def test_language_models_are_shown_as_said_and_forced() -> None:
    shown = [sheet for sheet in ALL["table2"].sheets if sheet.title.endswith("as said and forced")]
    heads = ["Acc", "Acc, forced", "F1 (real)", "F1 (real), forced", "Unparsed"]
    for sheet in shown:
        assert {row[0] for row in sheet.rows} == set(madeup.WRITERS)
        assert [head.removesuffix(", this run (mini)") for head in sheet.head[2:]] == heads
    without = build("table2", SCORES[SCORES.metric != "acc_forced"])
    assert len(without.sheets) == len(ALL["table2"].sheets) - 2


def test_rows_of_perturbations_are_in_order_of_strength() -> None:
    rows = [row[0] for row in ALL["table7"].sheets[0].rows]
    assert rows[0] == "none"
    noise = [row.split()[1] for row in rows if row.startswith("noise")]
    assert noise == ["4", "5", "8", "10", "16"]


def test_a_column_that_the_paper_lacks_is_this_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = layout()["tables"]["table4"]["sheets"][0]
    monkeypatch.setitem(sheet, "columns", {**sheet["columns"], "all/auc": "AUC"})
    assert build("table4").sheets[0].head[-2:] == ["CSS, this run (mini)", "AUC, this run (mini)"]


def test_fmt() -> None:
    assert fmt(0.90514, 0.8806, 0.92743) == "0.905 [0.881, 0.927]"
    assert [fmt(0.5, None, np.nan), fmt(None), fmt(np.nan)] == ["0.500", "–", "–"]


def test_average_auc_is_the_mean_of_the_four_with_its_own_interval() -> None:
    rng, names = np.random.default_rng(0), np.array(list(MANIPULATIONS.values()))
    frame = pd.DataFrame({"method": "FakeVLM", "item": np.arange(400), "label": np.arange(400) % 2})
    frame["generator"] = np.where(frame.label == 1, None, names[frame.item // 2 % 4])
    frame["p_fake"] = rng.normal(0.4 + 0.2 * (frame.label == 0), 0.2)
    pooled = average_auc(frame, bootstrap=200, seed=1)
    parts = [frame[(frame.label == 1) | (frame.generator == name)] for name in names]
    single = [roc_auc_score(part.label == 0, part.p_fake) for part in parts]
    ((mean, low, high),) = pooled[["value", "ci_low", "ci_high"]].to_numpy()
    assert mean == pytest.approx(np.mean(single))
    assert low < mean < high < low + 0.2
    pd.testing.assert_frame_equal(pooled, average_auc(frame, bootstrap=200, seed=1))
    assert average_auc(frame[frame.generator != "FaceSwap"], bootstrap=10, seed=1).empty


def test_table1_counts_this_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKEVLM_ROOT", str(tmp_path))
    madeup.params(tmp_path)
    madeup.make(tmp_path)
    table = table1(load_inputs(load_params("mini")), PUBLISHED)
    images = table.tidy.groupby(["source", "dataset", table.tidy.split.notna()]).images.sum()
    assert images["run", "FakeClue"].to_list() == [84, 84]
    assert images["release", "FakeClue", True] == 109_343
    paper = table.tidy[table.tidy.source == "paper"].set_index("dataset")
    assert paper.number["FF-VQA"] == "95K"
    assert paper.categories.eq("yes").to_list() == [False, False, True, True, False, True]
    text = markdown(table, "mini")
    assert "3 × observer" in text
    assert "19,166 / 4,795" in text


def test_notes_that_depend_on_the_run() -> None:
    notes = build("table3", methods=("CNNSpot", "FakeVLM", "Frequency")).notes
    assert any(note.startswith("CNNSpot and Frequency of this run: after those papers") for note in notes)
    assert any("12 videos" in note for note in build("table5", videos=12).notes)
    for table in (build("table3"), build("table5")):
        assert not any("trained here" in note or "videos and" in note for note in table.notes)
