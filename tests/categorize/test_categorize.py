"""The synset table, the classifier, who counts as human, and the stage: a training that must learn."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import ImageNetInfo

import tinyllava
from fakevlm.categorize import eva, person, synsets
from fakevlm.config.params import Person
from fakevlm.data.ground_truth import GroundTruth, write_ground_truth
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.tools import wordnet
from smallworld import content
from tinyeva import TINY, assigned, collected, tiny_detector, tiny_head, tiny_model

# As in WordNet 3.0's data.noun: person, below it a ruler, a sovereign and Circe (an instance); a thing.
NOUNS = """\
  1 This software and database is being provided to you, the LICENSEE, by Princeton University
00007846 03 n 02 person 0 soul 1 002 @ 00004475 n 0000 + 01761706 a 0101 | a human being
10541229 18 n 02 ruler 0 swayer 0 002 @ 00007846 n 0000 ~ 10628644 n 0000 | a person who rules
10628644 18 n 03 sovereign 0 crowned_head 0 monarch 0 001 @ 10541229 n 0000 | a nation's ruler
09493983 18 n 01 Circe 0 001 @i 10628644 n 0000 | a queen of a sort | who sings
04118538 06 n 02 ruler 0 rule 0 001 @ 03733925 n 0000 | measuring stick
"""


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


@pytest.mark.parametrize(
    ("name", "source", "true", "category"),
    [
        ("genimage/real/n02099601_12.JPEG", "genimage", None, "animal"),
        ("genimage/real/n02099601_12.JPEG", "genimage", "scene", "scene"),
        ("genimage/real/n02099601_12.JPEG", "genimage", "doc", "animal"),  # none of the four
        ("chameleon/real/n02099601_12.JPEG", "chameleon", None, None),
        ("genimage/real/ILSVRC2012_val_00000293.JPEG", "genimage", None, None),
        ("genimage/fake/x/000_sdv5_00012.png", "genimage", None, "animal"),  # tench
        ("genimage/fake/x/VQDM_1000_200_00_979_vqdm_00012.png", "genimage", None, "scene"),  # valley
        ("genimage/fake/x/982_midjourney_3.png", "genimage", None, "human"),  # groom
    ],
)
def test_true_category_by_ground_truth_then_by_file_name(name, source, true, category) -> None:
    ground_truths = {name: GroundTruth(name, 1, true)} if true else {}
    record = Record(name, b"", 1, source, name)
    assert synsets.true_category(record, ground_truths) == category
    if "/fake/" in name:
        assert synsets.nature_category(record) is None, "no classifier is trained on it"


def test_a_named_imagenet_model_is_summed_into_categories(tmp_path: Path) -> None:
    # A seashore, and half as likely a tench; no label names: ImageNet's order.
    folder = tiny_head(tmp_path, {978: 30.0, 0: 30.0 - np.log(2)}, 1000)
    scores = eva.load(folder).probabilities([Image.new("RGB", (50, 40))])[0]
    assert dict(zip(synsets.FOUR, scores, strict=True)) == pytest.approx(
        {"animal": 1 / 3, "human": 0, "object": 0, "scene": 2 / 3}, abs=1e-3
    )


def test_assign_learns_and_measures(tmp_path: Path) -> None:
    rows, ground_truth = collected(), tmp_path / "ground_truth.jsonl"
    fakes = [row for row in rows if row.label == 0]
    write_ground_truth([GroundTruth(r.path, 0, Path(r.path).stem.split("_")[0]) for r in fakes], ground_truth)
    outcome = assigned(rows, tmp_path, "a", ground_truth)
    table = pd.read_parquet(tmp_path / "a" / "categories.parquet").set_index("id")
    assert list(table.index) == sorted(row.id for row in rows)
    assert table.loc["doc/real/a.png"].tolist() == ["doc", 1.0, "source"]
    assert table.loc["ff++/real/0.png"].tolist() == ["deepfake", 1.0, "source"]
    assert set(table.origin[[r.id for r in rows if r.source in ("genimage", "chameleon")]]) == {"model"}
    held = 4 * round(0.15 * 24)
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics == outcome.metrics
    assert metrics["n"] == len(fakes) + held  # never the images it was trained on
    assert metrics["accuracy"] > 0.9, metrics
    shipped = assigned(rows, tmp_path, "b", ground_truth, model=str(tmp_path / "a/model"))
    assert shipped.categories.equals(outcome.categories)
    assert (shipped.metrics, shipped.log.to_csv()) == (outcome.metrics, outcome.log.to_csv())
    cells = pd.read_csv(tmp_path / "a" / "confusion.csv")
    assert cells.n[cells.true == cells.predicted].sum() / metrics["n"] == metrics["accuracy"]


def test_two_trainings_with_two_threads_end_in_the_same_bytes(tmp_path: Path, two_threads) -> None:
    short = TINY.model_copy(update={"epochs": 2, "batch_size": 8})
    images = [record.pil() for record in tinyllava.records(24, size=16)]
    for name in ("once", "again"):
        eva.save(eva.train(images, [*synsets.FOUR] * 6, short, 3)[0], tmp_path / name)
    assert content(tmp_path / "once") == content(tmp_path / "again")


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


def test_people_are_the_synsets_below_person(tmp_path: Path) -> None:
    above = wordnet.hypernyms(NOUNS.splitlines())
    assert (above["n09493983"], above["n00007846"]) == (["n10628644"], ["n00004475"]), "hypernyms alone"
    assert wordnet.below(wordnet.PERSON, above) == {"n00007846", "n10541229", "n10628644", "n09493983"}
    (tmp_path / "data.noun").write_text(NOUNS)
    assert wordnet.main(tmp_path / "data.noun", tmp_path / "persons.txt") == 3
    assert set((tmp_path / "persons.txt").read_text().split()) <= synsets.persons()


def test_the_list_of_people_is_imagenets() -> None:
    people = synsets.persons()
    in_1k = {row["synset"] for row in synsets.table()}
    assert {row["synset"] for row in synsets.table() if row["category"] == "human"} == people & in_1k
    # All but one (a title, in the file of communication) are in WordNet's own file of persons.
    assert {s for s in people if synsets.lexicographer_category(s) != "human"} == {"n06340977"}


def test_area_that_boxes_cover_together() -> None:
    half, other = (0, 0, 20, 30), (10, 0, 30, 30)
    shares = {(half,): 0.5, (half, half): 0.5, (half, other): 0.75, ((-20, -9, 10, 90),): 0.25, (): 0}
    for boxes, share in shares.items():
        assert person.covered(np.array(boxes).reshape(-1, 4), 40, 30) == pytest.approx(share)


def detecting(folder: Path, **changes: float) -> Person:
    return Person(**{"kind": "detector", "model": str(folder), "score": 0.9, "min_area": 0.15, **changes})


def test_a_detectors_person_makes_an_image_human(tmp_path: Path) -> None:
    folder = tiny_detector(tmp_path / "yolos")
    images = [Image.new("RGB", size) for size in ((64, 40), (30, 90))]
    scores = person.detector(detecting(folder))(images)
    assert scores == pytest.approx([torch.tensor([0.0, 5, 0, 0]).softmax(0)[1].item()] * 2, abs=1e-5)
    # The box covers .5 × .4 of the image.
    assert (person.detector(detecting(folder, min_area=0.25))(images) == 0).all()
    assert (person.detector(detecting(folder, score=0.99))(images) == 0).all()


def test_a_22k_heads_people_are_summed(tmp_path: Path) -> None:
    names = ImageNetInfo("imagenet-22k").label_names()

    def scores(synset: str, score: float) -> np.ndarray:
        folder = tiny_head(tmp_path / f"{synset}{score}", {names.index(synset): 11.0}, 21_841)
        return person.head(Person(kind="head", model=str(folder), score=score))([Image.new("RGB", (40, 50))])

    # exp(11) against one for each other class: .73, and with the other people's share .77.
    expected = (np.exp(11) + 2_836 + 9 - 1) / (np.exp(11) + 21_840)
    assert scores("n10780632", 0.5) == pytest.approx([expected], abs=1e-3)  # widow
    assert scores("n10780632", 0.9) == scores("n09452395", 0.5) == [0]  # too unsure; swamp


def test_models_and_photographs_of_no_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few labelled photographs"):
        assigned([row for row in collected(2) if row.source != "genimage"], tmp_path)
    (tmp_path / "config.json").write_text("{}")
    for name in ("no_such_model", tmp_path):
        with pytest.raises(UserError, match=f"{name}.* cannot be loaded"):
            eva.load(name)
    with pytest.raises(UserError, match="no label 'person' but cat, dog, n/a"):
        person.detector(detecting(tiny_detector(tmp_path / "yolos", label="cat")))
    with pytest.raises(UserError, match=r"categorize.person.model.* could be loaded"):
        person.detector(detecting(tmp_path))
    damaged = tiny_detector(tmp_path / "damaged")
    tensors = load_file(damaged / "model.safetensors")
    del tensors["vit.layernorm.weight"]
    save_file(tensors, damaged / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"1 missing \(vit.layernorm.weight\)"):
        person.detector(detecting(damaged))
    with pytest.raises(UserError, match="only 3 classes of people"):
        person.head(Person(kind="head", model=str(tiny_head(tmp_path / "head", {}, 1000)), score=0.5))
    for wrong in ({"kind": "detector"}, {"kind": "head", "min_area": 0.1}):
        with pytest.raises(ValueError, match="needs min_area"):
            Person(model="x", score=0.5, **wrong)


def test_the_stage_asks_the_detector(tmp_path: Path) -> None:
    model, folder = str(tiny_model(tmp_path / "model")), tiny_detector(tmp_path / "yolos")
    judges = {"alone": None, "judged": detecting(folder), "small": detecting(folder, min_area=0.5)}
    alone, judged, small = (
        assigned(collected(2), tmp_path, name, model=model, person=judge) for name, judge in judges.items()
    )
    assert "n_human_by_person" not in alone.metrics
    by_model = judged.categories.query("origin == 'model'")
    assert set(by_model.category) == {"human"}
    assert by_model.confidence.between(0.9, 1).all()
    others = alone.categories.query("origin == 'model' and category != 'human'")
    assert judged.metrics["n_human_by_person"] == len(others) > 0
    assert set(judged.categories.query("origin == 'source'").category) == {"doc", "deepfake"}
    assert small.categories.equals(alone.categories), "a passer-by changes nothing"
    assert small.metrics["n_human_by_person"] == 0
