"""The robustness study: the pixels of each perturbation, the sample, the cache, and a whole run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tinyllava
from conftest import changed
from fakevlm.cache import Cache
from fakevlm.config.params import Params, load_params
from fakevlm.data.records import write_records
from fakevlm.errors import UserError
from fakevlm.evaluation import detectors, experts, robustness
from fakevlm.evaluation.robustness import perturb, perturbed, stratified, study
from fakevlm.model.llava import load_processor
from smallworld import content
from tinyllava import darkness

Y, X = np.mgrid[0:48, 0:36]
PHOTO = np.stack([5 * Y, 255 - 5 * X, 100 + 40 * ((X // 6 + Y // 6) % 2)], -1)
PHOTO = Image.fromarray(PHOTO.clip(0, 255).astype(np.uint8))


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())


@pytest.mark.parametrize(
    ("kind", "none", "mild", "strong"),
    [
        ("jpeg", None, 95, 10), ("resize", 1, 0.9, 0.2), ("blur", 0, 0.4, 3.0), ("noise", 0, 2, 30),
        ("crop", 1, 0.95, 0.5),
    ],
)  # fmt: skip
def test_perturbations_keep_the_size_and_grow_with_strength(kind, none, mild, strong):
    a, b = perturb(PHOTO, kind, mild, 1), perturb(PHOTO, kind, strong, 1)
    assert (a.size, a.mode) == (b.size, b.mode) == (PHOTO.size, "RGB")
    assert 0 < difference(a, PHOTO) < difference(b, PHOTO)
    if none is not None:
        assert difference(perturb(PHOTO, kind, none, 1), PHOTO) == 0


def test_strengths_are_sigmas_a_share_of_the_sides_and_a_quality(tmp_path: Path):
    flat = Image.new("RGB", (200, 200), (128, 128, 128))
    assert np.asarray(perturb(flat, "noise", 8, 3), float).std() == pytest.approx(8, rel=0.03)
    point = Image.fromarray(np.pad(np.full((1, 1), 255, np.uint8), 30)).convert("RGB")
    spread = np.asarray(perturb(point, "blur", 1.5, 1), float)[..., 0].sum(axis=1)
    deviation = np.average((np.arange(61) - 30.0) ** 2, weights=spread) ** 0.5
    assert deviation == pytest.approx(1.5, rel=0.1)
    centred = Image.fromarray(np.pad(np.full((20, 20), 255, np.uint8), 10)).convert("RGB")
    assert (np.asarray(perturb(centred, "crop", 0.5, 1)) == 255).all()
    PHOTO.save(tmp_path / "a.jpg", quality=40)
    assert difference(perturb(PHOTO, "jpeg", 40, 1), Image.open(tmp_path / "a.jpg").convert("RGB")) == 0


def test_noise_is_seeded_and_differs_between_images():
    assert difference(perturb(PHOTO, "noise", 9, 5), perturb(PHOTO, "noise", 9, 6)) > 1
    one, other = tinyllava.records(2)
    changes = [("noise", 9.0)]
    same, noisy = perturbed(one, changes, 5)
    assert same.encoded() == one.encoded() != noisy.encoded() == perturbed(one, changes, 5)[1].encoded()
    assert (noisy.id, noisy.label, noisy.references) == (one.id, one.label, one.references)
    grain = [np.asarray(perturbed(r, changes, 5)[1].pil(), int) - np.asarray(r.pil()) for r in (one, other)]
    assert np.abs(grain[0] - grain[1]).mean() > 1


def test_sample_keeps_the_shares():
    categories = ["doc"] * 40 + ["animal"] * 157 + ["human"] * 3 + ["doc"] * 50 + ["animal"] * 50
    frame = pd.DataFrame({"label": [0] * 200 + [1] * 100, "category": categories})
    frame["id"] = [f"{n:03d}" for n in range(300)]
    chosen = stratified(frame, 60, 1)
    part = frame[frame.id.isin(chosen)].groupby(["label", "category"]).size()
    assert part[0].to_dict() == {"animal": 31, "doc": 8, "human": 1}
    assert part[1].to_dict() == {"animal": 10, "doc": 10}
    assert chosen == stratified(frame, 60, 1) != stratified(frame, 60, 2)
    assert stratified(frame, 300, 1) == frame.id.tolist()


def settings() -> Params:
    strengths = {"jpeg": [50], "resize": [], "blur": [1.0], "noise": [], "crop": []}
    params = changed(load_params("mini"), "robustness", images=12, max_new_tokens=3, **strengths)
    return changed(params, "evaluate", bootstrap=50, batch_size=5)


def dark(sizes: list[int]) -> dict[str, Any]:
    """A method that takes dark images for fakes, and notes how many it was shown at once."""

    def predict(images: list[Image.Image]) -> np.ndarray:
        sizes.append(len(images))
        return darkness(images)

    load = lambda: SimpleNamespace(predict=predict)  # noqa: E731
    return {"CNNSpot": detectors.detector("CNNSpot", load, ["k"], settings())}


def test_study_scores_every_perturbation():
    records, sizes = tinyllava.records(12), []
    predicted, scored = study(settings(), records, dark(sizes))
    assert sizes == [5] * 7 + [1]  # ten records under all perturbations, then two
    assert predicted.subset.drop_duplicates().tolist() == ["none", "jpeg=50", "blur=1"]
    assert list(zip(predicted.id, predicted.label, strict=True)) == [(r.id, r.label) for r in records] * 3
    accuracy = scored[scored.metric == "acc"]
    expected = [["none", 1.0, 12], ["jpeg=50", 1.0, 12], ["blur=1", 1.0, 12]]
    assert accuracy[["subset", "value", "n"]].values.tolist() == expected
    changes = [(None, 0), ("jpeg", 50), ("blur", 1.0)]
    shown = [perturb(r.pil(), *change, 0) if change[0] else r.pil() for change in changes for r in records]
    assert predicted.p_fake.tolist() == pytest.approx(darkness(shown), abs=1e-5)
    with pytest.raises(UserError, match=r"evaluate\.methods"):
        study(settings(), records, {})


def test_only_what_changes_an_image_makes_the_study_stale(monkeypatch):
    records, params, cache = tinyllava.records(12), settings(), Cache(None)

    def computed(params: Params = params) -> int:
        sizes: list[int] = []
        study(params, records, dark(sizes), cache)
        return sum(sizes)

    assert (computed(), computed()) == (36, 0)
    # Batches of five: those that one of the images is in are computed anew.
    assert 12 <= computed(changed(params, "robustness", jpeg=[40])) < 36
    noisy = changed(params, "robustness", jpeg=[], blur=[], noise=[9])
    assert computed(noisy) > 0
    assert computed(noisy.model_copy(update={"seed": noisy.seed + 1})) > 0
    monkeypatch.setattr(robustness, "code_version", lambda *names: "repaired")
    assert computed() > 0


def test_the_stage_runs_all_methods_on_images_prepared_once(project: Path, monkeypatch):
    base = tinyllava.build(project / "artifacts/finetune/explanation/model")
    write_records(tinyllava.records(40, size=40), project / "artifacts/annotate/fakeclue/test")
    params = changed(settings(), "experts", spectrum_size=32, train=["frequency", "univfd"])
    params = changed(params, "evaluate", methods=["FakeVLM", "LLaVA (untuned)", "Frequency", "UnivFD"])
    params = params.model_copy(update={"base": str(base)})
    with pytest.raises(UserError, match="experts"):
        robustness.run(params)
    splits = (tinyllava.records(20, 1), tinyllava.records(10, 2))
    experts.train_experts(params, *splits, project / "artifacts/experts")
    calls = {name: Mock(wraps=getattr(robustness, name)) for name in ("decode", "perturb")}
    for name, counting in calls.items():
        monkeypatch.setattr(robustness, name, counting)
    kind, shapes = type(load_processor(base).image_processor), {"resize": [], "normalize": []}
    for name, seen in shapes.items():

        def noting(self, *images, _seen=seen, _name=name, **options):
            _seen.append((*images, options.get("image"))[0].shape)
            return getattr(super(kind, self), _name)(*images, **options)

        monkeypatch.setattr(kind, name, noting, raising=False)
    predicted, _ = robustness.run(params)
    assert [each.call_count for each in calls.values()] == [12 + 12, 24], "JPEG perturbs by decoding"
    assert sum(shape[-1] == 40 for shape in shapes["resize"]) == 36, "others: on which models are tried"
    assert sum(shape[0] for shape in shapes["normalize"]) == 36 + 1, "one on which UnivFD is tried"
    assert predicted.value_counts(["method", "subset"]).tolist() == [12] * 9
    assert predicted.method.unique().tolist() == ["FakeVLM", "Frequency", "UnivFD"]
    assert set(content(project / "artifacts/robustness")) == {"predictions.parquet", "scores.csv"}
