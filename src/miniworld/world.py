"""The miniature world: `shoot` photographs a scene, or lets a flawed generator draw one.

Real and fake images come from the same scenes through the same camera; a fake differs by its artifacts alone,
and a few fakes by nothing that can be seen."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from fakevlm.data.clues import KINDS, SEEN_KINDS
from fakevlm.data.corpora.m6doc import Page
from fakevlm.data.ground_truth import Artifact, GroundTruth
from fakevlm.data.page_layout import jitter
from fakevlm.data.records import FAKE, REAL
from fakevlm.synthesis.rendered import encode_jpeg
from miniworld import artifacts
from miniworld.canvas import Canvas, Part, noise
from miniworld.fitting import FITTING, MANIPULATIONS, OBJECTS
from miniworld.scenes import bodies, page, places, thing
from miniworld.stagecraft import STYLES, Brief, Set, Style

SCENES = {
    "animal": bodies.draw_animal,
    "human": bodies.draw_human,
    "object": thing.draw_thing,
    "scene": places.draw_scene,
    "satellite": places.draw_satellite,
    "doc": page.draw_page,
    "deepfake": bodies.draw_face,
    "medicine": bodies.draw_scan,
}
TEXTURES = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
_BEFORE_GRAIN = ("melt", "halo", "tint", "glare")  # part of the scene's light; others come behind the camera
_ALWAYS = ["structure", "lines", "light", "colour"]  # qualities of every real image


@dataclass
class Shot:
    """A picture of the world and everything true of it."""

    pixels: np.ndarray  # (H, W, 3) uint8 RGB, as decoded from `jpeg` (raw for video frames)
    jpeg: bytes
    category: str
    label: int
    artifacts: list[Artifact]  # visible ones, with regions as fractions
    film: list[str]  # qualities of the photograph: grain, noise, blur, focus, compression
    facts: dict[str, str]  # neutral, for the base's descriptions (`legs`, `subject`, `light` …)
    parts: np.ndarray  # (H, W) uint8 map of `canvas.Part`

    @property
    def qualities(self) -> list[str]:
        """The honest qualities of a real image, keys of `clues.QUALITIES`."""
        return [] if self.label == FAKE else [*self.film, *_ALWAYS]

    def ground_truth(self, path: str) -> GroundTruth:
        """Return the ground truth of a record with this picture."""
        return GroundTruth(path, self.label, self.category, self.artifacts, self.qualities)


def _choose(
    category: str, rng: np.random.Generator, kinds: Sequence[str] | None, count: tuple[int, int]
) -> list[str]:
    """Return the kinds of artifact to put in."""
    fitting = FITTING[category]
    wanted = SEEN_KINDS if kinds is None else kinds
    allowed = [kind for kind in wanted if kind in fitting or KINDS[kind].unseen] or fitting
    n = min(rng.integers(count[0], count[1] + 1), len(allowed))
    chosen = rng.choice(allowed, n, replace=False).tolist()
    if category == "object":  # not every object can show every pair of flaws
        drawn = [k for k in chosen if k not in artifacts.MAKERS]
        while drawn and not any(set(drawn) <= set(can) for can in OBJECTS.values()):
            chosen.remove(drawn.pop())
    return chosen


def _light_up(
    category: str, stage: Set, brief: Brief, img: np.ndarray, parts: np.ndarray, subject: np.ndarray
) -> np.ndarray:
    """Add texture of the material everywhere, and shade the subject from the side of the light."""
    n, rng = img.shape[0], brief.rng
    texture = TEXTURES.get(category) or TEXTURES[stage.facts["subject"]]
    fine, streak = np.float32([texture.get(part.name, (3, 0)) for part in Part]).T
    grain = fine[parts] * noise(rng, "fine", n) + streak[parts] * noise(rng, "streak", n)
    img = img + grain[..., None] + (2.5 * noise(rng, "coarse", n))[..., None]
    if not stage.paper:
        x, _, rx, _ = stage.centre
        across = np.clip((np.arange(n, dtype=np.float32) / n - x) / max(rx, 0.1), -1.2, 1.2) * brief.light
        img = img * (1 + np.where(subject, 0.42, 0.05) * across)[..., None]
    return img.astype(np.float32)


def _expose(img: np.ndarray, rng: np.random.Generator, style: Style) -> np.ndarray:
    """Apply exposure, white balance and vignette of the whole picture."""
    gain = rng.uniform(0.5, 0.65) if rng.random() < style.night else rng.uniform(0.82, 1.12)
    balance = np.float32(rng.normal(1.0, 0.035, 3))
    img = img * (gain * balance)
    if rng.random() < 0.5:
        n = img.shape[0]
        ys, xs = np.ogrid[0:n, 0:n]
        d = ((xs / n - 0.5) ** 2 + (ys / n - 0.5) ** 2).astype(np.float32)
        img = img * (1 - rng.uniform(0.1, 0.7) * d)[..., None]
    return img.astype(np.float32)


def _lens(
    img: np.ndarray, subject: np.ndarray, rng: np.random.Generator, style: Style
) -> tuple[np.ndarray, list[str]]:
    """Blur the whole picture, or what lies behind the subject; return it and its qualities."""
    qualities = []
    sigma = rng.uniform(*style.blur)
    if rng.random() < 0.12:
        sigma += rng.uniform(0.25, 0.6)
        qualities.append("blur")
    if sigma > 0.25:
        img = cv2.GaussianBlur(img, (0, 0), sigma)
    if rng.random() < 0.18 and subject.any() and subject.mean() < 0.6:
        near = cv2.GaussianBlur(subject.astype(np.float32), (0, 0), 1.5)[..., None]
        img = img * near + cv2.GaussianBlur(img, (0, 0), rng.uniform(1.0, 2.2)) * (1 - near)
        qualities.append("focus")
    return img, qualities


def _sense(img: np.ndarray, rng: np.random.Generator, style: Style) -> tuple[np.ndarray, list[str]]:
    """Add sensor grain, partly shared by the channels; return the picture and its qualities."""
    sigma = rng.uniform(*style.grain)
    qualities = ["grain"]
    if rng.random() < 0.12:
        sigma += rng.uniform(4, 8)
        qualities = ["noise"]
    n = img.shape[0]
    shared = noise(rng, "white", n) * 0.8 + noise(rng, "fine", n) * 0.6
    colour = np.stack([noise(rng, "white", n) for _ in range(3)], -1)
    return img + sigma * (shared[..., None] * 0.9 + colour * 0.45), qualities


def _take(
    category: str, rng: np.random.Generator, style: Style, size: int, fake: bool, chosen: list[str],
    strength: tuple[float, float], artifact_rng: np.random.Generator, **wishes: Any,
) -> Shot:  # fmt: skip
    """Return a picture behind the camera's sensor, before it becomes a file; `wishes` go to `Brief`."""
    strengths = {kind: float(artifact_rng.uniform(*strength)) for kind in chosen}
    flaws = {kind: s for kind, s in strengths.items() if kind not in artifacts.MAKERS}
    light = -1 if rng.random() < 0.5 else 1
    brief = Brief(rng, style, flaws, light, **wishes)
    canvas = Canvas(size)
    stage = SCENES[category](canvas, brief)
    img, parts = canvas.down()
    subject = np.isin(parts, [int(p) for p in stage.subject])
    img = _light_up(category, stage, brief, img, parts, subject)
    place = artifacts.Place(subject, stage, light, artifact_rng)
    regions = {kind: brief.flawed[kind] for kind in flaws if kind in brief.flawed}

    def put(picture: np.ndarray, *, before_grain: bool) -> np.ndarray:
        for kind in chosen:
            if kind in artifacts.MAKERS and (kind in _BEFORE_GRAIN) == before_grain:
                result = artifacts.apply(picture, kind, place, strengths[kind])
                if result is not None:
                    picture, region = result
                    regions[kind] = tuple(v / size for v in region)
        return picture

    img = put(img, before_grain=True)
    img = _expose(img, rng, style)
    img, soft = _lens(img, subject, rng, style)
    img, grain = _sense(img, rng, style)
    pixels = put(np.clip(img, 0, 255), before_grain=False)
    visible = []
    for kind, region in regions.items():
        inside = tuple(round(float(min(1.0, max(0.0, v))), 3) for v in region)
        visible.append(Artifact(kind, inside, round(strengths[kind], 3)))
    facts = stage.facts | {"light": "right" if light > 0 else "left"}
    return Shot(pixels, b"", category, FAKE if fake else REAL, visible, soft + grain, facts, parts)


def shoot(
    category: str, rng: np.random.Generator, *, fake: bool = False, kinds: Sequence[str] | None = None,
    count: tuple[int, int] = (1, 3), strength: tuple[float, float] = (0.6, 1.0), style: str = "fakeclue",
    size: int = 96, layout: list | None = None, variant: str | None = None,
) -> Shot:  # fmt: skip
    """Return one picture of `size` pixels a side; a fake with count ≥ 1 shows at least one artifact.

    Args:
        category, style: keys of `SCENES` and of `stagecraft.STYLES`.
        kinds: artifacts that may occur, where they fit; None: all that FakeClue-mini knows.
        count: how many artifacts, (least, most); (0, 0) makes a fake that shows nothing.
        strength: range of the artifacts' strength, 0..1.
        layout: of a document, the blocks to set (`fakevlm.data.page_layout`).
        variant: kind of subject ("dog", "chair", "newspaper" …); None draws one by lot.
    """
    wishes = {"layout": layout, "variant": variant}
    for _ in range(8):
        chosen = _choose(category, rng, kinds, count) if fake else []
        shot = _take(category, rng, STYLES[style], size, fake, chosen, strength, rng, **wishes)
        if shot.artifacts or not chosen:
            break
    shot.jpeg, twice = encode_jpeg(shot.pixels, rng, STYLES[style].jpeg)
    shot.film += ["compression"] * twice
    decoded = cv2.imdecode(np.frombuffer(shot.jpeg, np.uint8), cv2.IMREAD_COLOR)
    shot.pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return shot


def shoot_video(rng: np.random.Generator, *, frames: int, manipulation: str | None = None) -> list[Shot]:
    """Return a clip of one face: the same identity, light and camera, slight motion of head and mouth.

    The artifacts of a `manipulation` (of `MANIPULATIONS`) stay through the clip; None makes a real clip.
    """
    identity, flaw_seed, motion = (int(rng.integers(2**31)) for _ in range(3))
    move = np.random.default_rng(motion)
    chosen = []
    if manipulation:
        chosen = rng.choice(MANIPULATIONS[manipulation], rng.integers(1, 3), replace=False).tolist()
    shots = []
    for _ in range(frames):
        pose = tuple(float(move.uniform(*span)) for span in ((-0.035, 0.035), (-0.025, 0.025), (0, 0.03)))
        for attempt in range(6):
            same, other = np.random.default_rng(identity), np.random.default_rng(flaw_seed + attempt)
            fake, style = bool(manipulation), STYLES["video"]
            shot = _take("deepfake", same, style, 96, fake, chosen, (0.7, 1.0), other, pose=pose)
            if shot.artifacts or not chosen:
                break
        shot.pixels = np.clip(shot.pixels, 0, 255).astype(np.uint8)
        shots.append(shot)
    return shots


class MiniatureRenderer:
    """Draws the synthetic documents and satellite images (`collect.renderer: miniature`); text is greeked."""

    def document(self, page: Page, rng: np.random.Generator, path: str) -> tuple[bytes, GroundTruth]:
        shot = shoot("doc", rng, fake=True, layout=jitter(page.layout, rng), variant=page.style)
        return shot.jpeg, shot.ground_truth(path)

    def satellite(self, rng: np.random.Generator, path: str) -> tuple[bytes, GroundTruth]:
        shot = shoot("satellite", rng, fake=True)
        return shot.jpeg, shot.ground_truth(path)
