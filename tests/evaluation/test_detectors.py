"""Published detectors: checkpoints against the results of their authors' code; scores from a CSV."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms as T
from PIL import Image
from transformers import CLIPModel

from fakevlm.config.params import PublishedExpert, load_params
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.evaluation import detectors
from fakevlm.evaluation.detectors.base import load_network
from publishedweights import GOLDEN, IMAGES, PUBLISHED, checkpoint, denoiser, linear_layer, tiny_clip, weights

PARAMS = load_params("mini")


def entry(kind: str, file: str, features: str | None = None) -> PublishedExpert:
    return PublishedExpert(name=kind, kind=kind, weights=file, features=features)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_gives_the_probabilities_of_the_authors_code(name: str, tmp_path: Path) -> None:
    kind, wrapper = PUBLISHED[name]
    tensors = dict(weights(name))
    if name == "gramnet1":  # as its training script saves it
        tensors = {f"module.{key}": tensor for key, tensor in tensors.items()}
    content = {wrapper: tensors, "optimizer": {"state": {}}, "total_steps": 3} if wrapper else tensors
    file = checkpoint(tmp_path / "published.pth", content)
    detector = detectors.load_detector(entry(kind, file, denoiser(tmp_path) if kind == "lnp" else None))
    expected = GOLDEN["p_fake"][name]
    images = IMAGES[: len(expected)]
    p = detector.predict(images)
    assert p.dtype == np.float64
    assert np.ptp(p) > 0.01
    # LNP's pattern is cut to eight bits that wrap around: a sum rounded differently (by another number of
    # threads) shows.
    loose = 1e-2 if kind == "lnp" else None
    np.testing.assert_allclose(p, expected, atol=loose or 2e-4)
    # Images of one size share a batch, and each is judged as by itself.
    mixed = [images[1], images[0].transpose(Image.Transpose.FLIP_TOP_BOTTOM), images[0]]
    detector.pixels = 1 if name == "cnnspot" else detector.pixels  # a batch that memory would not hold is cut
    np.testing.assert_allclose(detector.predict(mixed)[[0, 2]], p[[1, 0]], atol=loose or 1e-5)


def test_univfd_is_a_linear_layer_on_clips_image_features(tmp_path: Path) -> None:
    file, clip = linear_layer(tmp_path), tiny_clip(tmp_path / "clip")
    images = [*IMAGES, IMAGES[0].crop((0, 0, 20, 40))]
    p = detectors.load_detector(entry("univfd", file, str(clip))).predict(images)
    statistics = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    prepare = T.Compose([T.CenterCrop(28), T.ToTensor(), T.Normalize(*statistics)])
    layer = torch.load(file, weights_only=True)
    with torch.no_grad():
        pixels = torch.stack([prepare(image) for image in images])
        features = CLIPModel.from_pretrained(clip).eval().get_image_features(pixels)
        features = getattr(features, "pooler_output", features)
        expected = (features @ layer["weight"].T + layer["bias"]).sigmoid()[:, 0]
    np.testing.assert_allclose(p, expected, atol=1e-5)
    assert np.ptp(p) > 0.01
    with pytest.raises(UserError, match="no model could be loaded"):
        detectors.load_detector(entry("univfd", file, str(tmp_path)))


OTHERS = {"model": {"fc1.weight": torch.ones(128, 2048), "fc.bias": torch.ones(2)}}
NO_CHECKPOINTS = {
    "pickled": (torch.nn.Identity(), "no plain checkpoint"),
    "html": (b"<html>Too many downloads</html>", "no plain checkpoint"),
    "epoch": ({"epoch": 3}, "holds no state dict, neither bare nor under 'model'"),
    "list": ([torch.ones(1)], "holds no state dict"),
    "another method's": (OTHERS, "does not hold.*Missing.*bn1.*Unexpected.*fc1.weight.*mismatch for fc.bias"),
}


@pytest.mark.parametrize(("content", "message"), NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_named(content, message: str, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    torch.save(content, file)
    if isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        detectors.load_detector(entry("cnnspot", str(file)))
    assert str(file) in str(caught.value)
    assert ("network.state_dict()" in caught.value.cure) == ("plain" in message)


@pytest.mark.parametrize("zipped", [True, False], ids=["today's format", "that of 2020"])
def test_half_precision_and_several_gpus_come_out_the_same(zipped: bool, tmp_path: Path) -> None:
    half = {"module.weight": torch.ones(1, 2).half(), "module.bias": torch.ones(1).half()}
    torch.save({"model": half}, tmp_path / "f", _use_new_zipfile_serialization=zipped)
    network = load_network(str(tmp_path / "f"), "model", lambda _: torch.nn.Linear(2, 1))
    assert network(torch.ones(1, 2).to(network.weight.device)).item() == 3
    assert network.weight.dtype == torch.float32


def answers(folder: Path, text: str, **changes) -> dict:
    """The answers of a CSV about two images, the second with two questions."""
    (folder / "scores.csv").write_text(text)
    spec = PublishedExpert(name="SRM", scores=str(folder / "scores.csv"), **changes)
    ids = ("ff++/a.png", "ff++/b.png", "ff++/b.png#1")
    columns = detectors.read_scores(spec, [Record(name, name.encode(), 1, "ff++", name) for name in ids])
    return {name: list(columns[name]) for name in ("text", "p_fake", "verdict")}


def test_probabilities_are_kept_and_scores_turn_at_the_threshold(tmp_path: Path, capsys) -> None:
    text = "id,p_fake,note\nff++/b.png,0.25,x\nff++/a.png,0.5,y\nff++/c.png,1,z\n"
    columns = answers(tmp_path, text)  # one row an image, whatever is asked about it
    assert columns["p_fake"] == [0.5, 0.25, 0.25]
    assert (columns["verdict"], columns["text"]) == (["fake", "real", "real"], [None] * 3)
    assert "1 rows of" in capsys.readouterr().err
    assert answers(tmp_path, text, threshold=0.2)["verdict"] == ["fake"] * 3

    text = "id,score\nff++/a.png,-120.5\nff++/b.png,3\nff++/b.png#1,900\n"
    columns = answers(tmp_path, text, threshold=3.0)
    assert columns["verdict"] == ["real", "fake", "fake"]
    assert 0 < columns["p_fake"][0] < columns["p_fake"][1] == 0.5 < columns["p_fake"][2] < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,p_fake\nff++/a.png,0.5\n", "lacks 1 of 2 images, the first 'ff\\+\\+/b.png'; 0 of its 1 rows"),
        ("id,p_fake\nfoo/a.png,0.5\n", "lacks 2 of 2 images.*; 1 of its 1 rows are about no image"),
        ("id,p_fake\nff++/a.png,1.5\nff++/b.png,0\n", "line 2: no id, or p_fake is no number from 0 to 1"),
        ("id,p_fake\nff++/a.png,1\nff++/b.png,\n", "line 3: no id, or p_fake is no number"),
        ("id,p_fake\nff++/a.png,1\nff++/a.png,1\nff++/b.png,1\n", "names 'ff\\+\\+/a.png' twice"),
        ("id,score\nff++/a.png,1\nff++/b.png,1\n", "without a threshold"),
        ("image,p_fake\nff++/a.png,1\n", "has the columns image, p_fake"),
        ("id,p_fake,score\nff++/a.png,1,1\n", "has the columns id, p_fake, score"), ("", "no readable CSV"),
    ],
)  # fmt: skip
def test_a_csv_that_does_not_fit(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        answers(tmp_path, text)


def test_files_are_looked_for_before_anything_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the hub does not have it
    here = checkpoint(tmp_path / "there.pth", {})
    missing = {
        r"experts\[\]\.weights": entry("cnnspot", "no/such.pth"),
        r"experts\[\]\.features": entry("lnp", here, "no/sidd.pth"),
        r"experts\[\]\.scores": PublishedExpert(name="SRM", scores="no/such.csv"),
        "DVC checks for changes": PublishedExpert(name="SRM", scores=here),
        "no model could be found under 'no/clip'": entry("univfd", here, "no/clip"),
    }
    for message, spec in missing.items():
        with pytest.raises(UserError, match=message):
            detectors.published(spec, PARAMS)
