"""Expert detectors: features and augmentation by plain arithmetic, and three trainings on tiny images."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

import tinyllava
from fakevlm import paths
from fakevlm.config.params import CNNSpotSettings, Experts, Params
from fakevlm.data.records import FAKE
from fakevlm.errors import UserError
from fakevlm.evaluation import experts
from fakevlm.evaluation.experts import augment, base, cnnspot, frequency, linear
from fakevlm.evaluation.experts.univfd import Tower

TINY = Experts(
    epochs=4,
    batch_size=8,
    learning_rate=0.01,
    cnnspot=CNNSpotSettings(model=None, layers=[1, 1, 1, 1], width=8, size=32, crop=32, augment=0.5),
    spectrum_size=32,
    train=list(experts.NAMES),
)


@pytest.fixture(scope="module")
def llava(tmp_path_factory) -> Path:
    return tinyllava.build(tmp_path_factory.mktemp("base"))


@pytest.fixture
def params(llava: Path, project: Path) -> Params:
    return tinyllava.params(llava).model_copy(update={"experts": TINY})


def test_targets_are_one_for_fakes():
    records = tinyllava.records(4)
    np.testing.assert_array_equal(base.targets(records), [float(r.label == FAKE) for r in records])
    with pytest.raises(UserError, match="both classes"):
        base.targets([r for r in records if r.label == FAKE])


def test_square_keeps_the_centre():
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    out = base.square(Image.fromarray(pixels), 20)
    assert out.shape == (20, 20, 3)
    assert (out == 255).all()
    assert base.square(Image.new("RGB", (7, 50)), 32).shape == (32, 32, 3)


def wavy(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Four features, the last of which never varies, and targets that the first two nearly tell."""
    rng = np.random.default_rng(1)
    x = rng.normal(3, [1, 5, 0.1, 0], (count, 4)).astype(np.float32)
    return x, (x[:, 0] - 3 + 0.2 * (x[:, 1] - 3) + rng.normal(0, 0.3, count) > 0).astype(np.float32)


def test_linear_is_scikit_learns_on_standardised_features():
    x, y = wavy(300)
    model, log = linear.fit_linear(x[:200], y[:200], x[200:], y[200:])
    assert log.chosen.sum() == 1
    assert log.val_auc[log.chosen].item() == log.val_auc.max() > 0.95
    chosen = float(log.setting[log.chosen].item().removeprefix("C="))
    z = StandardScaler().fit(x[:200]).transform(x)
    expected = LogisticRegression(C=chosen, max_iter=500).fit(z[:200], y[:200]).predict_proba(z)[:, 1]
    np.testing.assert_allclose(model(x), expected, atol=1e-5)
    assert model.scale[3] == 1  # the constant feature
    np.testing.assert_array_equal(model(x), np.concatenate([model(x[:7]), model(x[7:])]))


def test_validation_scores_by_hand():
    scores = base.validation_scores(np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.6, 0.1]))
    assert scores["val_accuracy"] == 0.5
    assert scores["val_auc"] == 0.75
    assert scores["val_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.4, 0.9]).mean())


def test_the_best_row_has_the_highest_auc_then_the_lowest_loss():
    rows = [(0.8, 0.5), (0.9, 0.7), (0.9, 0.6), (0.9, 0.6)]
    table = base.mark_best([{"val_auc": auc, "val_loss": loss} for auc, loss in rows])
    assert table.chosen.tolist() == [False, False, True, False]


def test_spectrum_puts_a_wave_into_its_bin():
    """cos(π (x + ½) k / 32) is the DCT's k-th basis: all of its energy lies in column k."""
    wave = 100 * np.cos(np.pi * (np.arange(32) + 0.5) * 20 / 32)
    grey = np.rint(np.tile(wave, (32, 1)) + 128).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(np.repeat(grey[..., None], 3, 2))
    features = frequency.spectrum([image], 32)
    bins, side = frequency.BINS, frequency.BINS**2
    whole = features[0, :side].reshape(bins, bins)
    assert features.shape == (1, side + 2 * frequency.BLOCK**2)
    assert whole[0, 0] > 1  # brightness
    whole[0, 0] = 0
    assert np.unravel_index(whole.argmax(), whole.shape) == (0, 20 // (32 // bins))
    mean, most = np.split(features[0, side:], 2)
    assert (most >= mean - 1e-5).all()


def test_spectrum_crops_and_never_shrinks():
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 255, (64, 48, 3), dtype=np.uint8)
    inner = Image.fromarray(pixels[16:48, 8:40])
    np.testing.assert_array_equal(
        frequency.spectrum([Image.fromarray(pixels)], 32), frequency.spectrum([inner], 32)
    )
    assert frequency.spectrum([Image.new("RGB", (10, 40))], 32).shape == frequency.spectrum([inner], 32).shape


def test_augmentation_does_what_it_says():
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
    assert augment.blur(pixels, 2.0).std() < 0.3 * pixels.std()
    np.testing.assert_array_equal(augment.blur(pixels, 0.0), pixels)
    coarse, fine = (np.abs(augment.jpeg(pixels, q).astype(int) - pixels).mean() for q in (30, 100))
    assert coarse > fine > 0
    grey = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    assert np.abs(augment.jpeg(grey, 95).astype(int) - grey).max() <= 3  # channels in their order
    untouched = [augment.augment(pixels, np.random.default_rng(n), 0.0, 40) for n in range(8)]
    mirrored = [np.array_equal(image, pixels[:, ::-1]) for image in untouched]
    assert all(m or np.array_equal(image, pixels) for m, image in zip(mirrored, untouched, strict=True))
    assert 0 < sum(mirrored) < 8
    assert augment.augment(pixels, rng, 1.0, 24).shape == (24, 24, 3)
    half = [
        augment.augment(pixels, np.random.default_rng(n), 0.5, 40).sum() == pixels.sum() for n in range(40)
    ]
    assert 4 <= sum(half) <= 18  # a quarter escapes both


def test_tower_sees_what_the_llava_sees(llava: Path):
    import torch

    from fakevlm.model.llava import load_model, load_processor

    images = [record.pil() for record in tinyllava.records(3)]
    features = Tower(str(llava)).features(images)
    model, processor = load_model(llava), load_processor(llava)
    pixels = processor.image_processor(images, return_tensors="pt")["pixel_values"].to(model.device)
    with torch.inference_mode():
        out = model.model.vision_tower(pixels, output_hidden_states=True)
    patches = out.hidden_states[model.config.vision_feature_layer][:, 1:].cpu().numpy()
    width = patches.shape[-1]
    np.testing.assert_allclose(features[:, :width], out.pooler_output.cpu().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features[:, width : 2 * width], patches.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features[:, 2 * width :], patches.std(1, ddof=1), rtol=1e-3, atol=1e-5)


def test_tower_needs_a_llava(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="vision tower"):
        Tower(str(tmp_path))


def test_train_save_and_load(params: Params, project: Path, tmp_path: Path):
    """Bright against dark: each expert learns it, repeats to the byte, and loads as it was saved."""
    train, val, test = (tinyllava.records(n, seed) for n, seed in ((48, 1), (24, 2), (13, 3)))
    log = experts.train_experts(params, train, val, tmp_path / "a")
    assert list(log.columns) == [
        "expert", "setting", "train_loss", "val_loss", "val_accuracy", "val_auc", "chosen",
    ]  # fmt: skip
    assert log.groupby("expert").chosen.sum().to_dict() == {"CNNSpot": 1, "UnivFD": 1, "Frequency": 1}
    assert (log.train_loss > 0).all()
    for name in experts.NAMES:
        folder = tmp_path / "a" / name
        assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
        expert = experts.load_expert(folder)
        assert expert.name == name
        p = expert.p_fake(test, batch_size=5)
        assert p.shape == (13,)
        assert ((p >= 0) & (p <= 1)).all()
        assert base.validation_scores(base.targets(test), p)["val_auc"] > 0.85, name
        np.testing.assert_allclose(p, expert.predict([record.pil() for record in test]), atol=1e-5)
        np.testing.assert_allclose(p, experts.load_expert(folder).p_fake(test), atol=1e-5)
    shutil.rmtree(paths.work())
    experts.train_experts(params, train, val, tmp_path / "b")
    for file in sorted((tmp_path / "a").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes(), file


class Killed(BaseException):
    pass


def test_killed_it_goes_on_from_the_last_epoch_and_the_features_it_has(
    params: Params, project: Path, tmp_path: Path, monkeypatch
):
    train, val = tinyllava.records(24, 1), tinyllava.records(12, 2)
    experts.train_experts(params, train, val, tmp_path / "whole")
    shutil.rmtree(paths.work())
    calls = {"validation_scores": [], "spectrum": []}

    def dying(module, name: str, after: int) -> None:
        plain = getattr(module, name)

        def call(*arguments):
            calls[name].append(arguments)
            if len(calls[name]) == after:
                raise Killed
            return plain(*arguments)

        monkeypatch.setattr(module, name, call)

    dying(cnnspot, "validation_scores", after=3)
    dying(frequency, "spectrum", after=2)
    for _ in range(2):
        with pytest.raises(Killed):
            experts.train_experts(params, train, val, tmp_path / "again")
    experts.train_experts(params, train, val, tmp_path / "again")
    assert len(calls["validation_scores"]) == params.experts.epochs + 1, "two epochs were kept"
    assert len(calls["spectrum"]) == 3 + 2 + 1, "batches of 8, of which the killed one is computed again"
    for file in filter(Path.is_file, (tmp_path / "whole").rglob("*")):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(tmp_path / "whole")).read_bytes()


def test_cnnspot_keeps_the_best_epoch_and_not_the_last(params: Params, monkeypatch):
    aucs = iter([0.6, 0.9, 0.7, 0.9])
    monkeypatch.setattr(
        cnnspot,
        "validation_scores",
        lambda fake, p: {"val_loss": 1.0, "val_accuracy": 0.5, "val_auc": next(aucs)},
    )
    states = []
    expert = cnnspot.CNNSpot(TINY.cnnspot)
    monkeypatch.setattr(
        expert,
        "_scores",
        lambda *_: states.append({k: v.clone() for k, v in expert.model.state_dict().items()}),
    )
    log = expert.fit(tinyllava.records(16, 1), tinyllava.records(8, 2), params, 1, base.Progress())
    assert log.chosen.tolist() == [False, True, False, False]
    best = expert.model.state_dict()
    assert all((best[key] == states[1][key]).all() for key in best)
    assert any((best[key] != states[3][key]).any() for key in best)


def test_errors_name_what_is_wrong(params: Params, tmp_path: Path):
    with pytest.raises(UserError, match="no expert in"):
        experts.load_expert(tmp_path)
    with pytest.raises(UserError, match="cnnspot, univfd, frequency"):
        experts.make_expert("gramnet", params)
    (tmp_path / "config.json").write_text('{"expert": "frequency", "size": 32}')
    with pytest.raises(UserError, match="dvc repro experts"):
        experts.load_expert(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match="dvc repro experts"):
        experts.load_expert(tmp_path)
    wrong = TINY.cnnspot.model_copy(update={"model": "resnet_of_nowhere"})
    expert = experts.make_expert(
        "cnnspot", params.model_copy(update={"experts": TINY.model_copy(update={"cnnspot": wrong})})
    )
    with pytest.raises(UserError, match="resnet_of_nowhere"):
        expert.fit(tinyllava.records(4), tinyllava.records(4, 1), params, 1, base.Progress())
