"""Who counts as human: the list of ImageNet's people, an object detector's boxes, a 22k head's sum, and the stage with either."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

from fakevlm.categorize import assign, eva, person, synsets
from fakevlm.config.params import Person, load_params
from fakevlm.data.records import write_records
from fakevlm.errors import UserError
from fakevlm.tools import wordnet
from test_categorize import TINY, collected

# In the form of WordNet 3.0's data.noun: person, below it a ruler, a sovereign and, as an instance, Circe; a thing beside them.
NOUNS = """\
  1 This software and database is being provided to you, the LICENSEE, by Princeton University
00007846 03 n 02 person 0 soul 1 002 @ 00004475 n 0000 + 01761706 a 0101 | a human being
10541229 18 n 02 ruler 0 swayer 0 002 @ 00007846 n 0000 ~ 10628644 n 0000 | a person who rules
10628644 18 n 03 sovereign 0 crowned_head 0 monarch 0 001 @ 10541229 n 0000 | a nation's ruler
09493983 18 n 01 Circe 0 001 @i 10628644 n 0000 | a queen of a sort | who sings
04118538 06 n 02 ruler 0 rule 0 001 @ 03733925 n 0000 | measuring stick
"""


def test_people_are_what_stands_below_person() -> None:
    above = wordnet.hypernyms(NOUNS.splitlines())
    assert above["n09493983"] == ["n10628644"]
    assert above["n00007846"] == ["n00004475"], "other pointers are no hypernyms"
    assert wordnet.below(wordnet.PERSON, above) == {"n00007846", "n10541229", "n10628644", "n09493983"}


def test_the_list_of_people_is_imagenets(tmp_path: Path) -> None:
    people = synsets.persons()
    head = ImageNetInfo("imagenet-22k").label_names()
    assert len(people) == 2_837
    assert len(people & set(head)) == 2_836  # Yang et al. (FAT* 2020) counted 2,832 in the release before
    assert wordnet.PERSON in people
    in_1k = people & {row["synset"] for row in synsets.table()}
    assert {row["synset"] for row in synsets.table() if row["category"] == "human"} == in_1k
    # WordNet's own file of persons holds all of them but one (a title, in the file of communication).
    assert {s for s in people if synsets.lexicographer_category(s) != "human"} == {"n06340977"}
    rest = {s for s in head if synsets.synset_category(s) == "human"} - people
    assert len(rest) == 9  # in that file without "person" above them: baby, captive, mascot, gryphon …
    (tmp_path / "data.noun").write_text(NOUNS)
    assert wordnet.main(tmp_path / "data.noun", tmp_path / "persons.txt") == 3
    assert set((tmp_path / "persons.txt").read_text().split()) <= people


def test_area_that_boxes_cover_together() -> None:
    half, other = (0, 0, 20, 30), (10, 0, 30, 30)
    assert person.covered(np.array([half]), 40, 30) == pytest.approx(0.5)
    assert person.covered(np.array([half, half]), 40, 30) == pytest.approx(0.5), "not counted twice"
    assert person.covered(np.array([half, other]), 40, 30) == pytest.approx(0.75)
    assert person.covered(np.array([(-20, -9, 10, 90)]), 40, 30) == pytest.approx(0.25), "inside the image"
    assert person.covered(np.zeros((0, 4)), 40, 30) == 0


def tiny_detector(folder: Path, label: str = "person", box: tuple[float, ...] = (0.5, 0.5, 0.5, 0.4)) -> Path:
    """A YOLOS of random weights that sees `label` in one box (centre, width, height) of every picture, and sees it surely."""
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        patch_size=16, num_detection_tokens=3, id2label={0: "N/A", 1: label, 2: "dog"}, use_mid_position_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = YolosForObjectDetection(config)
    for layers, bias in (
        (model.class_labels_classifier.layers, (0.0, 5.0, 0.0, 0.0)),
        (model.bbox_predictor.layers, torch.logit(torch.tensor(box))),
    ):
        torch.nn.init.zeros_(layers[-1].weight)
        layers[-1].bias.data = torch.as_tensor(bias)
    model.save_pretrained(folder)
    YolosImageProcessor(size={"shortest_edge": 32, "longest_edge": 48}).save_pretrained(folder)
    return folder


def detecting(folder: Path, **changes: float) -> Person:
    return Person(**{"kind": "detector", "model": str(folder), "score": 0.9, "min_area": 0.15, **changes})


def test_a_detectors_person_makes_an_image_human(tmp_path: Path) -> None:
    folder = tiny_detector(tmp_path / "yolos")
    images = [Image.new("RGB", size) for size in ((64, 40), (30, 90))]
    sure = person.detector(detecting(folder))(images)
    assert sure.shape == (2,)
    assert sure == pytest.approx(np.full(2, torch.tensor([0.0, 5, 0, 0]).softmax(0)[1].item()), abs=1e-5)
    # The box covers .5 × .4 of the image.
    assert (person.detector(detecting(folder, min_area=0.25))(images) == 0).all()
    assert (person.detector(detecting(folder, score=0.99))(images) == 0).all()


def test_the_real_detectors_class_loads_by_its_auto_class(tmp_path: Path) -> None:
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )  # fmt: skip
    config = DetrConfig(
        backbone_config=backbone, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=4, id2label={0: "N/A", 1: "person"},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = DetrForObjectDetection(config)
    torch.nn.init.zeros_(model.class_labels_classifier.weight)
    model.class_labels_classifier.bias.data = torch.tensor([0.0, 6.0, 0.0])
    model.save_pretrained(tmp_path)
    DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(tmp_path)
    sure = person.detector(detecting(tmp_path, min_area=0.01))([Image.new("RGB", (80, 60))])
    assert sure == pytest.approx([torch.tensor([0.0, 6, 0]).softmax(0)[1].item()], abs=1e-5)


def test_a_detector_without_persons_is_refused(tmp_path: Path) -> None:
    folder = tiny_detector(tmp_path / "yolos", label="cat")
    with pytest.raises(UserError, match="no label 'person' but cat, dog, n/a"):
        person.detector(detecting(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be loaded"):
        person.detector(detecting(tmp_path / "empty"))


def tiny_head(folder: Path, synset: str, classes: int = 21_841) -> Path:
    """An EVA-02 of timm's with a 22k head that sees one class in every picture."""
    model = timm.create_model(
        "eva02_tiny_patch14_224", img_size=28, embed_dim=24, depth=1, num_heads=2, ref_feat_shape=(2, 2), num_classes=classes
    )  # fmt: skip
    model.head.weight.data.zero_()
    model.head.bias.data.zero_()
    subset = "imagenet-22k" if classes > 20_000 else "imagenet-1k"
    model.head.bias.data[ImageNetInfo(subset).label_names().index(synset)] = 11.0
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return folder


def test_a_22k_heads_people_are_summed(tmp_path: Path) -> None:
    images = [Image.new("RGB", (40, 50))] * 2
    widow = tiny_head(tmp_path / "widow", "n10780632")
    # exp(11) against one for each of the others: .73, and with the other people's share .77.
    expected = (np.exp(11) + 2_836 + 9 - 1) / (np.exp(11) + 21_840)
    judge = person.head(Person(kind="head", model=str(widow), score=0.5))
    assert judge(images) == pytest.approx([expected] * 2, abs=1e-3)
    assert (person.head(Person(kind="head", model=str(widow), score=0.9))(images) == 0).all()
    swamp = tiny_head(tmp_path / "swamp", "n09452395")
    assert (person.head(Person(kind="head", model=str(swamp), score=0.5))(images) == 0).all()


def test_a_head_that_knows_no_people_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only 3 classes of people"):
        person.head(Person(kind="head", model=str(tiny_head(tmp_path, "n10148035", 1000)), score=0.5))


def test_the_stage_asks_the_detector(tmp_path: Path) -> None:
    rows = collected(2)
    write_records(rows, tmp_path / "records")
    eva.save(eva.wrap(eva.build(TINY, 3), synsets.FOUR), tmp_path / "model")

    def run(name: str, judge: Person | None) -> assign.Outcome:
        settings = TINY.model_copy(update={"model": str(tmp_path / "model"), "person": judge})
        params = load_params("mini").model_copy(update={"categorize": settings})
        return assign.assign(params, tmp_path / "records", None, tmp_path / name)

    alone = run("alone", None)
    assert "n_human_by_person" not in alone.metrics
    folder = tiny_detector(tmp_path / "yolos")
    judged = run("judged", detecting(folder))
    by_model = judged.categories.query("origin == 'model'")
    assert set(by_model.category) == {"human"}
    assert by_model.confidence.between(0.9, 1).all()
    others = alone.categories.query("origin == 'model' and category != 'human'")
    assert judged.metrics["n_human_by_person"] == len(others) > 0
    assert set(judged.categories.query("origin == 'source'").category) == {"doc", "deepfake"}
    small = run("small", detecting(folder, min_area=0.5))
    assert small.categories.equals(alone.categories), "a passer-by changes nothing"
    assert small.metrics["n_human_by_person"] == 0


@pytest.mark.parametrize("wrong", [{"kind": "detector"}, {"kind": "head", "min_area": 0.1}])
def test_min_area_goes_with_a_detector_alone(wrong: dict) -> None:
    with pytest.raises(ValueError, match="needs min_area"):
        Person(model="x", score=0.5, **wrong)
