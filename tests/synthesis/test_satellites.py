"""Satellite images by GAN and diffusion: maps, training that resumes, records, artifacts measured in them."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import smallcorpora
from fakevlm.cache import Cache
from fakevlm.categorize import eva
from fakevlm.categorize.synsets import FOUR
from fakevlm.collection.collect import collect
from fakevlm.collection.preview import generated_sheet
from fakevlm.config.params import Satellites
from fakevlm.data.records import FAKE, REAL, Record, encode, read_records
from fakevlm.errors import UserError
from fakevlm.synthesis.satellite import learning, measure
from fakevlm.synthesis.satellite.aerials import Aerials, enlarged, layout_map, square
from fakevlm.synthesis.satellite.diffusion import DDPM
from fakevlm.synthesis.satellite.gan import Pix2Pix
from fakevlm.synthesis.satellite.generate import generate
from miniworld import artifacts as makers
from miniworld.commands import weights
from miniworld.stagecraft import Set
from miniworld.world import shoot
from smallcorpora import put
from tinyeva import SYNSETS, TINY, picture

SEED = 5


def settings(**changes) -> Satellites:
    """Generators of a few thousand weights that learn for six steps; changes such as `gan__steps=3`."""
    both = {"crop": 16, "steps": 6, "batch_size": 2, "learning_rate": 1e-3}
    gan = both | {"images": 3, "width": 8, "depth": 2, "l1_weight": 20.0}
    diffusion = both | {"images": 2, "widths": [8, 16], "fold": 2, "attention": False, "sampling_steps": 3}
    values = {"image_size": 32, "cell": 4, "levels": 4, "learn_share": 0.5, "checkpoint_every": 2}
    values |= {"weights": None, "sampled_at_once": 2, "jpeg": [80, 90], "gan": gan, "diffusion": diffusion}
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (values[section] if section else values)[name] = value
    return Satellites(**values)


def aerial(n: int) -> Record:
    """An aerial image that is not square."""
    shot, name = shoot("satellite", np.random.default_rng(n), size=48), f"satellite/real/{n:07d}.jpg"
    image = encode(Image.fromarray(shot.pixels[:40]), "JPEG", quality=90)
    return Record(name, image, REAL, "satellite", name, "satellite")


def taken_in(file: Path, given: Satellites, n: int = 16) -> tuple[Aerials, list[Record]]:
    aerials, records = Aerials(file, given, SEED), [aerial(k) for k in range(n)]
    for record in records:
        aerials.add(record, square(record.pil(), given.image_size))
    return aerials, records


def sampled(aerials: Aerials, given: Satellites, kept: Path, **changes) -> list:
    options = {"measured": False, "values": Cache(None), "kept": kept} | changes
    return list(generate(aerials, given, SEED, **options))


PIXELS = np.stack([square(aerial(n).pil(), 32) for n in range(6)])
LEARNERS = {
    "gan": lambda given: Pix2Pix(given.gan, SEED),
    "ddpm": lambda given: DDPM(given.diffusion, 32, 2.0, SEED),
}


def test_a_map_has_the_cells_mean_colours_in_few_shades() -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:4, :4] = (250, 100, 0)
    pixels[4:, 4:8, 1] = np.arange(4) * 20  # mean 30
    layout = layout_map(pixels, settings())
    assert layout.shape == (2, 3, 3)
    assert layout[0, 0].tolist() == [224, 96, 32]
    assert layout[1, 1].tolist() == [32, 32, 32]
    assert enlarged(layout, 4).shape == pixels.shape
    assert (enlarged(np.full((2, 2, 3), 77, np.uint8), 4) == 77).all()


def test_some_images_are_learned_from_and_the_others_lend_maps(tmp_path: Path) -> None:
    aerials, records = taken_in(tmp_path / "some", settings())
    learned = [record for record in records if record.split == "train"]
    others = {record.group: square(record.pil(), 32) for record in records if record.split is None}
    assert (aerials.learned() == np.stack([square(record.pil(), 32) for record in learned])).all()
    assert len(aerials.lent(3)) == 3
    assert {lender.group for lender in aerials.lent(99)} == set(others)
    assert all((one.layout == layout_map(others[one.group], settings())).all() for one in aerials.lent(99))
    fewer, _ = taken_in(tmp_path / "fewer", settings(), 15)
    rest = [lender.group for lender in aerials.lent(99) if lender.group != records[15].group]
    assert [lender.group for lender in fewer.lent(99)] == rest, "one image less changes no other's turn"


@pytest.mark.parametrize("name", LEARNERS)
def test_samples_depend_on_their_own_map_and_seed(name: str) -> None:
    learner = LEARNERS[name](settings())
    maps = learning.signed([enlarged(layout_map(pixels, settings()), 4) for pixels in PIXELS[:3]])
    images = learner.sample(maps, [1, 2, 3])
    assert learning.unsigned(images).shape == (3, 32, 32, 3)
    torch.testing.assert_close(learner.sample(maps[1:2], [2]), images[1:2], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(learner.sample(maps[1:2], [3]), images[1:2], atol=1e-4), "noise matters"
    assert not torch.allclose(learner.sample(maps[2:3], [2]), images[1:2], atol=1e-2), "the map matters"


def trained(name: str, steps: int) -> tuple[learning.Learner, list[float]]:
    """A learner after so many steps, and the loss of each."""
    given = settings(gan__crop=32, gan__batch_size=4, diffusion__attention=True)
    learner, losses = LEARNERS[name](given), []
    for step in range(steps):
        batch = learning.random_batch(PIXELS, given.gan, given, np.random.default_rng([SEED, step]))
        losses.append(learner.step(*batch, torch.Generator().manual_seed(step), 0.3))
    return learner, losses


@pytest.mark.parametrize("name", LEARNERS)
def test_training_brings_both_generators_nearer_to_the_image(name: str) -> None:
    _, losses = trained(name, 60)
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


@pytest.mark.parametrize("name", LEARNERS)
def test_two_trainings_with_two_threads_end_in_the_same_weights(name: str, two_threads) -> None:
    networks = [trained(name, 6)[0].networks.values() for _ in range(2)]
    once, again = (
        [value for network in each for value in network.state_dict().values()] for each in networks
    )
    assert all(map(torch.equal, once, again))


def test_generated_images_are_records_that_inherit_their_item(tmp_path: Path) -> None:
    aerials, _ = taken_in(tmp_path / "aerials", settings())
    generated = sampled(aerials, settings(), tmp_path, measured=True)
    assert [(r.label, r.category, r.source) for r, _ in generated] == [(FAKE, "satellite", "satellite")] * 5
    assert [r.generator for r, _ in generated] == ["pix2pix"] * 3 + ["ddpm"] * 2
    lenders = aerials.lent(3)
    assert [r.group for r, _ in generated] == [lender.group for lender in (*lenders, *lenders[:2])]
    for record, ground_truth in generated:
        assert record.id == f"satellite/fake/{Path(record.group).stem}_{record.generator}_fake_B.jpg"
        assert record.pil().size == (32, 32)
        assert (ground_truth.path, ground_truth.label, ground_truth.qualities) == (record.id, FAKE, [])
    again = sampled(aerials, settings(), tmp_path)
    assert [(r.id, r.sha256, none) for r, none in again] == [(r.id, r.sha256, None) for r, _ in generated]


def test_a_killed_run_makes_the_same_images_and_repeats_little(tmp_path: Path, monkeypatch) -> None:
    aerials, _ = taken_in(tmp_path / "a", settings())
    before, values, calls, most = torch.random.get_rng_state(), Cache(None), [], 99

    def images(data: Aerials = aerials, **changes) -> list[str]:
        calls.clear()
        given = settings(sampled_at_once=1, **changes)
        return [r.sha256 for r, _ in sampled(data, given, tmp_path, values=values)]

    def mortal(function: Callable) -> Callable:
        def call(self, *arguments):
            if len(calls) == most:
                raise KeyboardInterrupt
            calls.append(function.__name__)
            return function(self, *arguments)

        return call

    for learner in (Pix2Pix, DDPM):
        monkeypatch.setattr(learner, "step", mortal(learner.step))
        monkeypatch.setattr(learner, "sample", mortal(learner.sample))
    expected, values = images(), Cache(None)
    assert calls == ["step"] * 6 + ["sample"] * 3 + ["step"] * 6 + ["sample"] * 2
    assert torch.equal(torch.random.get_rng_state(), before), "the process's own random numbers go on"
    most = 5  # of six steps of each training; the state is cached after two and four
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            images()
    assert images() == expected
    assert calls == ["step"] * 2 + ["sample"] * 2
    most = 99
    assert images(diffusion__sampling_steps=5)[:3] == expected[:3]
    assert calls == ["sample"] * 2
    assert images(gan__images=2) == [*expected[:2], *expected[3:]]
    assert calls == []
    images(gan__learning_rate=2e-3)
    assert calls == ["step"] * 6 + ["sample"] * 3
    images(taken_in(tmp_path / "b", settings(), 24)[0])
    assert len(calls) == 17, "other data are another training"


def test_too_few_aerial_images_stop_the_run_unless_none_is_asked_for(tmp_path: Path) -> None:
    aerials, _ = taken_in(tmp_path / "aerials", settings(), 6)
    with pytest.raises(UserError, match="too few for 12") as error:
        sampled(aerials, settings(gan__images=12), tmp_path)
    assert "collect.satellites.learn_share" in error.value.cure
    assert sampled(aerials, settings(gan__images=0, diffusion__images=0), tmp_path) == []


def test_the_stage_collects_them(tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"cvusa/bingmap/19/{n:07d}.jpg": aerial(n).image for n in range(16)}
    files["cvusa/bingmap/19/0000099.jpg"] = aerial(3).image  # a copy: neither learned from nor lending
    put(tmp_path, files | {"ground_truth.jsonl": ""})
    options = {"ground_truth": tmp_path / "ground_truth.jsonl", "satellites": settings().model_dump()}
    params = smallcorpora.settings(cvusa=tmp_path / "cvusa", synthetic_satellites=1, **options)
    collect(params, tmp_path / "out")
    records = list(read_records(tmp_path / "out" / "records"))
    # Weights that were trained and saved serve a later run, unless they know an image that lends its map.
    options["satellites"] |= {"weights": str(tmp_path / "out/satellites")}
    monkeypatch.setattr(learning.Learner, "fit", None)
    params = smallcorpora.settings(cvusa=tmp_path / "cvusa", synthetic_satellites=1, **options)
    collect(params, tmp_path / "again")
    assert list(read_records(tmp_path / "again" / "records")) == records
    with pytest.raises(UserError, match="which is to lend its map"):
        collect(params.model_copy(update={"seed": SEED}), tmp_path / "leaking")
    (tmp_path / "out/satellites/pix2pix/model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="holds no weights of a Pix2Pix of these sizes"):
        collect(params, tmp_path / "broken")
    fakes = [r for r in records if r.label == FAKE]
    assert sorted(r.generator for r in fakes) == ["ddpm"] * 2 + ["painter"] + ["pix2pix"] * 3
    splits = {r.group: r.split for r in records if r.label == REAL}
    assert set(splits.values()) == {"train", None}
    assert all(splits[r.group] is None for r in fakes if r.generator != "painter")
    lines = (tmp_path / "out" / "ground_truth.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == sorted(r.id for r in fakes)
    sheet = generated_sheet(iter(records), settings(), columns=4)
    assert sheet.size == (132 + 2 * 36, 4 * 36)
    assert np.asarray(sheet.crop((132, 0, 164, 32))).std() > 5


def test_the_command_writes_weights_that_the_stages_load(tmp_path: Path, project: Path, monkeypatch) -> None:
    files = {f"cvusa/bingmap/19/{n:07d}.jpg": aerial(n).image for n in range(16)}
    for n, (category, synset) in enumerate([*SYNSETS.items()] * 2):
        files[f"genimage/ADM/train/nature/{synset}_{n}.JPEG"] = picture(category, n)
    put(tmp_path, files)
    corpora = {name: tmp_path / name for name in ("cvusa", "genimage")}
    params = smallcorpora.settings(satellites=settings().model_dump(), **corpora)
    short = {"categorize": TINY.model_copy(update={"epochs": 1})}
    monkeypatch.setattr("fakevlm.config.params.load_params", lambda _: params.model_copy(update=short))
    weights(put(tmp_path, {"made/eva02/README.md": "a card"}) / "made")
    assert eva.load(tmp_path / "made/eva02").labels == list(FOUR)
    assert (tmp_path / "made/eva02/README.md").read_text() == "a card"
    for learner, name in (("gan", "pix2pix"), ("ddpm", "ddpm")):
        LEARNERS[learner](settings()).load(tmp_path / "made/satellites" / name)


MEASURED = Satellites.model_construct(cell=4, levels=6)
EVERYWHERE = (0.0, 0.0, 1.0, 1.0)


def real(n: int) -> np.ndarray:
    return shoot("satellite", np.random.default_rng([3, n])).pixels


@cache
def thresholds() -> dict:
    return measure.thresholds(np.stack([real(n) for n in range(80)]), MEASURED)


def measured(pixels: np.ndarray, after: np.ndarray) -> dict[str, tuple]:
    """Region and strength by kind of artifact, in an image drawn after the map of another."""
    artifacts = measure.artifacts(pixels, layout_map(after, MEASURED), MEASURED.cell, thresholds())
    return {artifact.kind: (artifact.region, artifact.strength) for artifact in artifacts}


def test_real_images_seldom_show_any() -> None:
    shown = [measured(image, image) for image in (real(n) for n in range(1000, 1080))]
    per_kind = {kind: np.mean([kind in one for one in shown]) for kind in measure.PARTS}
    assert max(per_kind.values()) <= 0.1, per_kind
    blank = np.full((96, 96, 3), 120, np.uint8)
    assert measured(blank, blank)["smooth"] == (EVERYWHERE, 1.0), "no detail at all"


@pytest.mark.parametrize("kind", ["smooth", "speckle", "grid", "tint"])
def test_the_miniatures_artifacts_are_found_where_they_were_put(kind: str) -> None:
    hits = []
    for n in range(40):
        image, scene = real(2000 + n), Set((), (0.5, 0.5, 0.4, 0.4))
        place = makers.Place(np.ones(image.shape[:2], bool), scene, 1, np.random.default_rng(n))
        drawn, box = makers.MAKERS[kind].draw(image.astype(np.float32), place, 1.0)
        x0, y0, x1, y1 = (v / len(image) for v in box)
        region = measured(np.clip(drawn, 0, 255).astype(np.uint8), image).get(kind, ((1, 1, 0, 0),))[0]
        hits.append(min(region[2], x1) > max(region[0], x0) and min(region[3], y1) > max(region[1], y0))
    assert np.mean(hits) >= 0.6, f"{kind}: {np.mean(hits):.2f}"


def test_edges_in_all_directions_are_bent_and_straight_lines_at_an_angle_are_not() -> None:
    hits = []
    for n in range(30):
        ys, xs = np.mgrid[0:96, 0:96].astype(np.float32)
        waves = xs + 3 * np.sin(2 * np.pi * ys / 24 + n), ys + 3 * np.sin(2 * np.pi * xs / 22 + n)
        warped = cv2.remap(real(3000 + n), *waves, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        hits.append(measured(warped, warped).get("bent", (None,))[0] == EVERYWHERE)
    assert np.mean(hits) >= 0.7, np.mean(hits)
    turned = np.zeros((96, 96, 3), np.uint8)
    for offset in range(-96, 192, 24):
        cv2.line(turned, (0, offset), (96, offset + 55), (200, 200, 200), 5)
    assert "bent" not in measured(turned, turned)
