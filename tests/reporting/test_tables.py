"""Tables 1–8: tidy files with the paper's and the run's numbers, sheets with one owner a column."""

import numpy as np
import pandas as pd
import pytest

import madeup
from fakevlm.config.params import load_params
from fakevlm.reporting.averages import MANIPULATIONS, average_auc
from fakevlm.reporting.inputs import load_inputs
from fakevlm.reporting.published import TIDY, load_published
from fakevlm.reporting.tables import ReportTable, build_table, markdown, table1
from fakevlm.reporting.texts import fmt, layout

PUBLISHED = load_published()
SCORES = pd.concat(
    [
        *(madeup.scores(b, np.random.default_rng(i)) for i, b in enumerate(madeup.GENERATORS)),
        madeup.robustness(),
    ],
    ignore_index=True,
)
AVERAGE = pd.DataFrame(
    [("FakeVLM", 0.9, 0.85, 0.95, 84), ("CNNSpot", 0.8, 0.7, 0.9, 84)],
    columns=["method", "value", "ci_low", "ci_high", "n"],
)


def build(name: str, **facts) -> ReportTable:
    return build_table(name, PUBLISHED, SCORES, "mini", AVERAGE, **facts)


ALL = {name: build(name) for name in layout()["tables"]}


def value(tidy: pd.DataFrame, **where: str) -> float:
    for column, wanted in where.items():
        tidy = tidy[tidy[column] == wanted]
    assert len(tidy) == 1, where
    return float(tidy.value.iloc[0])


@pytest.mark.parametrize("name", ALL)
def test_tidy_holds_the_paper_unchanged_and_the_run_beside_it(name: str) -> None:
    tidy = ALL[name].tidy
    assert list(tidy.columns) == TIDY
    assert set(tidy.source) == {"paper", "run"}
    keys = ["method", "benchmark", "subset", "metric"]
    paper = tidy[tidy.source == "paper"].set_index(keys).value
    pd.testing.assert_series_equal(paper, PUBLISHED.frame(name).set_index(keys).value, check_names=False)
    assert not tidy.duplicated(["source", *keys]).any()
    run = tidy[tidy.source == "run"]
    assert run.ci_low.notna().all()
    assert (run.ci_low <= run.value).all()
    assert (run.n > 0).all()
    assert tidy[tidy.source == "paper"].ci_low.isna().all()


@pytest.mark.parametrize("name", ALL)
def test_sheets_give_every_column_one_owner(name: str) -> None:
    for sheet in ALL[name].sheets:
        assert {len(sheet.head), *map(len, sheet.rows)} == {len(sheet.owners)}
        for head, owner in zip(sheet.head, sheet.owners, strict=True):
            assert ("mini" in head) == (owner == "run")
            assert owner != "paper" or "paper" in head
        for row in sheet.rows:
            for text, owner in zip(row, sheet.owners, strict=True):
                assert "[" not in text or owner == "run"  # the paper prints no intervals


def test_run_values_are_the_scores() -> None:
    tidy = ALL["table2"].tidy
    for metric in ("acc", "auc", "rouge_l", "clue_recall", "unparsed"):
        wanted = value(SCORES, method="FakeVLM", benchmark="loki", subset="all", metric=metric)
        key = {"source": "run", "method": "FakeVLM", "subset": "all"}
        assert value(tidy, **key, benchmark="loki", metric=metric) == pytest.approx(wanted, abs=1e-6)
    f1, f1_real = (value(tidy, **key, benchmark="fakeclue", metric=m) for m in ("f1", "f1_real"))
    assert f1 == f1_real
    assert (tidy.subset == "category=animal").any()


@pytest.mark.parametrize(("name", "sheets"), [("table2", 2), ("table4", 1)])
def test_language_models_are_shown_as_said_and_forced(name: str, sheets: int) -> None:
    shown = [sheet for sheet in ALL[name].sheets if sheet.title.endswith("as said and forced")]
    assert len(shown) == sheets
    for sheet in shown:
        assert {row[0] for row in sheet.rows} == set(madeup.WRITERS)
        assert [head.removesuffix(", this run (mini)") for head in sheet.head[2:]] == [
            "Acc",
            "Acc, forced",
            "F1 (real)",
            "F1 (real), forced",
            "Unparsed",
        ]
    without = build_table(name, PUBLISHED, SCORES[SCORES.metric != "acc_forced"], "mini", AVERAGE)
    assert len(without.sheets) == len(ALL[name].sheets) - sheets


def test_table3_takes_each_class_alone() -> None:
    tidy = ALL["table3"].tidy
    run = tidy[(tidy.source == "run") & (tidy.method == "FakeVLM") & (tidy.metric == "f1")]
    own = SCORES[(SCORES.method == "FakeVLM") & (SCORES.benchmark == "dmimage")]
    for subset, label, metric in (
        ("Real", "label=real", "f1_real"),
        ("Fake", "label=fake", "f1_fake"),
        ("Overall", "all", "f1_real"),
    ):
        wanted = value(own, subset=label, metric=metric)
        assert value(run, subset=subset) == pytest.approx(wanted)
    assert value(tidy, source="paper", method="FakeVLM", subset="Real", metric="acc") == pytest.approx(0.982)
    assert not ((tidy.subset == "Real") & (tidy.metric == "auc")).any()


def test_table5_has_the_four_manipulations_and_their_average() -> None:
    tidy = ALL["table5"].tidy
    wanted = value(SCORES, method="FakeVLM", benchmark="ffpp", subset="generator=Face2Face", metric="auc")
    assert value(tidy, source="run", method="FakeVLM", subset="FF-F2F", metric="auc") == pytest.approx(wanted)
    assert value(tidy, source="run", method="FakeVLM", subset="Average", metric="auc") == 0.9
    assert value(tidy, source="paper", method="SRM", subset="Average", metric="auc") == pytest.approx(0.958)


def test_table6_names_the_methods_as_the_paper_does() -> None:
    tidy = ALL["table6"].tidy
    assert set(tidy.method) == {"LLaVA + Linear Head", "LLaVA + Explanatory Text"}
    wanted = value(SCORES, method="FakeVLM", benchmark="loki", subset="all", metric="acc")
    got = value(tidy, source="run", method="LLaVA + Explanatory Text", metric="acc")
    assert got == pytest.approx(wanted)
    head = tidy[(tidy.method == "LLaVA + Linear Head") & (tidy.source == "run")]
    assert not head.metric.isin(["rouge_l", "css"]).any()


@pytest.mark.parametrize("name", ALL)
def test_markdown_has_every_note_and_sheet(name: str) -> None:
    table = ALL[name]
    text = markdown(table, "mini")
    for note in PUBLISHED.table(name).all_notes():
        assert f"- {note.note}" in text
    for sheet in table.sheets:
        assert f"## {sheet.title}" in text
    assert f"[`{table.name}.csv`]" in text
    assert "**FakeVLM**" in text or "**LLaVA" in text or name == "table7"


def test_a_column_that_the_paper_lacks_is_this_runs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sheet = layout()["tables"]["table4"]["sheets"][0]
    monkeypatch.setitem(sheet, "columns", {**sheet["columns"], "all/auc": "AUC"})
    assert build("table4").sheets[0].head[-2:] == ["CSS, this run (mini)", "AUC, this run (mini)"]


def test_fmt() -> None:
    assert fmt(0.90514, 0.8806, 0.92743) == "0.905 [0.881, 0.927]"
    assert fmt(0.5) == fmt(0.5, None, None) == "0.500"
    assert fmt(None) == fmt(float("nan")) == "–"


def test_average_auc_is_the_mean_of_the_four_with_its_own_interval() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(400):
        label = i % 2
        generator = None if label else madeup.GENERATORS["ffpp"][(i // 2) % 4]
        rows.append(
            ("FakeVLM", f"{i}.png", label, generator, float(rng.normal(0.4 + 0.2 * (label == 0), 0.2)))
        )
    frame = pd.DataFrame(rows, columns=["method", "id", "label", "generator", "p_fake"]).assign(
        item=lambda f: f.id
    )
    got = average_auc(frame, bootstrap=200, seed=1)
    from sklearn.metrics import roc_auc_score

    singles = []
    for name in MANIPULATIONS.values():
        part = frame[(frame.label == 1) | (frame.generator == name)]
        singles.append(roc_auc_score(part.label == 0, part.p_fake))
    assert got.value.iloc[0] == pytest.approx(np.mean(singles))
    assert got.ci_low.iloc[0] < got.value.iloc[0] < got.ci_high.iloc[0]
    assert got.ci_high.iloc[0] - got.ci_low.iloc[0] < 0.2
    pd.testing.assert_frame_equal(got, average_auc(frame, bootstrap=200, seed=1))
    lacking = frame[frame.generator != "FaceSwap"]
    assert average_auc(lacking, bootstrap=10, seed=1).empty


def test_table1_counts_this_run(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("FAKEVLM_ROOT", str(tmp_path))
    madeup.params(tmp_path)
    madeup.make(tmp_path)
    table = table1(load_inputs(load_params("mini")), PUBLISHED)
    tidy = table.tidy
    run = tidy[(tidy.source == "run") & tidy.split.isna()].set_index("dataset")
    assert run.images["FakeClue"] == 84
    assert run.images["FakeClue"] == run.real["FakeClue"] + run.fake["FakeClue"]
    parts = tidy[(tidy.source == "run") & tidy.split.notna()]
    assert parts.images.sum() == 84
    release = tidy[tidy.source == "release"]
    assert release.images.sum() == 109_343
    paper = tidy[tidy.source == "paper"].set_index("dataset")
    assert paper.number["FF-VQA"] == "95K"
    assert paper.annotator["MMTD-Set"] == "GPT"
    text = markdown(table, "mini")
    assert "3 × observer" in text
    assert "19,166 / 4,795" in text


def test_notes_that_depend_on_the_run() -> None:
    notes = build("table3", trained=["CNNSpot", "Frequency"]).notes
    assert any(note.startswith("CNNSpot and Frequency of this run: after those papers") for note in notes)
    assert any("12 videos" in note for note in build("table5", videos=12).notes)
    for table in (build("table3"), build("table5")):
        assert not any("trained here" in note or "videos and" in note for note in table.notes)
