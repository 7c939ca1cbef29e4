"""The study of Fig. 3: features of a frozen model, probes, scores, and the whole of it on a tiny world."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import tinyllava
from conftest import ROOT, killed_after
from fakevlm import paths, study
from fakevlm.data.records import FAKE, REAL, write_records
from fakevlm.inference import generate
from fakevlm.model.collate import ask
from fakevlm.model.llava import load_model, load_processor


def test_features_are_those_of_the_model(base):
    model, processor = load_model(base, device="cpu"), load_processor(base)
    images = [record.pil() for record in tinyllava.records(5)]
    features = study.features(model, processor, images)
    assert {rows.shape for rows in features.values()} == {(5, 16)}
    batch = ask(model, processor, images)
    with torch.no_grad():
        states = model.model(**batch).last_hidden_state
        tower = model.model.vision_tower(batch["pixel_values"], output_hidden_states=True)
    assert np.allclose(features["last"], states[:, -1], atol=1e-5)
    assert np.allclose(features["mean"], states.mean(1), atol=1e-5)
    # vision_feature_layer −1: the last layer's output, without the class token
    assert np.allclose(features["vision"], tower.hidden_states[-1][:, 1:].mean(1), atol=1e-5)


def test_probe_takes_the_pooling_that_tells_the_classes_apart():
    rng = np.random.default_rng(0)
    labels = np.repeat([FAKE, REAL], 60)
    train, val = (
        {"last": rng.normal(size=(120, 3)), "mean": rng.normal(size=(120, 3)) + 4 * labels[:, None]}
        for _ in range(2)
    )
    classifier, chosen = study.probe(train, labels, val, labels, ("last", "mean"))
    assert chosen["pooling"] == "mean"
    assert chosen["val_acc"] > 0.95
    assert classifier.predict([[4.0, 4.0, 4.0]]) == [REAL]
    # Among equals the strongest regularisation: here nothing can be told apart but the classes' sizes.
    blind = {"last": np.zeros((120, 2))}
    _, chosen = study.probe(blind, labels, blind, labels, ("last",))
    assert chosen == {"pooling": "last", "C": study.STRENGTHS[0], "val_acc": 0.5}


@pytest.fixture
def world(project):
    places = ("annotate/fakeclue/train", 16), ("annotate/fakeclue/val", 6), ("annotate/fakeclue/test", 8)
    for seed, (place, n) in enumerate((*places, ("collect/benchmarks/loki", 6))):
        write_records(tinyllava.records(n, seed), project / "artifacts" / place)
    return project


def test_a_tuning_with_other_settings_is_not_taken(base, world, tmp_path, monkeypatch):
    def finetune(params, objective, out, *, work, steps):
        out.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"steps": [steps]}).to_csv(out / "log.csv", index=False)

    monkeypatch.setattr(study, "finetune", finetune)

    def tuned(steps: int) -> int:
        params = tinyllava.params(base, study={"steps": steps, "probe_images": 12})
        return int(study._tuned(params, "label", tmp_path / "label", tmp_path / "checkpoints").steps[0])

    assert [tuned(steps) for steps in (4, 4, 2, 4)] == [4, 4, 2, 4]
    (tmp_path / "label/log.csv").write_text("steps\n5\n")
    assert tuned(4) == 4, "a damaged one is not taken either"


@pytest.mark.slow
def test_the_whole_study(base, world, monkeypatch):
    evaluate = {"batch_size": 4, "max_new_tokens": 12, "bootstrap": 40, "limit": None}
    params = tinyllava.params(base, study={"steps": 40, "probe_images": 12}, evaluate=evaluate)
    finetune, calls = study.finetune, []
    monkeypatch.setattr(study, "finetune", lambda *args, **kw: calls.append(args[1]) or finetune(*args, **kw))
    with killed_after(1, study, "finetune"):
        study.run(params)
    assert not list((paths.work() / "checkpoints").glob("label-*")), "of an exported tuning none are kept"
    batches, answer = [], generate.Llava.__call__
    monkeypatch.setattr(generate.Llava, "__call__", lambda *args: batches.append(1) or answer(*args))
    predicted, scores, chosen = study.run(params)
    assert calls == ["label", "explanation"]
    assert len(batches) == 2 + 2, "of the last model alone, 8 images of fakeclue and 6 of loki by fours"

    out = world / "artifacts/study"
    files = {"log.csv", "metrics.json", "predictions.parquet", "probes.csv", "scores.csv"}
    assert {file.name for file in out.iterdir()} == files
    assert list(scores["benchmark"].unique()) == ["fakeclue", "loki"]
    assert set(scores["method"]) == set(study.METHODS)
    assert (predicted.groupby(["benchmark", "method"]).size().unstack("benchmark") == [8, 6]).all(axis=None)
    assert set(chosen["method"]) == {study.VISION_PROBE, study.LMM_PROBE}
    assert (chosen["images"] == 12).all()
    values = scores[scores["subset"] == "all"].set_index(["metric", "benchmark", "method"])["value"]
    # Dark against bright is easy: labels are learned, explanations at least give a verdict. The untuned base
    # knows no English.
    for method in (study.VISION_PROBE, study.LMM_PROBE, study.TUNED["label"]):
        assert values["acc", "fakeclue", method] == 1.0, method
    assert values["unparsed", "fakeclue", study.TUNED["explanation"]] == 0.0
    assert values["acc", "fakeclue", study.FROZEN] <= 0.5
    # Both tunings had the same budget.
    log = pd.read_csv(out / "log.csv").groupby("objective")["step"].max()
    assert log.to_dict() == {"label": 40, "explanation": 40}

    first = {file.name: file.read_bytes() for file in out.iterdir()}
    study.run(params)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == first


def test_a_profile_may_leave_loki_out(world):
    write_records([], world / "artifacts/collect/benchmarks/loki")
    tests = study.load_tests(tinyllava.params(world, evaluate={"limit": 4}))
    assert {name: len(records) for name, records in tests.items()} == {"fakeclue": 4}


def test_the_stage_names_the_settings_of_the_evaluation_that_it_uses():
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["study"]
    named = {key.rpartition(".")[2] for key in stage["params"] if ".evaluate" in key}
    code = Path(study.__file__).read_text()
    assert named == set(re.findall(r"params\.evaluate\.(\w+)", code))
