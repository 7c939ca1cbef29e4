"""Published detectors: checkpoints against the results of their authors' code; scores from a CSV."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fakevlm.config.params import PublishedExpert, load_params
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.evaluation import detectors
from fakevlm.evaluation.detectors import fusing, lnp
from fakevlm.evaluation.detectors.base import build, read_checkpoint
from publishedweights import GOLDEN, IMAGES, PUBLISHED, checkpoint, denoiser, tiny_clip, weights

PARAMS = load_params("mini")


def entry(kind: str, file: str, features: str | None = None) -> PublishedExpert:
    return PublishedExpert(name=kind, kind=kind, weights=file, features=features)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_says_what_the_authors_code_says(name: str, tmp_path: Path) -> None:
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
    assert p.shape == (len(expected),)
    # Images of one size are looked at together, and each is judged as by itself.
    turned = [images[1], images[0].transpose(Image.Transpose.FLIP_TOP_BOTTOM), images[0]]
    np.testing.assert_allclose(
        detector.predict(turned)[[0, 2]], p[[1, 0]], atol=1e-2 if kind == "lnp" else 1e-5
    )
    assert p.dtype == np.float64
    detector.pixels = 1  # a batch that memory would not hold is cut, down to single images
    np.testing.assert_allclose(
        detector.predict(turned)[[0, 2]], p[[1, 0]], atol=1e-2 if kind == "lnp" else 1e-5
    )
    # LNP's pattern is cut to eight bits that wrap around: a sum rounded differently (by another number of
    # threads) shows.
    np.testing.assert_allclose(p, expected, atol=1e-2 if kind == "lnp" else 2e-4)
    assert np.ptp(p) > 0.01


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


def test_univfd_is_a_linear_layer_on_clips_image_features(clip: Path, tmp_path: Path) -> None:
    import torchvision.transforms as T
    from transformers import CLIPModel

    # The layout of the authors' fc_weights.pth, which is bare.
    layer = {
        "weight": 0.3 * torch.randn(1, 768, generator=torch.Generator().manual_seed(1)),
        "bias": torch.ones(1),
    }
    spec = entry("univfd", checkpoint(tmp_path / "fc_weights.pth", layer), str(clip))
    images = [*IMAGES, IMAGES[0].crop((0, 0, 20, 40))]
    p = detectors.load_detector(spec).predict(images)
    prepare = T.Compose(
        [
            T.CenterCrop(28),
            T.ToTensor(),
            T.Normalize([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]),
        ]
    )
    with torch.no_grad():
        pixels = torch.stack([prepare(image) for image in images])
        features = CLIPModel.from_pretrained(clip).eval().get_image_features(pixels)
        features = getattr(features, "pooler_output", features)
        expected = (features @ layer["weight"].T + layer["bias"]).sigmoid()[:, 0]
    np.testing.assert_allclose(p, expected, atol=1e-5)
    assert np.ptp(p) > 0.01


def test_univfd_says_what_its_clip_or_its_layer_lacks(clip: Path, tmp_path: Path) -> None:
    good = checkpoint(tmp_path / "good.pth", {"weight": torch.ones(1, 768), "bias": torch.ones(1)})
    with pytest.raises(UserError, match="no CLIP could be loaded"):
        detectors.load_detector(entry("univfd", good, str(tmp_path)))
    wide = checkpoint(tmp_path / "wide.pth", {"weight": torch.ones(1, 1024), "bias": torch.ones(1)})
    with pytest.raises(UserError, match=r"of another shape \(weight \(1, 1024\) for \(1, 768\)\)"):
        detectors.load_detector(entry("univfd", wide, str(clip)))


# ── files that are something else
# ────────────────────────────────────────────────────────────────────────────────────


class Network(torch.nn.Module):
    """What Gram-Net's authors pickle whole."""


def test_a_pickled_network_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "stylegan-ffhq.pth"
    torch.save(Network(), file)
    with pytest.raises(UserError, match="no plain checkpoint") as caught:
        detectors.load_detector(entry("gramnet", str(file)))
    assert str(file) in str(caught.value)
    assert "network.state_dict()" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>Too many downloads</html>", "no plain checkpoint"),
        ({"epoch": 3}, "holds no state dict, neither bare nor under 'model'"),
        ({"model": {"weight": "none"}}, "holds no state dict"),
        ([torch.ones(1)], "holds no state dict"),
        ({}, "holds no state dict"),
    ],
)
def test_what_is_no_checkpoint_is_named(content, message: str, tmp_path: Path) -> None:
    file = tmp_path / "model.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    with pytest.raises(UserError, match=message) as caught:
        detectors.load_detector(entry("cnnspot", str(file)))
    assert str(file) in str(caught.value)


def test_tensors_must_be_exactly_the_networks(tmp_path: Path) -> None:
    tensors = {"weight": torch.ones(1, 3), "bias": torch.ones(1)}
    network = build(lambda: torch.nn.Linear(3, 1), tensors, "f")
    assert float(network(torch.ones(1, 3))) == 4.0
    assert not network.training
    wrong = {"weight": torch.ones(2, 3), "beta": torch.ones(1)}
    with pytest.raises(UserError) as caught:
        build(lambda: torch.nn.Linear(3, 1), wrong, "f.pth")
    for message in ("f.pth", "1 missing (bias)", "1 unexpected (beta)", "weight (2, 3) for (1, 3)"):
        assert message in str(caught.value)


def test_another_methods_checkpoint_is_refused(tmp_path: Path) -> None:
    file = checkpoint(tmp_path / "fusing.pth", {"model": {"fc1.weight": torch.ones(128, 2048)}})
    messages = {
        "cnnspot": r"missing \(.*1 unexpected \(fc1\.weight\)",
        "gramnet": "neither bare nor under 'netC'",
    }
    for kind, message in messages.items():
        with pytest.raises(UserError, match=message):
            detectors.load_detector(entry(kind, file))


@pytest.mark.parametrize("zipped", [True, False], ids=["today's format", "that of 2020"])
def test_half_precision_and_several_gpus_come_out_the_same(zipped: bool, tmp_path: Path) -> None:
    half = {"module.a": torch.ones(2).half(), "module.b": torch.tensor(3)}
    torch.save({"model": half}, tmp_path / "f", _use_new_zipfile_serialization=zipped)
    tensors = read_checkpoint(str(tmp_path / "f"), "model")
    assert {name: t.dtype for name, t in tensors.items()} == {"a": torch.float32, "b": torch.int64}


# ── parts that can be checked by hand
# ────────────────────────────────────────────────────────────────────────────────


def test_windows_lie_where_features_are_strongest_and_inside_the_image() -> None:
    features = torch.zeros(2, 7, 7)
    features[:, 6, 6] = 9.0
    boxes = fusing.windows(features, 448, 448)
    assert boxes[0] == (224, 224, 448, 448), "the corner, pushed inside"
    assert boxes[3] == (328, 328, 440, 440), "around 12/14 of the side"
    assert [bottom - top for top, _, bottom, _ in boxes] == [224] * 3 + [112] * 3
    wide = fusing.windows(features, 300, 900)
    assert wide[0][1::2] == (423, 647), (
        "around 300 + 11/14 · 300: beside the centre square there is more image"
    )
    assert fusing.windows(features, 100, 80)[0] == (0, 0, 100, 80), "a small image is its own window"


def test_the_pattern_is_stored_as_the_authors_scripts_store_it() -> None:
    """Noise of 1/255, 2/255 and 0 in R, G, B is written as 255, 254 and 0 and read as B, G, R."""

    def denoise(x: torch.Tensor) -> torch.Tensor:
        return -torch.tensor([1 / 255, 2 / 255, -0.3])[:, None, None].expand_as(x)

    pixels = np.asarray(lnp.patterns(denoise, [Image.new("RGB", (4, 3))])[0])
    assert pixels.shape == (3, 4, 3)
    assert (pixels == (0, 254, 255)).all()


def test_the_spectrum_of_a_flat_pattern_is_one_point_in_the_middle() -> None:
    flat = lnp.with_spectrum(torch.ones(1, 3, 5, 6))
    assert flat.shape == (1, 5, 5, 6)
    amplitude = flat[0, 3]
    assert np.unravel_index(int(amplitude.argmax()), amplitude.shape) == (3, 3)
    assert float(amplitude.max()) == pytest.approx(30**0.4, rel=1e-5)


# ── scores from a CSV
# ────────────────────────────────────────────────────────────────────────────────────────────────


def records() -> list[Record]:
    ids = ("ff++/a.png", "ff++/b.png", "ff++/b.png#1")
    return [Record(name, name.encode(), 1, "ff++", name) for name in ids]


def scored(folder: Path, text: str, **changes) -> PublishedExpert:
    (folder / "scores.csv").write_text(text)
    return PublishedExpert(name="SRM", scores=str(folder / "scores.csv"), **changes)


def test_probabilities_are_taken_as_they_are(tmp_path: Path, capsys) -> None:
    spec = scored(tmp_path, "id,p_fake,note\nff++/b.png,0.25,x\nff++/a.png,0.5,y\nff++/c.png,1,z\n")
    frame = detectors.detector(spec, PARAMS)(records(), None)
    assert frame["id"].tolist() == [r.id for r in records()]
    assert frame["p_fake"].tolist() == [0.5, 0.25, 0.25], "one row an image, whatever is asked about it"
    assert frame["verdict"].tolist() == ["fake", "real", "real"]
    assert frame["text"].isna().all()
    assert "1 rows of" in capsys.readouterr().err
    lower = detectors.detector(spec.model_copy(update={"threshold": 0.2}), PARAMS)(records(), None)
    assert lower["verdict"].tolist() == ["fake"] * 3


def test_scores_keep_their_order_and_turn_at_the_threshold(tmp_path: Path) -> None:
    text = "id,score\nff++/a.png,-120.5\nff++/b.png,3\nff++/b.png#1,900\n"
    frame = detectors.detector(scored(tmp_path, text, threshold=3.0), PARAMS)(records(), None)
    assert frame["verdict"].tolist() == ["real", "fake", "fake"]
    assert frame["p_fake"][1] == 0.5
    assert 0 < frame["p_fake"][0] < 0.5 < frame["p_fake"][2] < 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,p_fake\nff++/a.png,0.5\n", "lacks 1 of 2 images, the first 'ff\\+\\+/b.png'; 0 of its 1 rows"),
        ("id,p_fake\nfoo/a.png,0.5\n", "lacks 2 of 2 images.*; 1 of its 1 rows are about no image"),
        ("id,p_fake\nff++/a.png,1.5\nff++/b.png,0\n", "line 2: no id, or p_fake is no number from 0 to 1"),
        ("id,p_fake\nff++/a.png,1\nff++/b.png,\n", "line 3: no id, or p_fake is no number"),
        ("id,p_fake\nff++/a.png,1\nff++/a.png,1\nff++/b.png,1\n", "names 'ff\\+\\+/a.png' twice"),
        ("id,score\nff++/a.png,1\nff++/b.png,1\n", "without a threshold"),
        ("image,p_fake\nff++/a.png,1\n", "has the columns image, p_fake"),
        ("id,p_fake,score\nff++/a.png,1,1\n", "has the columns id, p_fake, score"),
        ("", "no readable CSV"),
    ],
)
def test_a_csv_that_does_not_fit(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        detectors.detector(scored(tmp_path, text), PARAMS)(records(), None)


def test_files_are_looked_for_before_anything_runs(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # the hub does not have it
    here = checkpoint(tmp_path / "there.pth", {})
    for spec, key in (
        (entry("cnnspot", "no/such.pth"), "weights"),
        (entry("lnp", here, "no/sidd.pth"), "features"),
        (PublishedExpert(name="SRM", scores="no/such.csv"), "scores"),
    ):
        with pytest.raises(UserError, match=rf"experts\[\]\.{key}"):
            detectors.detector(spec, PARAMS)
    with pytest.raises(UserError, match="no model could be found under 'no/clip'"):
        detectors.detector(entry("univfd", here, "no/clip"), PARAMS)
