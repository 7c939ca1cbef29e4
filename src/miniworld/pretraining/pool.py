"""Renders that the base is pretrained on, with dense targets from the renderer.

Seeds are disjoint from the corpora's (`miniworld.export`), so the base never sees an image of FakeClue-mini
or a benchmark.
"""

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
GRID = 12  # patches a side
KIND_NAMES = tuple(KINDS)
CATEGORY_NAMES = tuple(SCENES)
FILM_NAMES = ("grain", "noise", "blur", "focus", "compression")
SHARES = (0.14, 0.135, 0.14, 0.14, 0.135, 0.135, 0.135, 0.04)
STYLES = ("fakeclue", "loki", "dmimage")


@dataclass
class Pool:
    """Renders and their targets.

    Attributes:
        pixels: (N, 96, 96, 3) uint8.
        parts: (N, 144) uint32, bit p set where part p covers at least a sixth of the patch.
        kinds: (N, 144) uint32, bit k set where an artifact of kind k can be seen in the patch.
        facts: (N, 4) uint8: scene category, light from the right, film as bits, number of artifacts.
        texts: (N,) pairs of question and answer.
    """

    pixels: np.ndarray
    parts: np.ndarray
    kinds: np.ndarray
    facts: np.ndarray
    texts: list[tuple[str, str]]


def _patches(low: float, high: float) -> slice:
    """Return the patches that an artifact covers along one axis, from its ends in fractions of the image."""
    first = int(low * GRID + 0.3)
    return slice(first, max(first + 1, int(np.ceil(high * GRID - 0.3))))


def _row(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, str]]:
    """Return a row of the pool."""
    rng = np.random.default_rng([SEED, index])
    style = STYLES[int(rng.choice(3, p=[0.6, 0.2, 0.2]))]
    draw = rng.random()
    kinds, count = None, (1, 3)
    if draw < 0.4:  # one artifact, each kind as often as any other
        kind = KIND_NAMES[int(rng.integers(len(KIND_NAMES)))]
        fitting = [c for c in CATEGORY_NAMES if kind in FITTING[c] or KINDS[kind].unseen]
        category = fitting[int(rng.integers(len(fitting)))]
        kinds, count = [kind], (1, 1)
    else:
        category = CATEGORY_NAMES[int(rng.choice(len(CATEGORY_NAMES), p=SHARES))]
    options = {"kinds": kinds, "count": count, "strength": (0.35, 1.0), "style": style}
    shot = shoot(category, rng, fake=draw < 0.65, **options)
    side = shot.pixels.shape[0] // GRID
    cells = shot.parts.reshape(GRID, side, GRID, side).transpose(0, 2, 1, 3).reshape(GRID * GRID, -1)
    parts = np.zeros(GRID * GRID, np.uint32)
    for part in Part:
        parts |= ((cells == part).mean(1) > 1 / 6).astype(np.uint32) << np.uint32(part)
    kind_bits = np.zeros((GRID, GRID), np.uint32)
    for artifact in shot.artifacts:
        x0, y0, x1, y1 = artifact.region
        kind_bits[_patches(y0, y1), _patches(x0, x1)] |= np.uint32(1 << KIND_NAMES.index(artifact.kind))
    film = sum(1 << n for n, name in enumerate(FILM_NAMES) if name in shot.film)
    light = shot.facts["light"] == "right"
    facts = np.array([CATEGORY_NAMES.index(category), light, film, len(shot.artifacts)], np.uint8)
    return shot.pixels, parts, kind_bits.reshape(-1), facts, ask(shot, rng)


def render(start: int, count: int, processes: int = 2) -> Pool:
    """Return renders number `start` … `start + count`; the number of processes does not change them."""
    with ProcessPoolExecutor(processes) as executor:
        rows = track(executor.map(_row, range(start, start + count), chunksize=100), "rendering", total=count)
        *arrays, texts = zip(*rows, strict=True)
    return Pool(*map(np.stack, arrays), list(texts))
