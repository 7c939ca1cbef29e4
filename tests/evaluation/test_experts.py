"""Expert detectors: features and augmentation by plain arithmetic, and three trainings on tiny images."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import tinyllava
from conftest import killed_after
from fakevlm import paths
from fakevlm.cache import Cache
from fakevlm.config.params import Experts, Params
from fakevlm.errors import UserError
from fakevlm.evaluation import experts
from fakevlm.model.llava import load_model, load_processor
from smallworld import content
from tinyeva import RESNET

TINY = Experts(
    epochs=4, batch_size=8, learning_rate=0.01, precision="bf16", cnnspot=RESNET, spectrum_size=32,
    train=list(experts.EXPERTS),
)  # fmt: skip


@pytest.fixture
def params(base: Path, project: Path) -> Params:
    return tinyllava.params(base).model_copy(update={"experts": TINY})


def test_linear_is_scikit_learns_on_standardised_features():
    """Four features, the last of which never varies, and targets that the first two nearly tell."""
    rng = np.random.default_rng(1)
    x = rng.normal(3, [1, 5, 0.1, 0], (300, 4)).astype(np.float32)
    y = (x[:, 0] - 3 + 0.2 * (x[:, 1] - 3) + rng.normal(0, 0.3, 300) > 0).astype(np.float32)
    model, log = experts.fit_linear(x[:200], y[:200], x[200:], y[200:])
    assert log.chosen.sum() == 1
    assert log.val_auc[log.chosen].item() == log.val_auc.max() > 0.95
    chosen = float(log.setting[log.chosen].item().removeprefix("C="))
    z = StandardScaler().fit(x[:200]).transform(x)
    expected = LogisticRegression(C=chosen, max_iter=500).fit(z[:200], y[:200]).predict_proba(z)[:, 1]
    np.testing.assert_allclose(experts.logistic(x, **model), expected, atol=1e-5)


def test_scores_of_validation():
    scores = experts.validation_scores(np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.6, 0.1]))
    assert (scores["val_accuracy"], scores["val_auc"]) == (0.5, 0.75)
    assert scores["val_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.9]).mean())


def test_spectrum_puts_a_wave_into_its_bin_and_crops():
    """cos(π (x + ½) k / 32) is the DCT's k-th basis: all of its energy lies in column k."""
    frequency, bins, side = experts.Frequency(32), experts.BINS, experts.BINS**2
    wave = 100 * np.cos(np.pi * (np.arange(32) + 0.5) * 20 / 32)
    grey = np.rint(np.tile(wave, (32, 1)) + 128).clip(0, 255).astype(np.uint8)
    features = frequency.features([Image.fromarray(np.repeat(grey[..., None], 3, 2))])
    squares = features[0, :side].reshape(bins, bins)
    assert features.shape == (1, side + 2 * experts.BLOCK**2)
    assert squares[0, 0] > 1  # brightness
    squares[0, 0] = 0
    assert np.unravel_index(squares.argmax(), squares.shape) == (0, 20 // (32 // bins))
    mean, most = np.split(features[0, side:], 2)
    assert (most >= mean - 1e-5).all()
    pixels = np.random.default_rng(2).integers(0, 255, (64, 48, 3), dtype=np.uint8)
    large, inner, small = map(Image.fromarray, (pixels, pixels[16:48, 8:40], pixels[:10, :40]))
    np.testing.assert_array_equal(frequency.features([large]), frequency.features([inner]))
    assert frequency.features([small]).shape == features.shape


def test_augmentation_blurs_recompresses_crops_and_mirrors():
    pixels = np.random.default_rng(3).integers(0, 255, (40, 40, 3), dtype=np.uint8)

    def changed(chance: float, crop: int) -> list[np.ndarray]:
        return [experts.augment(pixels, np.random.default_rng(n), chance, crop) for n in range(40)]

    uncropped = changed(0.0, 40)
    mirrored = [np.array_equal(image, pixels[:, ::-1]) for image in uncropped]
    assert all(m or np.array_equal(image, pixels) for m, image in zip(mirrored, uncropped, strict=True))
    assert 8 < sum(mirrored) < 32
    both = changed(1.0, 24)
    assert {image.shape for image in both} == {(24, 24, 3)}
    assert np.mean([image.std() for image in both]) < 0.5 * pixels.std()
    assert 4 <= [image.sum() for image in changed(0.5, 40)].count(pixels.sum()) <= 18  # a quarter


def test_univfd_sees_what_the_llava_sees(base: Path):
    images = [record.pil() for record in tinyllava.records(3)]
    features = experts.UnivFD(str(base)).features(images)
    model, processor = load_model(base), load_processor(base)
    pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"].to(model.device)
    out = model.model.vision_tower(pixels, output_hidden_states=True)
    patches = out.hidden_states[model.config.vision_feature_layer][:, 1:].detach().cpu().numpy()
    parts = [out.pooler_output.detach().cpu().numpy(), patches.mean(1), patches.std(1, ddof=1)]
    np.testing.assert_allclose(features, np.concatenate(parts, 1), rtol=1e-3, atol=1e-5)


def test_train_save_and_load(params: Params, tmp_path: Path):
    train, val, test = (tinyllava.records(n, seed) for n, seed in ((48, 1), (24, 2), (13, 3)))
    with pytest.raises(UserError, match="both classes"):
        experts.train_experts(params, train[::2], val, tmp_path / "fakes alone")
    log = experts.train_experts(params, train, val, tmp_path / "a")
    assert log.groupby("expert").chosen.sum().to_dict() == {"CNNSpot": 1, "UnivFD": 1, "Frequency": 1}
    for name in experts.EXPERTS:
        expert = experts.load_expert(tmp_path / "a" / name)
        p = expert.p_fake(test, batch_size=5)
        assert experts.validation_scores(experts.targets(test), p)["val_auc"] > 0.85, name
        np.testing.assert_allclose(p, expert.predict([record.pil() for record in test]), atol=1e-5)
    config = tmp_path / "a/frequency/config.json"
    size = TINY.spectrum_size
    config.write_text(config.read_text().replace(str(size), str(2 * size)))
    with pytest.raises(UserError, match=r"config\.json is not as it was written"):
        experts.load_expert(config.parent)


def test_killed_it_goes_on_from_the_last_epoch_and_the_features_it_has(
    params: Params, project: Path, tmp_path: Path, monkeypatch
):
    train, val = tinyllava.records(24, 1), tinyllava.records(12, 2)
    experts.train_experts(params, train, val, tmp_path / "at once")
    shutil.rmtree(paths.work())
    epochs, batches = [], []
    p_fake, features = experts.CNNSpot.p_fake, experts.Frequency.features
    monkeypatch.setattr(experts.CNNSpot, "p_fake", lambda *a: epochs.append(a) or p_fake(*a))
    monkeypatch.setattr(experts.Frequency, "features", lambda *a: batches.append(a) or features(*a))
    for calls, owner, name in (2, experts.CNNSpot, "p_fake"), (1, experts.Frequency, "features"):
        with killed_after(calls, owner, name):
            experts.train_experts(params, train, val, tmp_path / "again")
    experts.train_experts(params, train, val, tmp_path / "again")
    assert len(epochs) == params.experts.epochs, "none is trained twice"
    assert len(batches) == 3 + 2, "none of 8 images is computed twice"
    assert content(tmp_path / "at once") == content(tmp_path / "again")


def test_two_trainings_with_two_threads_end_in_the_same_bytes(params: Params, tmp_path: Path, two_threads):
    for name in ("once", "again"):
        expert = experts.CNNSpot(RESNET)
        expert.fit(tinyllava.records(16), tinyllava.records(8, 1), params, Cache(None), "")
        expert.save(tmp_path / name)
    assert content(tmp_path / "once") == content(tmp_path / "again")


def test_cnnspot_keeps_the_best_epoch_and_not_the_last(params: Params, monkeypatch):
    """The highest AUC counts, then the lowest loss, then the earlier epoch."""
    values, states = iter([(0.8, 0.5), (0.9, 0.7), (0.9, 0.6), (0.9, 0.6)]), []
    expert = experts.CNNSpot(TINY.cnnspot)

    def scores(fake, p_fake) -> dict[str, float]:
        states.append({name: value.clone() for name, value in expert.model.state_dict().items()})
        return dict(zip(("val_auc", "val_loss"), next(values), strict=True))

    monkeypatch.setattr(experts, "validation_scores", scores)
    log = expert.fit(tinyllava.records(16, 1), tinyllava.records(8, 2), params, Cache(None), "")
    assert log.chosen.tolist() == [False, False, True, False]
    best = expert.model.state_dict()
    same = [all((best[name] == state[name]).all() for name in best) for state in states]
    assert same == [False, False, True, False]


def test_errors_name_what_is_wrong(params: Params, tmp_path: Path):
    of_other, of_ours = b'{"expert": "gramnet"}', b'{"expert": "frequency", "size": 32}'
    weights, size = "model.safetensors", experts.BINS**2 + 2 * experts.BLOCK**2
    linear = {name: np.ones(size, np.float32) for name in ("mean", "scale", "weight")}
    few, diverged = save(linear), save(linear | {"bias": np.float32([np.nan])})
    files = [("config.json", of_other), ("config.json", of_ours), (weights, b"broken"), (weights, few)]
    for file, data in [("notes.txt", b""), *files, (weights, diverged)]:
        (tmp_path / file).write_bytes(data)
        with pytest.raises(UserError, match="holds inf, nan" if data == diverged else "no expert in"):
            experts.load_expert(tmp_path)
    with pytest.raises(UserError, match="resnet_of_nowhere"):
        experts.build_resnet(TINY.cnnspot.model_copy(update={"model": "resnet_of_nowhere"}), pretrained=False)
    with pytest.raises(
        UserError, match=r"a layer of 4 channels(.|\n)*multiples of 8"
    ):  # else some CPUs crash
        experts.build_resnet(RESNET.model_copy(update={"model": "efficientnet_b0"}), pretrained=False)
