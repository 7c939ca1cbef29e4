"""The synset table, the classifier, and the stage: a training that must learn something."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from timm.data import ImageNetInfo

from fakevlm.categorize import eva, synsets
from fakevlm.data.ground_truth import GroundTruth, write_ground_truth
from fakevlm.data.records import Record, decode
from fakevlm.errors import UserError
from tinyeva import TINY, assigned, collected, picture, tiny_head, tiny_model


def test_table_lists_imagenet_in_order() -> None:
    rows = synsets.table()
    assert [row["synset"] for row in rows] == ImageNetInfo().label_names()
    for row in rows:  # WordNet's files agree with the table on animals and people
        by_number = synsets.lexicographer_category(row["synset"])
        assert {row["category"], by_number} <= {"object", "scene"} or row["category"] == by_number


def test_the_22k_head_has_people_and_places() -> None:
    info = ImageNetInfo("imagenet-22k")
    lemma = {info.index_to_description(n).split(",")[0]: s for n, s in enumerate(info.label_names())}
    names = {"widow": "human", "wing commander": "human", "range animal": "animal", "barrio": "scene"}
    names |= {"swamp": "scene", "welwitschia": "object", "Irish coffee": "object", "airfield": "object"}
    assert {name: synsets.synset_category(lemma[name]) for name in names} == names
    with pytest.raises(UserError, match="synset"):
        synsets.lexicographer_category("dog")


@pytest.mark.parametrize(
    ("name", "source", "truth", "category"),
    [
        ("genimage/real/n02099601_12.JPEG", "genimage", None, "animal"),
        ("genimage/real/n02099601_12.JPEG", "genimage", "scene", "scene"),
        ("genimage/real/n02099601_12.JPEG", "genimage", "doc", "animal"),  # none of the four
        ("chameleon/real/n02099601_12.JPEG", "chameleon", None, None),
        ("genimage/real/ILSVRC2012_val_00000293.JPEG", "genimage", None, None),
        ("genimage/fake/x/416_adm_45.PNG", "genimage", None, "object"),  # balance beam
        ("genimage/fake/x/000_sdv5_00012.png", "genimage", None, "animal"),  # tench
        ("genimage/fake/x/VQDM_1000_200_00_979_vqdm_00012.png", "genimage", None, "scene"),  # valley
        ("genimage/fake/x/982_midjourney_3.png", "genimage", None, "human"),  # groom
    ],
)
def test_true_category_by_ground_truth_then_by_file_name(name, source, truth, category) -> None:
    ground_truth = {name: GroundTruth(name, 1, truth)} if truth else {}
    record = Record(name, b"", 1, source, name)
    assert synsets.true_category(record, ground_truth) == category
    if "/fake/" in name:
        assert synsets.nature_category(record) is None, "no classifier is trained on it"


def test_saved_model_gives_the_same_probabilities(tmp_path: Path) -> None:
    classifier = eva.wrap(eva.build(TINY, 3), synsets.FOUR)
    images = [decode(picture("animal", n, 40)) for n in range(3)]
    before = classifier.probabilities(images)
    np.testing.assert_allclose(before.sum(1), 1, rtol=1e-5)
    eva.save(classifier, tmp_path)
    np.testing.assert_array_equal(eva.load(tmp_path).probabilities(images), before)


def test_a_named_imagenet_model_is_summed_into_categories(tmp_path: Path) -> None:
    # A seashore, and half as likely a tench; no label names: ImageNet's order.
    folder = tiny_head(tmp_path, {978: 30.0, 0: 30.0 - np.log(2)}, 1000)
    scores = eva.load(folder).probabilities([Image.new("RGB", (50, 40))])[0]
    assert dict(zip(synsets.FOUR, scores, strict=True)) == pytest.approx(
        {"animal": 1 / 3, "human": 0, "object": 0, "scene": 2 / 3}, abs=1e-3
    )


def test_a_wrong_model_name_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no_such_model"):
        eva.load("no_such_model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded"):
        eva.load(tmp_path)


def test_assign_learns_and_measures(tmp_path: Path) -> None:
    rows, truth = collected(), tmp_path / "truth.jsonl"
    fakes = [row for row in rows if row.label == 0]
    write_ground_truth([GroundTruth(r.path, 0, Path(r.path).stem.split("_")[0]) for r in fakes], truth)
    outcome = assigned(rows, tmp_path, "a", truth)
    table = pd.read_parquet(tmp_path / "a" / "categories.parquet").set_index("id")
    assert list(table.index) == sorted(row.id for row in rows)
    assert table.loc["doc/real/a.png"].tolist() == ["doc", 1.0, "source"]
    assert table.loc["ff++/real/0.png"].tolist() == ["deepfake", 1.0, "source"]
    assert set(table.origin[[r.id for r in rows if r.source in ("genimage", "chameleon")]]) == {"model"}
    held = 4 * round(0.15 * 24)
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics == outcome.metrics
    assert metrics["n_train"] == 4 * 24 - held
    assert metrics["n"] == len(fakes) + held  # never the images it was trained on
    assert metrics["accuracy"] > 0.9, metrics
    cells = pd.read_csv(tmp_path / "a" / "confusion.csv")
    assert (len(cells), cells.n.sum()) == (16, metrics["n"])
    assert cells.n[cells.truth == cells.predicted].sum() / metrics["n"] == metrics["accuracy"]


def test_a_named_model_trains_nothing(tmp_path: Path) -> None:
    model = str(tiny_model(tmp_path / "model"))
    outcome = assigned(collected(2), tmp_path / "a", model=model)
    assert not (tmp_path / "a/out/model").exists()
    assert outcome.metrics["n"] == 8  # the photographs' names, which the model was not trained on
    assert outcome.metrics["n_model"] == len(outcome.categories) - 2
    assert "accuracy_validation" not in outcome.metrics
    outcome = assigned([row for row in collected(1) if row.category], tmp_path / "b", model=model)
    assert list(outcome.categories.origin) == ["source", "source"], "nothing to sort or to measure"
    assert (outcome.metrics["accuracy"], outcome.metrics["n"]) == (None, 0)


def test_nothing_to_learn_from_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few labelled photographs"):
        assigned([row for row in collected(2) if row.source != "genimage"], tmp_path)
