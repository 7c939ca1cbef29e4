"""Profile `released` from a made-up release to the report, and what every profile shares: one graph, and early kind errors."""

import json
from pathlib import Path

import pandas as pd
import pytest

from conftest import ROOT
from fakevlm.annotation.dataset import CANDIDATES
from fakevlm.annotation.example import pick
from fakevlm.annotation.fakeclue import FakeClue, build
from fakevlm.annotation.released import plan
from fakevlm.collection.collect import Collected, collect
from fakevlm.config.params import Params, load_params
from fakevlm.data.corpora import fakeclue
from fakevlm.data.records import FAKECLUE_QUESTION, QUESTION, read_frame, read_records
from fakevlm.errors import UserError
from fakevlm.evaluation import benchmarks, methods
from fakevlm.model import sentence_encoder as encoder
from fakevlm.reporting import build as report
from fakevlm.reporting.inputs import load_inputs
from fakevlm.tools.estimate_annotation import dry_run
from smallrelease import make_release, released
from smallworld import content
from test_corpora import loki_tree
from test_corpora_faces import ddvqa_tree, tree
from tinyllava import build as tiny


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_release(folder / "fakeclue")
    return folder


@pytest.fixture
def collected(project: Path, release: Path) -> tuple[Params, Collected]:
    params = released(release / "fakeclue", project / "base")
    return params, collect(params)


def test_the_release_is_collected_as_it_is(collected: tuple[Params, Collected], project: Path) -> None:
    _, found = collected
    frame = read_frame(project / "artifacts/collect/records")
    assert frame["split"].value_counts().to_dict() == {"train": 36, "test": 12}
    assert (
        frame["sha256"].nunique() == 47
    )  # the copy across the splits is kept: the numbers are other people's too
    assert len(found.duplicates) == len(found.quarantine) == 0
    assert found.benchmarks == {}
    for name in ("loki", "dmimage", "ddvqa", "ffpp"):
        assert list(read_records(project / "artifacts/collect/benchmarks" / name)) == []


def test_texts_and_test_split_are_the_releases(
    collected: tuple[Params, Collected], release: Path, project: Path
) -> None:
    params, _ = collected
    made = build(params)
    out = project / "artifacts/annotate"
    wanted = list(fakeclue.read(release / "fakeclue", splits=["test"]))
    assert list(read_records(out / "fakeclue/test")) == wanted
    assert json.loads((out / "data_json/test.json").read_text()) == json.loads(
        (release / "fakeclue/data_json/test.json").read_text()
    )
    parts = {s: read_frame(out / "fakeclue" / s) for s in ("train", "val")}
    assert len(parts["train"]) + len(parts["val"]) == 36
    assert 4 <= len(parts["val"]) <= 12
    assert not set(parts["train"]["item"]) & set(parts["val"]["item"])
    assert set(parts["val"]["category"]) == {"deepfake", "satellite", "doc"}
    assert set(parts["val"]["split"]) == {"val"}
    assert made.metrics["images"] == {"train": len(parts["train"]), "val": len(parts["val"]), "test": 12}
    assert pd.read_parquet(out / "candidates.parquet").columns.tolist() == CANDIDATES.names
    before = content(out)
    build(params)
    assert content(out) == before


def test_an_item_on_both_sides_stays_where_the_release_has_it(collected, project: Path) -> None:
    records = read_frame(project / "artifacts/collect/records")
    chosen = plan(records, 0.2, 3).set_index("id")["split"]
    own = records.set_index("id")["split"]
    assert (chosen[own.index[own == "test"]] == "test").all()
    both = set(records[own.to_numpy() == "test"]["item"]) & set(records[own.to_numpy() == "train"]["item"])
    assert both, "the made-up release has videos in both splits, as the real one does"
    other = plan(records, 0.2, 4).set_index("id")["split"]
    assert (chosen != other).any()
    with pytest.raises(UserError, match="no image of the released FakeClue"):
        plan(records.assign(split=None), 0.2, 3)


def test_nobody_was_asked(collected: tuple[Params, Collected], project: Path) -> None:
    params, _ = collected
    made: FakeClue = build(params)
    assert made.outcomes.empty
    assert made.agreement.empty
    assert pick(made, project / "artifacts/annotate") is None
    with pytest.raises(UserError, match="asks nobody"):
        dry_run(params)


def test_ffpp_beside_the_release_serves_the_benchmarks_alone(release: Path, project: Path) -> None:
    tree(project / "ffpp")
    ddvqa_tree(project / "ddvqa")
    places = {"ffpp": project / "ffpp", "ddvqa": project / "ddvqa"}
    found = collect(released(release / "fakeclue", project / "base", **places))
    assert len(read_frame(project / "artifacts/collect/records")) == 48
    frames = read_frame(project / "artifacts/collect/benchmarks/ffpp")
    assert set(frames["split"]) == {"test"}
    assert set(frames["item"]) == {"002", "007"}  # FF++'s own test videos, not the release's frames
    assert found.benchmarks == {"ddvqa": 6, "ffpp": len(frames)}


@pytest.mark.slow
def test_from_the_release_to_the_report(
    release: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "encode", lambda texts, name: _letters(texts))
    loki_tree(project / "loki")
    params = released(release / "fakeclue", tiny(project / "base"), loki=project / "loki")
    collect(params)
    build(params)
    for name in benchmarks.BENCHMARKS:
        benchmarks.evaluate(params, name)
    said = pd.read_parquet(project / "artifacts/evaluate/fakeclue/predictions.parquet")
    assert said.groupby("method").size().to_dict() == dict.fromkeys(params.evaluate.methods, 12)
    assert set(said["question"]) == {FAKECLUE_QUESTION}  # the release's own spelling
    p_fake = said.pivot(index="id", columns="method", values="p_fake")
    assert (p_fake[methods.FAKEVLM] != p_fake[methods.AUTHORS]).any()  # same weights, other prompt
    assert (p_fake[methods.FAKEVLM] == p_fake[methods.UNTUNED]).all()  # same weights, same prompt
    made = report.build(params)
    drawn = {figure.name for figure in made.figures}
    assert {"fig2_sources", "fig2_categories", "per_category", "fig5_cases", "fig7_real_cases"} <= drawn
    gone = {"fig2_example", "fig2_confusion", "fig2_agreement", "fig3_paradigms", "training_curves"}
    assert not drawn & gone
    assert not drawn & {"robustness", "fig2_clue_quality", "per_kind_recall", "fig6_ddvqa_cases"}
    assert {table.name for table in made.tables} == {f.stem for f in (project / "figures").glob("table*.csv")}
    table = pd.read_csv(project / "figures/table2_fakeclue_loki.csv")
    run = table[(table["source"] == "run") & (table["metric"] == "acc") & (table["subset"] == "all")]
    assert set(zip(run["benchmark"], run["method"], strict=True)) == {
        (b, m) for b in ("fakeclue", "loki") for m in params.evaluate.methods
    }
    page = (project / "figures/report.html").read_text()
    assert "Not part of this profile" in page
    for word in ("Figure 3", "<code>finetune: null</code>", "nobody was asked", "DMimage is not among"):
        assert word in page
    assert load_inputs(params).weights > 1000


def _letters(texts: list[str]):
    """Unit rows of letter counts: an encoder that costs nothing."""
    import numpy as np

    rows = np.array([[1 + text.lower().count(c) for c in "aeiou"] for text in texts], dtype=float)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("profile", ["released", "paper"])
def test_a_switch_without_data_names_every_missing_folder(profile: str, project: Path) -> None:
    params = load_params(profile)
    with pytest.raises(UserError) as error:
        collect(params)
    named = params.collect.corpora.model_dump() | params.collect.benchmarks.model_dump()
    for key, folder in named.items():
        assert (f".{key}: no folder {project / folder}" in str(error.value)) if folder else True
    assert "https://huggingface.co/datasets/bczhou/LOKI" in str(error.value)
    assert f"verify --profile {profile}" in str(error.value)
    assert not (project / "artifacts").exists()


def test_what_the_larger_profiles_say_is_the_papers() -> None:
    paper = load_params("paper")
    tune = paper.finetune
    assert (tune.epochs, tune.batch_size, tune.gradient_accumulation) == (2.0, 32, 1)
    assert (tune.learning_rate, tune.warmup_ratio, tune.weight_decay) == (2e-4, 0.03, 0.0)
    assert (tune.precision, tune.gradient_checkpointing, tune.max_length) == ("bf16", True, 1024)
    assert paper.collect.frames_per_video == 32
    assert [a.backend for a in paper.annotate.annotators] == ["endpoint"] * 3
    assert load_params("released").evaluate.model == "lingcco/fakeVLM"
    assert QUESTION != FAKECLUE_QUESTION
    for params in (paper, load_params("released")):
        named = [
            *params.collect.corpora.model_dump().values(),
            *params.collect.benchmarks.model_dump().values(),
        ]
        assert not [path for path in named if path and path.startswith("data/")], "data/ is wholly an import"
    assert "corpora" in (ROOT / ".dvcignore").read_text()


def test_who_gives_no_weights_is_told_so_when_they_are_wanted() -> None:
    """Not earlier: a profile may be there to make FakeClue alone."""
    params = load_params("released")
    evaluate = params.evaluate.model_copy(update={"model": None})
    with pytest.raises(UserError, match="released: FakeVLM has no weights"):
        methods.tuned(params.model_copy(update={"evaluate": evaluate}))
