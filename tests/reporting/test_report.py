"""What the report reads and concludes, and the cards, from made-up artifacts; test_figures.py draws it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import mlcroissant
import numpy as np
import pandas as pd
import pytest
from huggingface_hub import DatasetCard, ModelCard

import madeup
from fakevlm.config.params import Params, load_params
from fakevlm.data.shards import Records, columns_of
from fakevlm.errors import UserError
from fakevlm.reporting import conclusions, figures
from fakevlm.reporting.cards import write_cards
from fakevlm.reporting.conclusions import AGREES, DIFFERS, LEANS, SILENT, TIES, UNKNOWN, Score, compare
from fakevlm.reporting.figures import draw_cases
from fakevlm.reporting.inputs import Inputs, load_inputs
from fakevlm.reporting.published import load_published
from fakevlm.reporting.tables import build_tables, markdown, table1
from fakevlm.reporting.texts import layout

PUBLISHED = load_published()
CASES = {name: spec["cases"] for name, spec in layout()["figures"].items() if "cases" in spec}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    madeup.make(folder)
    return folder


@pytest.fixture
def params(root: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    monkeypatch.setenv("FAKEVLM_ROOT", str(root))
    return load_params("mini")


@pytest.fixture
def inputs(params: Params) -> Inputs:
    return load_inputs(params)


@pytest.fixture
def copied(root: Path, params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Artifacts that a test may damage."""
    monkeypatch.setenv("FAKEVLM_ROOT", str(shutil.copytree(root, tmp_path / "copy")))
    return tmp_path / "copy/artifacts"


@pytest.mark.parametrize(
    ("stage", "path"),
    [
        ("collect", "collect/ground_truth.jsonl"), ("collect", "collect/benchmarks/loki"),
        ("annotate", "annotate/fakeclue/test"), ("finetune@head", "finetune/head/log.csv"),
        ("evaluate@ddvqa", "evaluate/ddvqa/predictions.parquet"),
    ],
)  # fmt: skip
def test_a_missing_artifact_names_its_stage(stage: str, path: str, copied: Path, params: Params) -> None:
    shutil.move(copied / path, copied / "away")
    with pytest.raises(UserError, match=rf"stage {stage} (.|\n)*dvc repro {stage}"):
        load_inputs(params)


def test_a_table_without_a_column_names_it(copied: Path, params: Params) -> None:
    file = copied / "study/scores.csv"
    pd.read_csv(file).drop(columns="ci_low").to_csv(file, index=False)
    with pytest.raises(UserError, match="lacks the columns ci_low"):
        load_inputs(params)


def test_cases_are_drawn_by_seed_with_a_failure(params: Params, inputs: Inputs) -> None:
    other = replace(inputs, params=params.model_copy(update={"seed": params.seed + 1}))
    fakes, faces, real = (draw_cases(inputs, **spec)[0] for spec in CASES.values())
    assert [c.id for c in fakes] == [c.id for c in draw_cases(inputs, **CASES["fig5_cases"])[0]]
    assert [c.id for c in real] != [c.id for c in draw_cases(other, **CASES["fig7_real_cases"])[0]]
    assert len(fakes) == params.report.cases
    assert {c.category for c in fakes} == set(CASES["fig5_cases"]["groups"])
    assert fakes[-1].chosen == "failure"
    assert fakes[-1].verdict != fakes[-1].label_name
    assert [{c.label for c in drawn} for drawn in (fakes, faces, real)] == [{0}, {0, 1}, {1}]
    assert all(c.question for c in faces)
    assert any(not c.decides for c in faces)
    assert all(c.decides for c in faces if c.chosen == "failure")


def test_sample_without_failures_and_beyond_the_pool() -> None:
    frame = pd.DataFrame({"id": list("abc"), "right": True, "category": ["x", "x", "y"]})
    ids, extra, failures = figures.sample(frame, 6, np.random.default_rng(0), ("x", "y"))
    assert (sorted(ids), extra, failures) == (["a", "b", "c"], None, 0)
    frame.loc[frame.id == "c", "right"] = False
    ids, extra, failures = figures.sample(frame, 2, np.random.default_rng(0), ("x", "y"))
    assert (len(ids), extra, failures) == (1, "c", 1)


def test_figure_2_shows_a_fake_that_all_captioned(params: Params, inputs: Inputs) -> None:
    case, captions, _ = figures.annotated_example(inputs)
    assert list(captions) == [a.name for a in params.annotate.annotators]
    assert case.label == 0


def test_a_benchmark_that_the_profile_leaves_out(copied: Path, params: Params) -> None:
    folder = copied / "evaluate/ddvqa"
    pd.read_csv(folder / "scores.csv").iloc[:0].to_csv(folder / "scores.csv", index=False)
    pd.read_parquet(folder / "predictions.parquet").iloc[:0].to_parquet(folder / "predictions.parquet")
    inputs = load_inputs(params)
    assert draw_cases(inputs, **CASES["fig6_ddvqa_cases"])[0] == []
    assert (build_tables(inputs, PUBLISHED)[3].tidy.source == "paper").all()
    rows = conclusions.draw_conclusions(inputs, PUBLISHED)
    assert {row.verdict for row in rows if "DD-VQA" in row.claim} == {UNKNOWN}


def test_cards_describe_the_data_and_the_models(copied: Path, params: Params, tmp_path: Path) -> None:
    (copied / "finetune/head/model").mkdir()
    metrics = {"points_per_image": 2.5, "agreement_jaccard": None, "clue_f1_aggregate": None}
    (copied / "annotate/metrics.json").write_text(json.dumps(metrics))
    (copied / "evaluate/fakeclue/metrics.json").write_text(json.dumps({"acc": 0.9123}))
    cards = tmp_path / "cards"
    write_cards(params, cards)
    splits = {split: copied / "annotate/fakeclue" / split for split in ("train", "val", "test")}
    for split, folder in splits.items():
        shutil.copytree(folder, cards / "dataset" / split)
    dataset = mlcroissant.Dataset(jsonld=str(cards / "dataset/croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    read = [row["test/id"].decode() for row in dataset.records("test")]
    assert read == columns_of(Records(splits["test"]), ["id"])["id"].tolist()
    card = DatasetCard.load(cards / "dataset/README.md")
    assert card.data.license == "cc-by-4.0"
    total = next(line for line in card.text.splitlines() if line.startswith("| total "))
    counts = [int(cell) for cell in total.strip("| ").split("|")[1:]]
    sizes = [len(Records(folder)) for folder in splits.values()]
    assert np.reshape(counts, (3, 2)).sum(axis=1).tolist() == sizes
    assert "**drawn**" in card.text
    text = ModelCard.load(cards / "model_explanation/README.md").text
    assert "| acc | 0.912 |" in text
    assert "| optimizer steps | 200 |" in text
    assert "| acc |" not in ModelCard.load(cards / "model_head/README.md").text


def test_table1_counts_this_run(inputs: Inputs) -> None:
    table = table1(inputs, PUBLISHED)
    images = table.tidy.groupby(["source", "dataset", table.tidy.split.notna()]).images.sum()
    assert images["run", "FakeClue"].to_list() == [84, 84]
    assert images["release", "FakeClue", True] == 109_343
    text = markdown(table, "mini")
    assert "3 × observer" in text
    assert "19,166 / 4,795" in text


HIGH, MIDDLE, LOW = Score("a", 0.9, 0.88, 0.92), Score("b", 0.85, 0.78, 0.90), Score("c", 0.7, 0.68, 0.72)
WIDE, CERTAIN = Score("d", 0.8, 0.75, 0.88), Score("e", 1.0, np.nan, np.nan)


@pytest.mark.parametrize(
    ("better", "other", "verdict", "on_a_par"),
    [
        (HIGH, LOW, AGREES, AGREES), (HIGH, MIDDLE, LEANS, AGREES), (WIDE, MIDDLE, TIES, LEANS),
        (LOW, MIDDLE, DIFFERS, DIFFERS), (None, MIDDLE, UNKNOWN, UNKNOWN),
        (HIGH, Score("b", 0.1, 0.0, 0.2, unparsed=1.0), SILENT, SILENT),
        (HIGH, Score("b", 0.0, np.nan, np.nan), SILENT, SILENT), (CERTAIN, WIDE, LEANS, AGREES),
        (WIDE, CERTAIN, TIES, LEANS),
    ],
)  # fmt: skip
def test_verdicts_follow_the_intervals(better, other, verdict: str, on_a_par: str) -> None:
    assert compare(better, other) == verdict
    assert compare(better, other, on_a_par=True) == on_a_par


def test_conclusions_turn_when_the_numbers_do(inputs: Inputs) -> None:
    explain, probe = "Explanatory VQA", "Linear probe (vision tower)"
    swapped = inputs.study.assign(method=inputs.study.method.replace({explain: probe, probe: explain}))
    worse = inputs.clue_quality.assign(f1=lambda f: f.f1.where(f.annotator != "aggregate", 0.1))
    changed = replace(inputs, study=swapped, clue_quality=worse)
    rows = [conclusions.draw_conclusions(each, PUBLISHED) for each in (inputs, changed)]
    before, after = ({row.claim: row.verdict for row in each} for each in rows)
    for words in ("FakeClue: tuning on explanations beats the linear probe.", "Aggregating several"):
        claim = next(claim for claim in before if claim.startswith(words))
        assert (before[claim], after[claim]) == (AGREES, DIFFERS)
    assert next(iter(conclusions.order(swapped, "fakeclue"))) == probe
    assert before[next(c for c in before if "leads the experts" in c)] == LEANS


def test_evidence_names_intervals_silence_and_the_papers_numbers(inputs: Inputs) -> None:
    scores = inputs.scores.copy()
    scores.loc[(scores.method == "LLaVA (untuned)") & (scores.metric == "unparsed"), "value"] = 1.0
    rows = conclusions.draw_conclusions(replace(inputs, scores=scores), PUBLISHED)
    acc, rouge = (row.evidence for row in rows if row.claim.startswith("On DD-VQA, FakeVLM"))
    assert " (100 % of its answers without a verdict); AUC " in acc
    assert acc.endswith("paper: 0.932 against 0.595 (Qwen2-VL-72B)")  # no expert, nobody trained for it
    here = "FakeVLM 0.450 [0.410, 0.490] against LLaVA (untuned) 0.250 [0.210, 0.290]"
    assert rouge == f"{here}; paper: 0.704 against 0.266 (Qwen2-VL-7B)"
    assert next(row.evidence for row in rows if row.where == "Table 3").endswith("0.940 against 0.918 (SIDA)")
