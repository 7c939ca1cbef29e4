"""Satellite images by GAN and diffusion.

Maps, training that resumes, weights that are found again, records and their items.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fakevlm.cache import Cache
from fakevlm.config.params import load_params
from fakevlm.config.satellites import Satellites
from fakevlm.data.records import FAKE, REAL, Record, read_records
from fakevlm.errors import UserError
from fakevlm.synthesis.satellite import diffusion, gan, learning
from fakevlm.synthesis.satellite.aerials import Aerials, enlarged, layout_map, learned_from, square
from fakevlm.synthesis.satellite.generate import generate
from fakevlm.synthesis.satellite.preview import generated_sheet

SEED = 5


def settings(**changes) -> Satellites:
    """Generators of a few thousand weights that learn for six steps."""
    both = {"crop": 16, "steps": 6, "batch_size": 2, "learning_rate": 1e-3}
    gan_ = both | {"images": 3, "width": 8, "depth": 2, "l1_weight": 20.0}
    diffusion_ = both | {"images": 2, "widths": [8, 16], "fold": 2, "attention": False, "sampling_steps": 3}
    values = {"image_size": 32, "cell": 4, "levels": 4, "learn_share": 0.5, "checkpoint_every": 2}
    values |= {"sampled_at_once": 2, "jpeg": [80, 90]}
    for key, value in changes.items():
        place, _, name = key.rpartition("__")
        ({"gan": gan_, "diffusion": diffusion_}.get(place, values))[name] = value
    return Satellites(**values, gan=gan_, diffusion=diffusion_)


def aerial(n: int) -> Record:
    """Fields, a road and some grain, in a JPEG that is not square."""
    rng = np.random.default_rng(n)
    pixels = np.repeat(np.repeat(rng.integers(40, 200, (5, 6, 3)), 8, 0), 8, 1).astype(np.float32)
    pixels[18:22] = 170
    out = io.BytesIO()
    noisy = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(out, format="JPEG", quality=90)
    name = f"satellite/real/{n:07d}.jpg"
    return Record(name, out.getvalue(), REAL, "satellite", name, "satellite")


def taken_in(folder: Path, given: Satellites, n: int = 16) -> tuple[Aerials, list[Record]]:
    aerials, records = Aerials(folder, given, SEED), [aerial(k) for k in range(n)]
    for record in records:
        aerials.add(record, square(record.pil(), given.image_size))
    aerials.close()
    return aerials, records


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_a_map_has_the_cells_mean_colours_in_few_shades() -> None:
    pixels = np.zeros((8, 12, 3), np.uint8)
    pixels[:4, :4] = (250, 100, 0)
    pixels[4:, 4:8, 1] = np.arange(4) * 20  # mean 30
    found = layout_map(pixels, cell=4, levels=4)
    assert found.shape == (2, 3, 3)
    assert found[0, 0].tolist() == [224, 96, 32]
    assert found[1, 1].tolist() == [32, 32, 32]
    assert len(np.unique(layout_map(square(aerial(1).pil(), 32), 4, 4))) <= 4
    assert enlarged(found, 4).shape == pixels.shape
    assert enlarged(np.full((2, 2, 3), 77, np.uint8), 4).tolist() == np.full((8, 8, 3), 77).tolist()


def test_some_images_are_learned_from_and_the_others_lend_maps(tmp_path: Path) -> None:
    given = settings()
    aerials, records = taken_in(tmp_path, given)
    learned = [r for r in records if learned_from(r.item, given, SEED)]
    assert 0 < len(learned) < len(records)
    assert [r.split for r in records] == ["train" if r in learned else None for r in records]
    assert (aerials.learned() == np.stack([square(r.pil(), 32) for r in learned])).all()
    lenders, maps = aerials.lent(3)
    assert len({lender.item for lender in lenders}) == len(maps) == 3
    by_item = {r.item: r for r in records}
    for lender, found in zip(lenders, maps, strict=True):
        assert by_item[lender.item] not in learned
        assert (found == layout_map(square(by_item[lender.item].pil(), 32), 4, 4)).all()
    again, _ = taken_in(tmp_path / "again", given)
    assert again.digest == aerials.digest
    assert again.lent(3)[0] == lenders
    fewer, _ = taken_in(tmp_path / "fewer", given, 15)
    kept = [lender.item for lender in again.lent(99)[0] if lender.item != records[15].item]
    assert [lender.item for lender in fewer.lent(99)[0]] == kept, (
        "one image more or less changes no other's turn"
    )


def learners(given: Satellites, scale: float = 2.0) -> dict[str, Callable[[], learning.Learner]]:
    g, d = given.gan, given.diffusion
    options = {"fold": d.fold, "attention": d.attention, "scale": scale, "learning_rate": d.learning_rate}
    shape = gan.Shape(g.width, g.depth)
    return {
        "gan": lambda: gan.Pix2Pix(shape, learning_rate=g.learning_rate, l1_weight=g.l1_weight, seed=SEED),
        "diffusion": lambda: diffusion.Diffusion(32, d.widths, seed=SEED, **options),
    }


PIXELS = np.stack([square(aerial(n).pil(), 32) for n in range(6)])


def fit(folder: Path, learner: learning.Learner, name: str, given: Satellites) -> Path:
    return learning.fit(folder, learner, PIXELS, name, getattr(given, name), given, SEED)


class Killed(Exception):
    pass


def killed_after(learner: learning.Learner, steps: int) -> learning.Learner:
    """The learner, whose process dies in the step after so many."""
    step, done = learner.step, []

    def dying(*arguments, **keywords) -> float:
        if len(done) == steps:
            raise Killed
        done.append(1)
        return step(*arguments, **keywords)

    learner.step = dying
    return learner


@pytest.mark.parametrize("name", ["gan", "diffusion"])
def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path, name: str) -> None:
    given = settings()
    make = learners(given)[name]
    whole = files(fit(tmp_path / "whole", make(), name, given))
    assert whole == files(fit(tmp_path / "again", make(), name, given))
    with pytest.raises(Killed):
        fit(tmp_path / "cut", killed_after(make(), 5), name, given)
    assert (tmp_path / "cut" / "checkpoint.safetensors").is_file()
    rest = killed_after(make(), 2)  # of six steps four are in the checkpoint: more than two to go would fail
    assert files(fit(tmp_path / "cut", rest, name, given)) == whole
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["model"]


@pytest.mark.parametrize("name", ["gan", "diffusion"])
def test_finished_weights_are_found_and_a_broken_checkpoint_is_not_trusted(tmp_path: Path, name: str) -> None:
    given = settings()
    make = learners(given)[name]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"\x20\0\0\0\0\0\0\0{")
    first = files(fit(tmp_path / "run", make(), name, given))
    assert first == files(fit(tmp_path / "clean", make(), name, given))
    assert files(fit(tmp_path / "run", killed_after(make(), 0), name, given)) == first
    assert {Path(file).suffix for file in first} == {".json", ".safetensors"}


@pytest.mark.parametrize("name", ["gan", "diffusion"])
def test_samples_depend_on_their_own_map_and_seed(tmp_path: Path, name: str) -> None:
    given = settings()
    folder = fit(tmp_path, learners(given)[name](), name, given)
    sampler = gan.Sampler(folder) if name == "gan" else diffusion.Sampler(folder, 3)
    maps = learning.signed(np.stack([enlarged(layout_map(p, 4, 4), 4) for p in PIXELS[:3]]))
    images = sampler(maps, [1, 2, 3])
    assert images.shape == (3, 3, 32, 32)
    assert learning.unsigned(images).shape == (3, 32, 32, 3)
    torch.testing.assert_close(sampler(maps[1:2], [2]), images[1:2], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(sampler(maps[1:2], [3]), images[1:2], atol=1e-4), "noise matters"
    assert not torch.allclose(sampler(maps[2:3], [2]), images[1:2], atol=1e-2), "the map matters"


def test_training_brings_both_generators_nearer_to_the_image() -> None:
    given = settings()
    for name, make in learners(given).items():
        learner, losses = make(), []
        for step in range(60):
            rng = np.random.default_rng([SEED, step])
            images, maps = learning.batch(PIXELS, 4, 32, 4, 4, rng)
            losses.append(learner.step(images, maps, torch.Generator().manual_seed(step), 0.3))
        assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10]), name


def test_a_batch_is_crops_and_their_maps_and_leaves_the_processs_randomness_alone() -> None:
    before = torch.random.get_rng_state()
    images, maps = learning.batch(PIXELS, 5, 16, 4, 4, np.random.default_rng(1))
    assert images.shape == maps.shape == (5, 3, 16, 16)
    for image, given in zip(learning.unsigned(images), learning.unsigned(maps), strict=True):
        assert (given == enlarged(layout_map(image, 4, 4), 4)).all()
    with learning.seeded(3):
        torch.rand(5)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_generated_images_are_records_that_inherit_their_item(tmp_path: Path) -> None:
    given = settings()
    aerials, records = taken_in(tmp_path / "spool", given)
    made = list(generate(aerials, given, SEED, tmp_path / "work", measured=True, values=Cache(None)))
    assert [(r.label, r.category, r.source) for r, _ in made] == [(FAKE, "satellite", "satellite")] * 5
    assert [r.generator for r, _ in made] == ["pix2pix"] * 3 + ["ddpm"] * 2
    assert len({r.id for r, _ in made}) == 5
    lenders = aerials.lent(3)[0]
    assert [r.item for r, _ in made] == [lender.item for lender in (*lenders, *lenders[:2])]
    free = {r.item for r in records if r.split is None}
    assert {r.item for r, _ in made} <= free
    for record, truth in made:
        stem = Path(record.item).stem
        assert record.id == f"satellite/fake/{stem}_{record.generator}_fake_B.jpg"
        assert record.pil().size == (32, 32)
        assert (truth.path, truth.label, truth.category, truth.qualities) == (
            record.id,
            FAKE,
            "satellite",
            [],
        )
    again = list(generate(aerials, given, SEED, tmp_path / "elsewhere", measured=False, values=Cache(None)))
    assert [(r.id, r.sha256) for r, _ in again] == [(r.id, r.sha256) for r, _ in made]
    assert [truth for _, truth in again] == [None] * 5
    alone = settings(sampled_at_once=1, gan__images=1, diffusion__images=0)
    (one,) = [
        r for r, _ in generate(aerials, alone, SEED, tmp_path / "work", measured=False, values=Cache(None))
    ]
    assert one.id == made[0][0].id
    assert len(list((tmp_path / "work").glob("pix2pix-*"))) == 1, (
        "how many are sampled does not change the weights"
    )


def test_other_settings_or_data_are_another_run(tmp_path: Path) -> None:
    aerials, _ = taken_in(tmp_path / "a", settings())
    more, _ = taken_in(tmp_path / "b", settings(), 24)
    for given, data in ((settings(), aerials), (settings(gan__steps=3), aerials), (settings(), more)):
        only = given.model_copy(update={"diffusion": given.diffusion.model_copy(update={"images": 0})})
        list(generate(data, only, SEED, tmp_path / "work", measured=False, values=Cache(None)))
    assert len(list((tmp_path / "work").glob("pix2pix-*"))) == 3


def test_too_few_aerial_images_stop_with_the_cure(tmp_path: Path) -> None:
    given = settings(gan__images=12)
    aerials, _ = taken_in(tmp_path, given, 6)
    with pytest.raises(UserError, match="too few for 12") as error:
        list(generate(aerials, given, SEED, tmp_path, measured=False, values=Cache(None)))
    assert "collect.satellites.learn_share" in error.value.cure
    none = settings(gan__images=0, diffusion__images=0)
    assert list(generate(aerials, none, SEED, tmp_path, measured=False, values=Cache(None))) == []


def test_the_stage_collects_them(tmp_path: Path, project: Path) -> None:
    from fakevlm.collection.collect import collect
    from fakevlm.config.params import Params

    values = load_params().model_dump()
    found = values["collect"]
    found["corpora"] = dict.fromkeys(found["corpora"]) | {"cvusa": str(tmp_path / "cvusa")}
    found["benchmarks"] = dict.fromkeys(found["benchmarks"])
    found |= {"truth": str(tmp_path / "truth.jsonl"), "synthetic_documents": 0, "synthetic_satellites": 1}
    found["satellites"] = settings().model_dump()
    place = tmp_path / "cvusa" / "bingmap" / "19"
    place.mkdir(parents=True)
    for n in range(16):
        (place / f"{n:07d}.jpg").write_bytes(aerial(n).image)
    (place / "0000099.jpg").write_bytes(aerial(3).image)  # a copy: neither learned from nor lending
    (tmp_path / "truth.jsonl").write_text("")
    collect(Params(**values), tmp_path / "out")
    records = list(read_records(tmp_path / "out" / "records"))
    fakes = [r for r in records if r.label == FAKE]
    assert sorted(r.generator for r in fakes) == ["ddpm"] * 2 + ["painter"] + ["pix2pix"] * 3
    splits = {r.item: r.split for r in records if r.label == REAL}
    assert set(splits.values()) == {"train", None}
    assert all(splits[r.item] is None for r in fakes if r.generator != "painter")
    told = [json.loads(line)["path"] for line in (tmp_path / "out" / "truth.jsonl").read_text().splitlines()]
    assert told == sorted(r.id for r in fakes)
    sheet = generated_sheet(iter(records), settings(), columns=4)
    assert sheet.size == (132 + 2 * 36, 4 * 36)
    assert np.asarray(sheet.crop((132, 0, 164, 32))).std() > 5
