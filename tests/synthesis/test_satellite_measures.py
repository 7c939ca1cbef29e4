"""Artifacts measured in generated aerial images: found where they were put, and seldom in real ones."""

import cv2
import numpy as np
import pytest

from fakevlm.config.params import Satellites
from fakevlm.synthesis.satellite import measure
from fakevlm.synthesis.satellite.aerials import layout_map
from miniworld import artifacts as makers
from miniworld.stagecraft import Set
from miniworld.world import shoot

SETTINGS = Satellites.model_construct(cell=4, levels=6)
EVERYWHERE = (0.0, 0.0, 1.0, 1.0)


def real(n: int) -> np.ndarray:
    return shoot("satellite", np.random.default_rng([3, n])).pixels


THRESHOLDS = measure.thresholds(np.stack([real(n) for n in range(80)]), SETTINGS)


def measured(pixels: np.ndarray, after: np.ndarray) -> dict[str, tuple]:
    """Region and strength by kind of artifact, in an image drawn after the map of another."""
    found = measure.artifacts(pixels, layout_map(after, SETTINGS), SETTINGS.cell, THRESHOLDS)
    return {artifact.kind: (artifact.region, artifact.strength) for artifact in found}


def shifted(image: np.ndarray, *colour: float) -> np.ndarray:
    return np.clip(image + np.array(colour), 0, 255).astype(np.uint8)


def test_real_images_seldom_show_any() -> None:
    shown = [measured(image, image) for image in (real(n) for n in range(1000, 1080))]
    per_kind = {kind: np.mean([kind in one for one in shown]) for kind in measure.PARTS}
    assert all(share <= 0.1 for share in per_kind.values()), per_kind


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


def test_an_image_without_any_detail_is_smooth_all_over_and_at_full_strength() -> None:
    blank = np.full((96, 96, 3), 120, np.uint8)
    assert measured(blank, blank)["smooth"] == (EVERYWHERE, 1.0)


def test_another_hue_than_the_maps_is_a_tint_whose_strength_grows_and_brightness_is_none() -> None:
    image = real(11)
    casts = [shifted(image, 70 * c, -45 * c, 55 * c) for c in (0.0, 0.4, 0.7, 1.0)]
    strengths = [measured(cast, image).get("tint", (None, 0.0))[1] for cast in casts]
    assert strengths == sorted(strengths)
    assert strengths[0] == 0.0
    assert 0.6 <= strengths[-1] <= 1.0
    assert measured(shifted(image, 60, -30, 60), image)["tint"] == (EVERYWHERE, 1.0)
    assert "tint" not in measured(shifted(image, 12, 12, 12), image)


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
