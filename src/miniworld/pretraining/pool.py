"""Renders that the base is pretrained on: dense targets, a question and its neutral answer.

An answer states what can be seen, never whether that is right (words: describe.yaml). Seeds are disjoint from
the corpora's (`miniworld.export`), so the base never sees an image of FakeClue-mini or a benchmark.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from fakevlm.data.clues import FAMILIES, KINDS, SUBJECTS
from fakevlm.data.ground_truth import Artifact
from fakevlm.progress import track
from miniworld.canvas import Part
from miniworld.fitting import FITTING
from miniworld.stagecraft import pick
from miniworld.world import SCENES, Shot, shoot

SEED = 991  # the first entry of every seed sequence here; the corpora's start with other numbers
GRID = 12  # patches a side
KIND_NAMES = tuple(KINDS)
CATEGORY_NAMES = tuple(SCENES)
FILM_NAMES = ("grain", "noise", "blur", "focus", "compression")
SHARES = (0.14, 0.135, 0.14, 0.14, 0.135, 0.135, 0.135, 0.04)
STYLES = ("fakeclue", "loki", "dmimage")
_WORDS = yaml.safe_load(Path(__file__).with_name("describe.yaml").read_text(encoding="utf-8"))
PHRASES: dict[str, list[str]] = _WORDS["kinds"]


@dataclass
class Pool:
    """N renders and their targets."""

    pixels: np.ndarray  # (N, 96, 96, 3) uint8
    parts: np.ndarray  # (N, 144) uint32, bit p set where part p covers at least a sixth of the patch
    kinds: np.ndarray  # (N, 144) uint32, bit k set where an artifact of kind k can be seen in the patch
    facts: np.ndarray  # (N, 4) uint8: scene category, light from the right, film as bits, number of artifacts
    texts: list[tuple[str, str]]  # question and answer


def _patches(low: float, high: float) -> slice:
    """Return the patches that an artifact covers along one axis, from its ends in fractions of the image."""
    first = int(low * GRID + 0.3)
    return slice(first, max(first + 1, int(np.ceil(high * GRID - 0.3))))


def _place(artifact: Artifact) -> str:
    """Return the rough place of an artifact: upper left, middle, lower right …"""
    x0, y0, x1, y1 = artifact.region
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    row = "upper" if y < 0.4 else "lower" if y > 0.6 else ""
    column = "left" if x < 0.4 else "right" if x > 0.6 else ""
    return f"{row} {column}".strip() or "middle"


def _family(shot: Shot, family: str, rng: np.random.Generator) -> str:
    """Return what one family (texture, geometry, lighting) looks like in the shot."""
    subject, light = SUBJECTS[shot.category], shot.facts["light"]
    kinds = [kind for kind in KINDS if KINDS[kind].family == family]
    artifacts = sorted((a for a in shot.artifacts if a.kind in kinds), key=lambda a: kinds.index(a.kind))
    if not artifacts:
        dark = "left" if light == "right" else "right"
        return pick(rng, _WORDS["plain"][family]).format(s=subject, l=light, d=dark)
    clues = []
    for a in artifacts:
        text = pick(rng, PHRASES[a.kind]).format(s=subject, l=light)
        clues.append(text if a.kind == "shadow" else f"{text}, at the {_place(a)}")
    return "; ".join(clues)


def ask(shot: Shot, rng: np.random.Generator) -> tuple[str, str]:
    """Return one question about the shot, and its answer."""
    topics = ["texture", "geometry", "lighting", "subject", "camera", "all"]
    topic = str(rng.choice(topics, p=[0.1, 0.1, 0.06, 0.04, 0.04, 0.66]))
    question, facts = pick(rng, _WORDS["questions"][topic]), shot.facts
    subject = facts["subject"]
    noun = _WORDS["nouns"].get(subject) or f"{'an' if subject[0] in 'aeiou' else 'a'} {subject}"
    if topic == "subject":
        counts = [f"{facts[part]} {part}" for part in ("legs", "arms", "wheels", "houses") if part in facts]
        return question, f"This is an image of {noun}{' with ' * bool(counts)}{' and '.join(counts)}."
    if topic == "all":
        families = "; ".join(f"{family.capitalize()}: {_family(shot, family, rng)}" for family in FAMILIES)
        return question, f"This is an image of {noun}. {families}."
    if topic == "camera":
        film = [_WORDS["film"][quality] for quality in shot.film if quality in _WORDS["film"]]
        answer = "; ".join(film or ["the picture is clean and sharp"])
    else:
        answer = _family(shot, topic, rng)
    return question, f"{answer[0].upper()}{answer[1:]}."


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
