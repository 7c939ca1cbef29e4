"""Renders that the base is pretrained on, with dense targets read off the renderer.

Seeds are disjoint from the corpora's (`miniature.export`), so the base never sees an image of FakeClue-mini or a benchmark.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np

from fakevlm.data.clues import KINDS
from fakevlm.progress import track
from miniworld.canvas import Part
from miniworld.fitting import FITTING
from miniworld.pretraining.describe import ask
from miniworld.world import SCENES, shoot

SEED = 991  # the first entry of every seed sequence here; the corpora's start with other numbers
GRID = 12
KIND_NAMES = tuple(KINDS)
CATEGORY_NAMES = tuple(SCENES)
FILM_NAMES = ("grain", "noise", "blur", "focus", "compression")
SHARES = (0.14, 0.135, 0.14, 0.14, 0.135, 0.135, 0.135, 0.04)
STYLES = ("fakeclue", "loki", "dmimage")


@dataclass
class Pool:
    """Renders and what is known of them.

    Attributes:
        pixels: (N, 96, 96, 3) uint8.
        parts: (N, 144) uint32, bit p set where part p covers at least a sixth of the patch.
        kinds: (N, 144) uint32, bit k set where phenomenon k can be seen in the patch.
        facts: (N, 4) uint8: scene category, light from the right, film qualities as bits, phenomena as count.
        texts: (N,) pairs of question and answer.
    """

    pixels: np.ndarray
    parts: np.ndarray
    kinds: np.ndarray
    facts: np.ndarray
    texts: list[tuple[str, str]]


def _one(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, str]]:
    rng = np.random.default_rng([SEED, index])
    style = STYLES[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
    draw = rng.random()
    if draw < 0.4:  # one phenomenon, each as often as any other
        kind = KIND_NAMES[int(rng.integers(len(KIND_NAMES)))]
        fitting = [c for c in CATEGORY_NAMES if kind in FITTING[c] or KINDS[kind].unseen]
        category = fitting[int(rng.integers(len(fitting)))]
        shot = shoot(category, rng, fake=True, kinds=[kind], count=(1, 1), strength=(0.35, 1.0), style=style)
    else:
        category = CATEGORY_NAMES[int(rng.choice(len(CATEGORY_NAMES), p=SHARES))]
        shot = shoot(category, rng, fake=draw < 0.65, count=(1, 3), strength=(0.35, 1.0), style=style)
    side = shot.pixels.shape[0] // GRID
    cells = shot.parts.reshape(GRID, side, GRID, side).transpose(0, 2, 1, 3).reshape(GRID * GRID, -1)
    parts = np.zeros(GRID * GRID, np.uint32)
    for part in Part:
        parts |= ((cells == part).mean(1) > 1 / 6).astype(np.uint32) << np.uint32(part)
    kinds = np.zeros((GRID, GRID), np.uint32)
    for a in shot.artifacts:
        x0, y0, x1, y1 = (v * GRID for v in a.region)
        kinds[
            int(y0 + 0.3) : max(int(y0 + 0.3) + 1, int(np.ceil(y1 - 0.3))),
            int(x0 + 0.3) : max(int(x0 + 0.3) + 1, int(np.ceil(x1 - 0.3))),
        ] |= np.uint32(1 << KIND_NAMES.index(a.kind))
    film = sum(1 << n for n, name in enumerate(FILM_NAMES) if name in shot.facts["film"].split(","))
    facts = np.array(
        [CATEGORY_NAMES.index(category), shot.facts["light"] == "right", film, len(shot.artifacts)], np.uint8
    )
    return shot.pixels, parts, kinds.reshape(-1), facts, ask(shot, rng)


def _chunk(
    bounds: tuple[int, int],
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, str]]]:
    return [_one(i) for i in range(*bounds)]


def _chunks(start: int, count: int, step: int = 500) -> list[tuple[int, int]]:
    return [(a, min(a + step, start + count)) for a in range(start, start + count, step)]


def render(start: int, count: int, processes: int = 2) -> Pool:
    """Renders number `start` … `start + count`; the same numbers give the same pool however many processes."""
    pool = Pool(
        np.empty((count, 96, 96, 3), np.uint8),
        np.empty((count, GRID * GRID), np.uint32),
        np.empty((count, GRID * GRID), np.uint32),
        np.empty((count, 4), np.uint8),
        [],
    )
    n = 0
    with ProcessPoolExecutor(processes) as executor:
        results: Iterator = executor.map(_chunk, _chunks(start, count))
        for rows in track(results, "rendering", total=len(_chunks(start, count)), unit="x500"):
            for pixels, parts, kinds, facts, text in rows:
                pool.pixels[n], pool.parts[n], pool.kinds[n], pool.facts[n] = pixels, parts, kinds, facts
                pool.texts.append(text)
                n += 1
    return pool
