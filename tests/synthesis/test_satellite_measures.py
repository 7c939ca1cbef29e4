"""Artifacts measured in generated aerial images: found where they were put, and seldom in real ones."""

import cv2
import numpy as np
import pytest

from fakevlm.synthesis.satellite import measure
from fakevlm.synthesis.satellite.aerials import layout_map
from miniworld import artifacts as makers
from miniworld.stagecraft import Set
from miniworld.world import shoot

CELL, LEVELS = 4, 6


def real(n: int) -> np.ndarray:
    return shoot("satellite", np.random.default_rng([3, n])).pixels


REAL = np.stack([real(n) for n in range(80)])
THRESHOLDS = measure.thresholds(REAL, CELL, LEVELS)


def measured(pixels: np.ndarray, after: np.ndarray) -> dict[str, tuple]:
    layout = layout_map(after, CELL, LEVELS)
    return {a.kind: (a.region, a.strength) for a in measure.artifacts(pixels, layout, CELL, THRESHOLDS)}


def test_real_images_seldom_show_any() -> None:
    shown = [measured(image, image) for image in (real(n) for n in range(1000, 1080))]
    per_kind = {kind: np.mean([kind in one for one in shown]) for kind in measure.PARTS}
    assert all(share <= 0.1 for share in per_kind.values()), per_kind


def put(kind: str, image: np.ndarray, seed: int) -> tuple[np.ndarray, tuple[float, ...]]:
    """The miniature's own artifact of a kind at full strength, and its region."""
    scene = Set((), (0.5, 0.5, 0.4, 0.4))
    place = makers.Place(np.ones(image.shape[:2], bool), scene, 1, np.random.default_rng(seed))
    drawn, box = makers.MAKERS[kind].draw(image.astype(np.float32), place, 1.0)
    return np.clip(drawn, 0, 255).astype(np.uint8), tuple(v / len(image) for v in box)


@pytest.mark.parametrize("kind", ["smooth", "speckle", "grid", "tint"])
def test_what_was_put_in_is_found_where_it_was_put(kind: str) -> None:
    hits = []
    for n in range(40):
        image = real(2000 + n)
        spoiled, box = put(kind, image, n)
        region = measured(spoiled, image).get(kind, (None,))[0]
        overlap = (
            region
            and min(region[2], box[2]) > max(region[0], box[0])
            and min(region[3], box[3]) > max(region[1], box[1])
        )
        hits.append(bool(overlap))
    assert np.mean(hits) >= 0.6, f"{kind}: {np.mean(hits):.2f}"


def test_an_image_without_any_detail_is_smooth_all_over_and_at_full_strength() -> None:
    blank = np.full((96, 96, 3), 120, np.uint8)
    shown = measured(blank, blank)
    assert shown["smooth"] == ((0.0, 0.0, 1.0, 1.0), 1.0)


def test_an_image_of_another_hue_than_its_map_is_tinted() -> None:
    image = real(7)
    assert "tint" not in measured(image, image)
    violet = np.clip(image + np.array([60, -30, 60]), 0, 255).astype(np.uint8)
    region, strength = measured(violet, image)["tint"]
    assert region == (0.0, 0.0, 1.0, 1.0)
    assert strength == 1.0
    brighter = np.clip(image + np.array(12), 0, 255).astype(np.uint8)
    assert "tint" not in measured(brighter, image), "brightness is no hue"


def test_strength_grows_with_distance_from_the_threshold() -> None:
    image = real(11)
    strengths = []
    for cast in (0.0, 0.4, 0.7, 1.0):
        shifted = np.clip(image + cast * np.array([70, -45, 55]), 0, 255).astype(np.uint8)
        strengths.append(measured(shifted, image).get("tint", (None, 0.0))[1])
    assert strengths == sorted(strengths)
    assert strengths[0] == 0.0
    assert 0.6 <= strengths[-1] <= 1.0


def test_edges_in_all_directions_are_bent_and_a_turned_grid_is_not() -> None:
    """The same scene with its lines warped.

    And straight lines at an angle, which no threshold may take for bent ones.
    """
    hits = []
    for n in range(30):
        image = real(3000 + n)
        ys, xs = np.mgrid[0:96, 0:96].astype(np.float32)
        waves = 3 * np.sin(2 * np.pi * ys / 24 + n), 3 * np.sin(2 * np.pi * xs / 22 + n)
        warped = cv2.remap(
            image, xs + waves[0], ys + waves[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        hits.append(measured(warped, warped).get("bent", (None,))[0] == (0.0, 0.0, 1.0, 1.0))
    assert np.mean(hits) >= 0.7, np.mean(hits)
    turned = np.zeros((96, 96, 3), np.uint8)
    for offset in range(-96, 192, 24):
        cv2.line(turned, (0, offset), (96, offset + 55), (200, 200, 200), 5)
    assert "bent" not in measured(turned, turned)
