"""Renders that the base is pretrained on, with dense targets from the renderer.

Seeds are disjoint from the corpora's (`miniworld.export`), so the base never sees an image of FakeClue-mini
or a benchmark."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

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
Norm = tuple[list[float], list[float]]  # mean and standard deviation of the colour channels


@dataclass
class Pool:
    """Renders and their targets.

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


def _cells(low: float, high: float) -> slice:
    first = int(low + 0.3)
    return slice(first, max(first + 1, int(np.ceil(high - 0.3))))


def _one(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, tuple[str, str]]:
    """Return a row of the pool."""
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
        columns, rows = (_cells(a.region[i] * GRID, a.region[i + 2] * GRID) for i in (0, 1))
        kinds[rows, columns] |= np.uint32(1 << KIND_NAMES.index(a.kind))
    film = sum(1 << n for n, name in enumerate(FILM_NAMES) if name in shot.facts["film"].split(","))
    facts = np.array(
        [CATEGORY_NAMES.index(category), shot.facts["light"] == "right", film, len(shot.artifacts)], np.uint8
    )
    return shot.pixels, parts, kinds.reshape(-1), facts, ask(shot, rng)


def render(start: int, count: int, processes: int = 2) -> Pool:
    """Return renders number `start` … `start + count`.

    Equal numbers give equal pools, however many processes.
    """
    with ProcessPoolExecutor(processes) as executor:
        results = executor.map(_one, range(start, start + count), chunksize=100)
        rows = zip(*track(results, "rendering", total=count), strict=True)
        *arrays, texts = rows
    return Pool(*map(np.stack, arrays), list(texts))


def normalised(pixels: np.ndarray, norm: Norm, flip: np.ndarray) -> torch.Tensor:
    """Return images (B, H, W, 3) uint8 as (B, 3, H, W) for the tower, mirrored where `flip` (B,) is true."""
    x = np.where(flip[:, None, None, None], pixels[:, :, ::-1], pixels)
    x = torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in norm)
    return (x - mean) / std
