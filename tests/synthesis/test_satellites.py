"""Satellite images by GAN and diffusion: maps, training that resumes, records and their items."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import smallcorpora
from fakevlm.cache import Cache
from fakevlm.collection.collect import collect
from fakevlm.config.params import Satellites
from fakevlm.data.records import FAKE, REAL, Record, read_records
from fakevlm.errors import UserError
from fakevlm.synthesis.satellite import learning
from fakevlm.synthesis.satellite.aerials import Aerials, enlarged, layout_map, learned_from, square
from fakevlm.synthesis.satellite.diffusion import DDPM
from fakevlm.synthesis.satellite.gan import Pix2Pix
from fakevlm.synthesis.satellite.generate import generate
from fakevlm.synthesis.satellite.preview import generated_sheet
from miniworld.world import shoot
from smallcorpora import put

SEED = 5


def settings(**changes) -> Satellites:
    """Generators of a few thousand weights that learn for six steps; changes such as `gan__steps=3`."""
    both = {"crop": 16, "steps": 6, "batch_size": 2, "learning_rate": 1e-3}
    gan = both | {"images": 3, "width": 8, "depth": 2, "l1_weight": 20.0}
    diffusion = both | {"images": 2, "widths": [8, 16], "fold": 2, "attention": False, "sampling_steps": 3}
    values = {"image_size": 32, "cell": 4, "levels": 4, "learn_share": 0.5, "checkpoint_every": 2}
    values |= {"sampled_at_once": 2, "jpeg": [80, 90], "gan": gan, "diffusion": diffusion}
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (values[section] if section else values)[name] = value
    return Satellites(**values)


def aerial(n: int) -> Record:
    """An aerial image that is not square."""
    shot = shoot("satellite", np.random.default_rng(n), size=48)
    out = io.BytesIO()
    Image.fromarray(shot.pixels[:40]).save(out, format="JPEG", quality=90)
    name = f"satellite/real/{n:07d}.jpg"
    return Record(name, out.getvalue(), REAL, "satellite", name, "satellite")


def taken_in(folder: Path, given: Satellites, n: int = 16) -> tuple[Aerials, list[Record]]:
    aerials, records = Aerials(folder, given, SEED), [aerial(k) for k in range(n)]
    for record in records:
        aerials.add(record, square(record.pil(), given.image_size))
    aerials.close()
    return aerials, records


PIXELS = np.stack([square(aerial(n).pil(), 32) for n in range(6)])
METHODS = ("gan", "diffusion")


def learner(name: str, given: Satellites) -> learning.Learner:
    return Pix2Pix(given.gan, SEED) if name == "gan" else DDPM(given.diffusion, 32, 2.0, SEED)


def fit(name: str, values: Cache | None = None, most: float = float("inf")) -> list[bytes]:
    """The weights after training by a process that dies after so many steps."""
    given = settings()
    trained = learner(name, given)
    trained.step = dying_after(trained.step, [], most)
    learning.fit(trained, PIXELS, name, getattr(given, name), given, SEED, values or Cache(None), "ab")
    tensors = [t for network in trained.networks.values() for t in network.state_dict().values()]
    return [tensor.contiguous().numpy().tobytes() for tensor in tensors]


def dying_after(function: Callable, calls: list, most: float = float("inf")) -> Callable:
    """The function, whose process dies when so many calls are noted in the list."""

    def call(*arguments):
        if len(calls) >= most:
            raise KeyboardInterrupt
        calls.append(1)
        return function(*arguments)

    return call


def test_a_map_has_the_cells_mean_colours_in_few_shades() -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:4, :4] = (250, 100, 0)
    pixels[4:, 4:8, 1] = np.arange(4) * 20  # mean 30
    layout = layout_map(pixels, cell=4, levels=4)
    assert layout.shape == (2, 3, 3)
    assert layout[0, 0].tolist() == [224, 96, 32]
    assert layout[1, 1].tolist() == [32, 32, 32]
    assert enlarged(layout, 4).shape == pixels.shape
    assert (enlarged(np.full((2, 2, 3), 77, np.uint8), 4) == 77).all()


def test_some_images_are_learned_from_and_the_others_lend_maps(tmp_path: Path) -> None:
    given = settings()
    aerials, records = taken_in(tmp_path, given)
    learned = [r for r in records if learned_from(r.item, given, SEED)]
    assert 0 < len(learned) < len(records)
    assert [r.split for r in records] == ["train" if r in learned else None for r in records]
    assert (aerials.learned() == np.stack([square(r.pil(), 32) for r in learned])).all()
    lenders, maps = aerials.lent(3)
    assert len({lender.item for lender in lenders}) == len(maps) == 3
    by_item = {r.item: r for r in records if r not in learned}
    for lender, layout in zip(lenders, maps, strict=True):
        assert (layout == layout_map(square(by_item[lender.item].pil(), 32), 4, 4)).all()
    fewer, _ = taken_in(tmp_path / "fewer", given, 15)
    rest = [lender.item for lender in aerials.lent(99)[0] if lender.item != records[15].item]
    assert [lender.item for lender in fewer.lent(99)[0]] == rest, "one image less changes no other's turn"


@pytest.mark.parametrize("name", METHODS)
def test_an_interrupted_training_ends_with_the_same_weights_and_is_not_repeated(name: str) -> None:
    before, values = torch.random.get_rng_state(), Cache(None)
    weights = fit(name)
    assert torch.equal(torch.random.get_rng_state(), before), "the process's own random numbers go on"
    with pytest.raises(KeyboardInterrupt):
        fit(name, values, 5)
    # Four of the six steps are cached: more than two to go would fail, and then none is left.
    assert fit(name, values, 2) == weights
    assert fit(name, values, 0) == weights


@pytest.mark.parametrize("name", METHODS)
def test_samples_depend_on_their_own_map_and_seed(name: str) -> None:
    trained = learner(name, settings())
    maps = learning.signed(np.stack([enlarged(layout_map(p, 4, 4), 4) for p in PIXELS[:3]]))
    images = trained.sample(maps, [1, 2, 3])
    assert learning.unsigned(images).shape == (3, 32, 32, 3)
    torch.testing.assert_close(trained.sample(maps[1:2], [2]), images[1:2], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(trained.sample(maps[1:2], [3]), images[1:2], atol=1e-4), "noise matters"
    assert not torch.allclose(trained.sample(maps[2:3], [2]), images[1:2], atol=1e-2), "the map matters"


@pytest.mark.parametrize("name", METHODS)
def test_training_brings_both_generators_nearer_to_the_image(name: str) -> None:
    trained, losses = learner(name, settings()), []
    for step in range(60):
        images, maps = learning.random_batch(PIXELS, 4, 32, 4, 4, np.random.default_rng([SEED, step]))
        losses.append(trained.step(images, maps, torch.Generator().manual_seed(step), 0.3))
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_generated_images_are_records_that_inherit_their_item(tmp_path: Path) -> None:
    given, values = settings(), Cache(None)
    aerials, records = taken_in(tmp_path, given)
    generated = list(generate(aerials, given, SEED, measured=True, values=values))
    assert [(r.label, r.category, r.source) for r, _ in generated] == [(FAKE, "satellite", "satellite")] * 5
    assert [r.generator for r, _ in generated] == ["pix2pix"] * 3 + ["ddpm"] * 2
    lenders = aerials.lent(3)[0]
    assert [r.item for r, _ in generated] == [lender.item for lender in (*lenders, *lenders[:2])]
    assert {r.item for r, _ in generated} <= {r.item for r in records if r.split is None}
    for record, truth in generated:
        assert record.id == f"satellite/fake/{Path(record.item).stem}_{record.generator}_fake_B.jpg"
        assert record.pil().size == (32, 32)
        assert (truth.path, truth.label, truth.qualities) == (record.id, FAKE, [])
    again = list(generate(aerials, given, SEED, measured=False, values=Cache(None)))
    assert [(r.id, r.sha256, truth) for r, truth in again] == [(r.id, r.sha256, None) for r, _ in generated]


def test_nothing_is_trained_or_sampled_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aerials, _ = taken_in(tmp_path / "a", settings())
    more, _ = taken_in(tmp_path / "b", settings(), 24)
    values, sampled, steps = Cache(None), [], []

    def images(data: Aerials = aerials, **changes) -> list[str]:
        given = settings(sampled_at_once=1, **changes)
        return [r.sha256 for r, _ in generate(data, given, SEED, measured=False, values=values)]

    sample, step = Pix2Pix.sample, Pix2Pix.step
    expected = images()
    values = Cache(None)
    monkeypatch.setattr(Pix2Pix, "step", dying_after(step, steps))
    monkeypatch.setattr(Pix2Pix, "sample", dying_after(sample, sampled, 2))
    with pytest.raises(KeyboardInterrupt):
        images()
    monkeypatch.setattr(Pix2Pix, "sample", dying_after(sample, sampled))
    assert images() == expected
    assert (len(sampled), len(steps)) == (3, 6)
    assert images(diffusion__sampling_steps=5) != expected
    assert images(gan__images=2) == [*expected[:2], *expected[3:]]
    assert (len(sampled), len(steps)) == (3, 6)
    images(gan__learning_rate=2e-3)
    images(more)
    assert (len(sampled), len(steps)) == (9, 18), "other settings or data are another training"


def test_too_few_aerial_images_stop_with_the_cure(tmp_path: Path) -> None:
    given = settings(gan__images=12)
    aerials, _ = taken_in(tmp_path, given, 6)
    with pytest.raises(UserError, match="too few for 12") as error:
        list(generate(aerials, given, SEED, measured=False, values=Cache(None)))
    assert "collect.satellites.learn_share" in error.value.cure
    none = settings(gan__images=0, diffusion__images=0)
    assert list(generate(aerials, none, SEED, measured=False, values=Cache(None))) == []


def test_the_stage_collects_them(tmp_path: Path, project: Path) -> None:
    files = {f"cvusa/bingmap/19/{n:07d}.jpg": aerial(n).image for n in range(16)}
    files["cvusa/bingmap/19/0000099.jpg"] = aerial(3).image  # a copy: neither learned from nor lending
    put(tmp_path, files | {"truth.jsonl": ""})
    options = {"truth": tmp_path / "truth.jsonl", "satellites": settings().model_dump()}
    params = smallcorpora.settings(cvusa=tmp_path / "cvusa", synthetic_satellites=1, **options)
    collect(params, tmp_path / "out")
    records = list(read_records(tmp_path / "out" / "records"))
    fakes = [r for r in records if r.label == FAKE]
    assert sorted(r.generator for r in fakes) == ["ddpm"] * 2 + ["painter"] + ["pix2pix"] * 3
    splits = {r.item: r.split for r in records if r.label == REAL}
    assert set(splits.values()) == {"train", None}
    assert all(splits[r.item] is None for r in fakes if r.generator != "painter")
    lines = (tmp_path / "out" / "truth.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == sorted(r.id for r in fakes)
    sheet = generated_sheet(iter(records), settings(), columns=4)
    assert sheet.size == (132 + 2 * 36, 4 * 36)
    assert np.asarray(sheet.crop((132, 0, 164, 32))).std() > 5
