"""The miniature world.

Every scene draws, every artifact can be seen, and nothing but the artifacts tells fake from real.
"""

import numpy as np
import pytest

from fakevlm.data.clues import KINDS
from fakevlm.data.records import CATEGORIES, FAKE, REAL
from miniworld.canvas import Part, hsv
from miniworld.fitting import FITTING, MANIPULATIONS
from miniworld.world import SCENES, shoot, shoot_video


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_every_category_has_a_scene():
    assert set(CATEGORIES) <= set(SCENES)


@pytest.mark.parametrize("category", SCENES)
def test_same_seed_same_bytes(category: str):
    first, second = (shoot(category, rng(3, 5), fake=True) for _ in range(2))
    assert first.jpeg == second.jpeg
    assert first.artifacts == second.artifacts
    assert shoot(category, rng(3, 6), fake=True).jpeg != first.jpeg


@pytest.mark.parametrize("category", SCENES)
def test_real_images_carry_no_artifact_and_fakes_carry_those_asked_for(category: str):
    real = shoot(category, rng(1))
    assert (real.label, real.artifacts) == (REAL, [])
    assert "structure" in real.qualities
    for n in range(12):
        fake = shoot(category, rng(2, n), fake=True, count=(1, 3))
        assert fake.label == FAKE
        assert 1 <= len(fake.artifacts) <= 3
        assert not fake.qualities
        for artifact in fake.artifacts:
            x0, y0, x1, y1 = artifact.region
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
            assert artifact.kind in FITTING[category]
    assert shoot(category, rng(1), fake=True, count=(0, 0)).artifacts == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_made_wherever_it_fits(kind: str):
    places = [category for category, kinds in FITTING.items() if kind in kinds] or list(CATEGORIES)
    for category in places:
        shots = [shoot(category, rng(7, n), fake=True, kinds=[kind], count=(1, 1)) for n in range(6)]
        showing = [shot for shot in shots if any(a.kind == kind for a in shot.artifacts)]
        assert len(showing) >= 4, f"{kind} hardly ever shows on {category}"


@pytest.mark.parametrize(
    "kind", ["smooth", "grid", "tint", "halo", "bent", "extra_part", "garble", "asymmetry"]
)
def test_an_artifact_changes_what_lies_in_its_region(kind: str):
    category = next(c for c, kinds in FITTING.items() if kind in kinds)
    inside, outside = [], []
    for n in range(8):
        # Drawing a flaw may take random numbers, so equal seeds make other scenes: compare statistics.
        shot = shoot(category, rng(11, n), fake=True, kinds=[kind], count=(1, 1), strength=(1.0, 1.0))
        if not shot.artifacts:
            continue
        x0, y0, x1, y1 = (round(v * 96) for v in shot.artifacts[0].region)
        mask = np.zeros((96, 96), bool)
        mask[y0:y1, x0:x1] = True
        grey = shot.pixels.astype(float).mean(-1)
        edges = np.abs(np.diff(grey, axis=0, append=grey[-1:])) + np.abs(
            np.diff(grey, axis=1, append=grey[:, -1:])
        )
        inside.append(edges[mask].mean())
        outside.append(edges[~mask].mean())
    assert len(inside) >= 5
    change = np.mean(inside) / np.mean(outside)
    assert (change < 0.9) if kind == "smooth" else (change > 1.0)


def test_a_clip_keeps_its_identity_and_its_manipulation():
    for manipulation in (None, *MANIPULATIONS):
        clip = shoot_video(rng(4), frames=4, manipulation=manipulation)
        assert len(clip) == 4
        assert {shot.label for shot in clip} == {REAL if manipulation is None else FAKE}
        means = [shot.pixels.reshape(-1, 3).mean(0) for shot in clip]
        assert np.abs(np.diff(means, axis=0)).max() < 25  # one person in one light
        assert len({shot.pixels.tobytes() for shot in clip}) == 4  # who moves
        if manipulation:
            assert all({a.kind for a in shot.artifacts} <= set(MANIPULATIONS[manipulation]) for shot in clip)
            assert all(shot.artifacts for shot in clip)


def test_parts_and_colours():
    shot = shoot("deepfake", rng(9))
    assert {Part.EYE, Part.HEAD, Part.MOUTH} <= set(np.unique(shot.parts).tolist())
    assert hsv(0, 1, 1) == (255, 0, 0)
    assert hsv(1 / 3, 1, 1)[1] == 255
