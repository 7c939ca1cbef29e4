"""The miniature world: every scene draws, every artifact can be seen, and fakes differ by artifacts alone."""

import numpy as np
import pytest

from fakevlm.data.clues import KINDS
from fakevlm.data.records import CATEGORIES, FAKE, REAL
from miniworld.fitting import FITTING, MANIPULATIONS
from miniworld.world import shoot, shoot_video


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("category", CATEGORIES)
def test_real_images_carry_no_artifact_and_fakes_carry_those_asked_for(category: str):
    real = shoot(category, rng(1))
    assert (real.label, real.artifacts) == (REAL, [])
    assert "structure" in real.qualities
    for n in range(12):
        fake = shoot(category, rng(2, n), fake=True, count=(1, 3))
        assert (fake.label, fake.qualities) == (FAKE, [])
        assert 1 <= len(fake.artifacts) <= 3
        assert {artifact.kind for artifact in fake.artifacts} <= set(FITTING[category])
        for x0, y0, x1, y1 in (artifact.region for artifact in fake.artifacts):
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_can_be_made_wherever_it_fits(kind: str):
    for category in [c for c, kinds in FITTING.items() if kind in kinds] or CATEGORIES:
        shots = [shoot(category, rng(7, n), fake=True, kinds=[kind], count=(1, 1)) for n in range(6)]
        showing = [shot for shot in shots if any(a.kind == kind for a in shot.artifacts)]
        assert len(showing) >= 4, f"{kind} hardly ever shows on {category}"


@pytest.mark.parametrize("manipulation", [None, *MANIPULATIONS])
def test_a_clip_keeps_its_identity_and_its_manipulation(manipulation: str | None):
    clip = shoot_video(rng(4), frames=4, manipulation=manipulation)
    assert [shot.label for shot in clip] == [FAKE if manipulation else REAL] * 4
    means = [shot.pixels.reshape(-1, 3).mean(0) for shot in clip]
    assert np.abs(np.diff(means, axis=0)).max() < 25  # one person in one light
    assert len({shot.pixels.tobytes() for shot in clip}) == 4  # who moves
    kinds = set(MANIPULATIONS[manipulation]) if manipulation else set()
    assert all({a.kind for a in shot.artifacts} <= kinds for shot in clip)
    assert all(bool(shot.artifacts) == bool(manipulation) for shot in clip)
