"""Profile `released` from a made-up release to the report; early errors of the other profiles."""

import json
import operator
from pathlib import Path

import pandas as pd
import pytest

import madeup
from conftest import changed
from fakevlm.annotation.annotate import build
from fakevlm.annotation.dataset import CANDIDATES, pick
from fakevlm.annotation.released import plan
from fakevlm.collection.collect import collect
from fakevlm.config.params import load_params
from fakevlm.data.corpora import fakeclue
from fakevlm.data.records import FAKECLUE_QUESTION, read_frame, read_records
from fakevlm.errors import UserError
from fakevlm.evaluation import benchmarks
from fakevlm.tools.estimate import annotation
from smallcorpora import ddvqa_tree, ffpp_tree, loki_tree, make_release, released
from smallworld import content
from tinyllava import build as tiny


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_release(folder / "fakeclue")
    return folder


def test_images_texts_and_test_split_are_the_releases(release: Path, project: Path) -> None:
    original, out = release / "fakeclue", project / "artifacts/annotate"
    params = released(original, project / "base")
    counts = collect(params)
    frame = read_frame(project / "artifacts/collect/records")
    assert frame["split"].value_counts().to_dict() == {"train": 36, "test": 12}
    assert frame["sha256"].nunique() == 47  # a copy across the splits is kept, so that numbers are comparable
    assert len(counts.duplicates) == len(counts.quarantine) == len(counts.benchmarks) == 0
    built = build(params)
    assert list(read_records(out / "fakeclue/test")) == list(fakeclue.read(original, splits=["test"]))
    rows = [json.loads((folder / "data_json/test.json").read_text()) for folder in (out, original)]
    assert rows[0] == rows[1]
    train, val = (read_frame(out / "fakeclue" / split) for split in ("train", "val"))
    assert built.metrics["images"] == {"train": len(train), "val": len(val), "test": 12}
    assert len(train) + len(val) == 36
    assert 4 <= len(val) <= 12
    assert not set(train["group"]) & set(val["group"])
    assert set(val["category"]) == {"deepfake", "satellite", "doc"}
    assert pd.read_parquet(out / "candidates.parquet").columns.tolist() == CANDIDATES.names
    before = content(out)
    build(params)
    assert content(out) == before

    assert pick(built, out) is None, "nobody was asked"
    with pytest.raises(UserError, match="asks nobody"):
        annotation(params)


def test_an_item_on_both_sides_stays_where_the_release_has_it(release: Path) -> None:
    names = ["id", "label", "category", "group", "split", "references"]
    read = map(operator.attrgetter(*names), fakeclue.read(release / "fakeclue"))
    records = pd.DataFrame(read, columns=names)
    test = records["split"] == "test"
    assert set(records[test]["group"]) & set(records[~test]["group"]), "as in the real release"
    split = plan(records, 0.2, 3)["split"]
    assert (split[test] == "test").all()
    assert (split != plan(records, 0.2, 4)["split"]).any()
    with pytest.raises(UserError, match="no image of the released FakeClue"):
        plan(records.assign(split=None), 0.2, 3)


def test_ffpp_beside_the_release_serves_the_benchmarks_alone(release: Path, project: Path) -> None:
    ffpp_tree(project / "ffpp")
    ddvqa_tree(project / "ddvqa")
    params = released(release / "fakeclue", project / "base", ffpp=project / "ffpp", ddvqa=project / "ddvqa")
    counts = collect(params)
    assert len(read_frame(project / "artifacts/collect/records")) == 48
    frames = read_frame(project / "artifacts/collect/benchmarks/ffpp")
    assert set(frames["split"]) == {"test"}
    assert set(frames["group"]) == {"002", "007"}  # FF++'s own test videos, not the release's frames
    assert counts.benchmarks == {"ddvqa": 6, "ffpp": len(frames)}


@pytest.mark.slow
def test_from_the_release_to_the_report(release: Path, project: Path) -> None:
    loki_tree(project / "loki")
    params = released(release / "fakeclue", tiny(project / "base"), loki=project / "loki")
    collect(params)
    build(params)
    for name in benchmarks.BENCHMARKS:
        benchmarks.evaluate(params, name)
    predictions = pd.read_parquet(project / "artifacts/evaluate/fakeclue/predictions.parquet")
    assert predictions.groupby("method").size().to_dict() == dict.fromkeys(params.evaluate.methods, 12)
    assert set(predictions["question"]) == {FAKECLUE_QUESTION}  # the release's own spelling
    p_fake = predictions.pivot(index="id", columns="method", values="p_fake")
    assert (p_fake[benchmarks.FAKEVLM] != p_fake[benchmarks.AUTHORS]).any()  # same weights, other prompt
    assert (p_fake[benchmarks.FAKEVLM] == p_fake[benchmarks.UNTUNED]).all()  # same weights, same prompt
    _, figures = madeup.report(params)
    drawn = {figure.name for figure in figures}
    assert {"fig2_sources", "fig2_categories", "per_category", "fig5_cases", "fig7_real_cases"} <= drawn
    assert not drawn & {"fig2_example", "fig2_agreement", "training_curves", "robustness", "fig6_ddvqa_cases"}
    page = (project / "figures/report.html").read_text()
    left_out = ("Not part of this profile", "<code>finetune: null</code>", "nobody was asked")
    assert [words for words in left_out if words not in page] == []


@pytest.mark.parametrize("profile", ["released", "paper"])
def test_a_switch_without_data_names_every_missing_folder(profile: str, project: Path) -> None:
    params = load_params(profile)
    with pytest.raises(UserError) as error:
        collect(params)
    for key, folder in (params.collect.corpora.model_dump() | params.collect.benchmarks.model_dump()).items():
        assert (f".{key}: no folder {project / folder}" in str(error.value)) if folder else True
    assert "https://huggingface.co/datasets/bczhou/LOKI" in str(error.value)
    assert f"verify --profile {profile}" in str(error.value)
    assert not (project / "artifacts").exists()


def test_missing_weights_are_an_error_when_they_are_needed() -> None:
    """Not earlier: a profile may be there to make FakeClue alone."""
    params = changed(load_params("released"), "evaluate", model=None)
    with pytest.raises(UserError, match="released: FakeVLM has no weights"):
        benchmarks.tuned(params)
