"""Which images count as human: ImageNet's people, a detector's boxes, a 22k head's sum, the stage."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo

from fakevlm.categorize import person, synsets
from fakevlm.config.params import Person
from fakevlm.errors import UserError
from fakevlm.tools import wordnet
from tinyeva import assigned, collected, tiny_detector, tiny_head, tiny_model

# As in WordNet 3.0's data.noun: person, below it a ruler, a sovereign and Circe (an instance); a thing.
NOUNS = """\
  1 This software and database is being provided to you, the LICENSEE, by Princeton University
00007846 03 n 02 person 0 soul 1 002 @ 00004475 n 0000 + 01761706 a 0101 | a human being
10541229 18 n 02 ruler 0 swayer 0 002 @ 00007846 n 0000 ~ 10628644 n 0000 | a person who rules
10628644 18 n 03 sovereign 0 crowned_head 0 monarch 0 001 @ 10541229 n 0000 | a nation's ruler
09493983 18 n 01 Circe 0 001 @i 10628644 n 0000 | a queen of a sort | who sings
04118538 06 n 02 ruler 0 rule 0 001 @ 03733925 n 0000 | measuring stick
"""


def test_people_are_the_synsets_below_person(tmp_path: Path) -> None:
    above = wordnet.hypernyms(NOUNS.splitlines())
    assert (above["n09493983"], above["n00007846"]) == (["n10628644"], ["n00004475"]), "hypernyms alone"
    assert wordnet.below(wordnet.PERSON, above) == {"n00007846", "n10541229", "n10628644", "n09493983"}
    (tmp_path / "data.noun").write_text(NOUNS)
    assert wordnet.main(tmp_path / "data.noun", tmp_path / "persons.txt") == 3
    assert set((tmp_path / "persons.txt").read_text().split()) <= synsets.persons()


def test_the_list_of_people_is_imagenets() -> None:
    people, head = synsets.persons(), ImageNetInfo("imagenet-22k").label_names()
    assert len(people & set(head)) == 2_836  # Yang et al. (FAT* 2020) counted 2,832 in the release before
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


def test_models_without_people_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no label 'person' but cat, dog, n/a"):
        person.detector(detecting(tiny_detector(tmp_path / "yolos", label="cat")))
    with pytest.raises(UserError, match="cannot be loaded"):
        person.detector(detecting(tmp_path))
    head = tiny_head(tmp_path / "head", {}, 1000)
    with pytest.raises(UserError, match="only 3 classes of people"):
        person.head(Person(kind="head", model=str(head), score=0.5))


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


@pytest.mark.parametrize("wrong", [{"kind": "detector"}, {"kind": "head", "min_area": 0.1}])
def test_min_area_goes_with_a_detector_alone(wrong: dict) -> None:
    with pytest.raises(ValueError, match="needs min_area"):
        Person(model="x", score=0.5, **wrong)
