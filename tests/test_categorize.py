"""Categories: the synset table, the classifier's bookkeeping, and a training that must learn something."""

import csv
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from timm.data import ImageNetInfo

from fakevlm.categorize import assign, eva, synsets, train
from fakevlm.config.params import Categorize, load_params
from fakevlm.data.ground_truth import GroundTruth, write_ground_truth
from fakevlm.data.records import Record, write_records
from fakevlm.errors import UserError

TINY = Categorize(
    model=None,
    person=None,
    image_size=16,
    patch_size=4,
    width=16,
    depth=1,
    heads=2,
    epochs=12,
    batch_size=16,
    learning_rate=4e-3,
)
COLOURS = {"animal": (200, 40, 40), "human": (40, 200, 40), "object": (40, 40, 200), "scene": (200, 200, 40)}
SYNSETS = {"animal": "n02099601", "human": "n10148035", "object": "n03063599", "scene": "n09428293"}


def picture(category: str, seed: int, size: int = 16) -> bytes:
    noise = np.random.default_rng(seed).normal(0, 25, (size, size, 3))
    pixels = np.clip(np.array(COLOURS[category]) + noise, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def collected(n: int = 24) -> list[Record]:
    """Photographs with synsets, fakes and Chameleon's images without category, and two sources that have one."""
    rows = []
    for c, category in enumerate(COLOURS):
        for k in range(n):
            name = f"genimage/real/{SYNSETS[category]}_{k}.JPEG"
            rows.append(Record(name, picture(category, 100 * c + k), 1, "genimage", name))
        for k in range(4):
            name = f"genimage/fake/adm/x{c}_{k}.PNG"
            rows.append(Record(name, picture(category, 1000 + 10 * c + k), 0, "genimage", name))
        name = f"chameleon/fake/{category}.jpg"
        rows.append(Record(name, picture(category, 2000 + c), 0, "chameleon", name))
    rows.append(Record("doc/real/a.png", picture("object", 1), 1, "doc", "doc/real/a.png", category="doc"))
    rows.append(Record("ff++/real/0.png", picture("human", 1), 1, "ff++", "0", category="deepfake"))
    return rows


def test_table_lists_imagenet_in_order():
    rows = synsets.table()
    assert [row["synset"] for row in rows] == ImageNetInfo().label_names()
    assert [int(row["index"]) for row in rows] == list(range(1000))
    info = ImageNetInfo()
    assert all(row["lemma"] == info.index_to_description(n).split(",")[0] for n, row in enumerate(rows))
    assert Counter(row["category"] for row in rows) == {"animal": 398, "human": 3, "object": 537, "scene": 62}


@pytest.mark.parametrize(
    ("synset", "category"),
    [
        ("n02099601", "animal"),  # golden retriever
        ("n01440764", "animal"),  # tench, the first
        ("n02655020", "animal"),  # puffer, the last animal
        ("n02666196", "object"),  # abacus, the first that is none
        ("n09835506", "human"),  # ballplayer
        ("n03028079", "scene"),  # church
        ("n09193705", "scene"),  # alp
        ("n09229709", "object"),  # bubble: a natural object, not a place
        ("n07753592", "object"),  # banana
        ("n04146614", "object"),  # school bus
    ],
)
def test_known_synsets(synset, category):
    assert synsets.synset_category(synset) == category


def test_wordnets_files_agree_with_the_table_on_animals_and_people():
    for row in synsets.table():
        by_number = synsets.lexicographer_category(row["synset"])
        for category in ("animal", "human"):
            assert (row["category"] == category) == (by_number == category), row


def test_the_22k_head_knows_people_and_places():
    info = ImageNetInfo("imagenet-22k")
    lemma = {info.index_to_description(n).split(",")[0]: s for n, s in enumerate(info.label_names())}
    expected = {
        "widow": "human", "person": "human", "wing commander": "human", "range animal": "animal", "barrio": "scene",
        "swamp": "scene", "welwitschia": "object", "Irish coffee": "object", "airfield": "object",
    }  # fmt: skip
    assert {name: synsets.synset_category(lemma[name]) for name in expected} == expected
    with pytest.raises(UserError, match="synset"):
        synsets.lexicographer_category("dog")


def test_membership_sums_to_the_categories():
    labels = ["n02099601", "n03028079", "n10148035", "n07753592", "n01440764"]
    matrix = synsets.membership(labels)
    np.testing.assert_array_equal(np.array([0.1, 0.2, 0.3, 0.15, 0.25]) @ matrix, [0.35, 0.3, 0.15, 0.2])
    np.testing.assert_array_equal(synsets.membership(synsets.FOUR), np.eye(4))


def test_truth_comes_from_the_miniature_then_from_the_file_name():
    def record(name, label, source="genimage"):
        return Record(name, b"", label, source, name)

    nature = record("genimage/real/n02099601_12.JPEG", 1)
    assert synsets.nature_category(nature) == "animal"
    assert synsets.nature_category(record("chameleon/real/n02099601_12.JPEG", 1, "chameleon")) is None
    assert synsets.nature_category(record("genimage/real/ILSVRC2012_val_00000293.JPEG", 1)) is None
    for name, category in {
        "416_adm_45.PNG": "object",  # balance beam
        "000_sdv5_00012.png": "animal",  # tench
        "VQDM_1000_200_00_979_vqdm_00012.png": "scene",  # valley
        "982_midjourney_3.png": "human",  # groom
    }.items():
        assert synsets.generated_category(record(f"genimage/fake/x/{name}", 0)) == category
    truths = {nature.path: GroundTruth(nature.path, 1, "scene")}
    assert synsets.true_category(nature, truths) == "scene"
    assert synsets.true_category(nature, {nature.path: GroundTruth(nature.path, 1, "doc")}) == "animal"
    assert synsets.true_category(record("chameleon/fake/a.jpg", 0, "chameleon"), {}) is None


def test_model_is_an_eva02():
    model = eva.build(load_params("mini").categorize, 1)
    block = model.blocks[0]
    assert type(model).__name__ == "Eva"
    assert type(block.mlp).__name__ == "SwiGLU"
    assert type(block.mlp.norm).__name__ == "LayerNorm"  # sub-LN
    assert model.rope is not None


def test_saved_model_gives_the_same_probabilities(tmp_path: Path):
    classifier = eva.wrap(eva.build(TINY, 3), synsets.FOUR)
    images = [Image.open(io.BytesIO(picture("animal", n, 40))).convert("RGB") for n in range(3)]
    before = classifier.probabilities(images)
    np.testing.assert_allclose(before.sum(1), 1, rtol=1e-5)
    eva.save(classifier, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again = eva.load(tmp_path)
    assert again.labels == list(synsets.FOUR)
    np.testing.assert_array_equal(again.probabilities(images), before)
    assert type(timm.create_model(f"local-dir:{tmp_path}", pretrained=True)).__name__ == "Eva"


def test_a_named_imagenet_model_is_summed_into_categories(tmp_path: Path):
    """A folder of a 1,000-class EVA-02 without label names: the classes are ImageNet's, in order."""
    model = timm.create_model(
        "eva02_tiny_patch14_224", img_size=28, embed_dim=24, depth=1, num_heads=2, ref_feat_shape=(2, 2), num_classes=1000
    )  # fmt: skip
    model.head.weight.data.zero_()
    model.head.bias.data.zero_()
    model.head.bias.data[978] = 30.0  # seashore
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    classifier = eva.load(tmp_path)
    scores = classifier.probabilities([Image.new("RGB", (50, 40))])
    assert scores.shape == (1, 4)
    assert synsets.FOUR[scores.argmax()] == "scene"
    assert scores.max() > 0.99


def test_a_wrong_model_name_is_the_users_error(tmp_path: Path):
    with pytest.raises(UserError, match="no_such_model"):
        eva.load("no_such_model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded"):
        eva.load(tmp_path)


def test_split_holds_out_some_of_each_category():
    categories = ["animal"] * 40 + ["human"] * 4 + ["object"] * 20
    held = train.split(categories, 1)
    assert Counter(np.array(categories)[held]) == {"animal": 6, "human": 1, "object": 3}
    np.testing.assert_array_equal(held, train.split(categories, 1))
    assert (held != train.split(categories, 2)).any()


def test_whitened_patches_are_uncorrelated():
    pixels = torch.randn(60, 3, 16, 16, generator=torch.Generator().manual_seed(1)).cumsum(-1).cumsum(-2) / 8
    model = eva.build(TINY, 1)
    train.whiten(model, pixels)
    out = model.patch_embed.proj(pixels).flatten(2).transpose(1, 2).reshape(-1, TINY.width).detach()
    covariance = torch.cov(out.T)
    assert out.mean(0).abs().max() < 0.02
    assert (covariance - torch.diag(covariance.diag())).abs().max() < 0.02
    assert (covariance.diag() > 0.3).all()
    assert (covariance.diag() < 1.0).all()


def test_augmentation_keeps_shape_and_is_seeded():
    batch = torch.rand(5, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    first, again, other = (train.augment(batch, torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    assert first.shape == batch.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.min() >= 0
    assert first.max() <= 1


def test_assign_learns_and_is_repeatable(tmp_path: Path):
    rows = collected()
    write_records(rows, tmp_path / "records")
    truth = tmp_path / "truth.jsonl"
    fakes = [r for r in rows if r.label == 0]
    names = dict(zip("0123", COLOURS, strict=True))
    write_ground_truth(
        (
            GroundTruth(
                r.path, 0, Path(r.path).stem if r.source == "chameleon" else names[r.path.split("/x")[1][0]]
            )
            for r in fakes
        ),
        truth,
    )
    params = load_params("mini").model_copy(update={"categorize": TINY})
    outcome = assign.assign(params, tmp_path / "records", truth, tmp_path / "a")

    table = pd.read_parquet(tmp_path / "a" / "categories.parquet").set_index("id")
    assert list(table.index) == sorted(r.id for r in rows)
    assert table.loc["doc/real/a.png"].to_dict() == {"category": "doc", "confidence": 1.0, "origin": "source"}
    assert table.loc["ff++/real/0.png", "category"] == "deepfake"
    assert set(table.origin[[r.id for r in rows if r.source in ("genimage", "chameleon")]]) == {"model"}

    held = 4 * round(0.15 * 24)
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics == outcome.metrics
    assert metrics["n_train"] == 4 * 24 - held
    assert metrics["n"] == len(fakes) + held  # never the images it was trained on
    assert metrics["accuracy"] > 0.9, metrics
    with (tmp_path / "a" / "confusion.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 16
    assert sum(int(cell["n"]) for cell in cells) == metrics["n"]
    right = sum(int(cell["n"]) for cell in cells if cell["truth"] == cell["predicted"])
    assert right / metrics["n"] == metrics["accuracy"]

    assign.assign(params, tmp_path / "records", truth, tmp_path / "b")
    for file in sorted((tmp_path / "a").rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes(), (
                file.name
            )


def test_a_named_model_trains_nothing(tmp_path: Path):
    write_records(collected(2), tmp_path / "records")
    eva.save(eva.wrap(eva.build(TINY, 3), synsets.FOUR), tmp_path / "model")
    settings = TINY.model_copy(update={"model": str(tmp_path / "model")})
    params = load_params("mini").model_copy(update={"categorize": settings})
    outcome = assign.assign(params, tmp_path / "records", None, tmp_path / "out")
    assert not (tmp_path / "out" / "model").exists()
    assert outcome.metrics["n"] == 8  # the photographs' names are truth that the model never saw
    assert outcome.metrics["n_model"] == len(outcome.categories) - 2
    assert "accuracy_validation" not in outcome.metrics


def test_nothing_to_learn_from_is_said(tmp_path: Path):
    write_records([r for r in collected(2) if r.source != "genimage"], tmp_path / "records")
    params = load_params("mini").model_copy(update={"categorize": TINY})
    with pytest.raises(UserError, match="too few labelled photographs"):
        assign.assign(params, tmp_path / "records", None, tmp_path / "out")


def test_confusion_without_truth_measures_nothing():
    metrics = assign.measure(assign.confusion([], []))
    assert metrics["accuracy"] is None
    assert metrics["n"] == 0
