"""The miniature world: `shoot` photographs a scene, or lets a flawed generator draw one.

Real and fake images come from the same scenes through the same camera; a fake differs by its artifacts alone,
and a few fakes by nothing that can be seen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from fakevlm.data.clues import KINDS, SEEN_KINDS
from fakevlm.data.ground_truth import Artifact, GroundTruth
from fakevlm.data.records import FAKE, REAL
from fakevlm.synthesis.jpeg import encode_jpeg
from miniworld import artifacts, camera
from miniworld.canvas import Canvas, Part, noise
from miniworld.fitting import FITTING, MANIPULATIONS
from miniworld.scenes import animal, face, human, landscape, page, satellite, scan, thing
from miniworld.stagecraft import STYLES, Brief, Set, Style

SCENES: dict[str, ModuleType] = {
    "animal": animal,
    "human": human,
    "object": thing,
    "scene": landscape,
    "satellite": satellite,
    "doc": page,
    "deepfake": face,
    "medicine": scan,
}
UNSEEN = tuple(name for name, kind in KINDS.items() if kind.unseen)
# Put in before the camera, as part of the scene's light; the others come behind it.
_BEFORE_GRAIN = ("melt", "halo", "tint", "glare")
_ALWAYS = ["structure", "lines", "light", "colour"]  # qualities of every real image


@dataclass
class Shot:
    """A picture of the world and everything true of it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, as decoded from `jpeg` (raw for video frames).
        jpeg: the file's bytes.
        artifacts: visible ones, with regions as fractions.
        film: qualities of the photograph: grain, noise, blur, focus, compression.
        facts: neutral facts (`legs`, `subject`, `light` …) for the base's descriptions.
        parts: (H, W) uint8 map of `canvas.Part`.
    """

    pixels: np.ndarray
    jpeg: bytes
    category: str
    label: int
    artifacts: list[Artifact]
    film: list[str]
    facts: dict[str, str]
    parts: np.ndarray

    @property
    def qualities(self) -> list[str]:
        """The honest qualities of a real image, keys of `clues.QUALITIES`."""
        return [] if self.label == FAKE else [*self.film, *_ALWAYS]

    def truth(self, path: str) -> GroundTruth:
        """Return the ground truth of a record with this picture."""
        return GroundTruth(path, self.label, self.category, self.artifacts, self.qualities)


def _choose(
    category: str, rng: np.random.Generator, kinds: Sequence[str] | None, count: tuple[int, int]
) -> list[str]:
    """Return the kinds of artifact to put in."""
    fitting = FITTING[category] + UNSEEN
    allowed = [kind for kind in (SEEN_KINDS if kinds is None else kinds) if kind in fitting]
    if kinds is not None and not allowed:
        allowed = list(FITTING[category])
    wanted = min(int(rng.integers(count[0], count[1] + 1)), len(allowed))
    chosen = [str(k) for k in rng.choice(allowed, wanted, replace=False)] if wanted else []
    if category == "object":  # not every object can show every pair of flaws
        drawn = [k for k in chosen if k in thing.FLAWS]
        while drawn and not any(set(drawn) <= set(can) for can in thing.CAN.values()):
            chosen.remove(drawn.pop())
    return chosen


def _light_up(
    img: np.ndarray, parts: np.ndarray, subject: np.ndarray, stage: Set, light: int, rng: np.random.Generator
) -> np.ndarray:
    """Add texture of the material everywhere, and shade the subject from the side of the light."""
    n = img.shape[0]
    fine, streak = np.zeros(32, np.float32), np.zeros(32, np.float32)
    for part in Part:
        fine[part], streak[part] = stage.texture.get(part, (3, 0))
    texture = fine[parts] * noise(rng, "fine", n) + streak[parts] * noise(rng, "streak", n)
    img = img + texture[..., None] + (2.5 * noise(rng, "coarse", n))[..., None]
    if not stage.paper:
        x, _, rx, _ = stage.centre
        across = np.clip((np.arange(n, dtype=np.float32) / n - x) / max(rx, 0.1), -1.2, 1.2) * light
        factor = 1 + np.where(subject, 0.42, 0.05) * across[None, :]
        img = img * factor[..., None]
    return img.astype(np.float32)


def _take(
    category: str, rng: np.random.Generator, style: Style, size: int, fake: bool, chosen: list[str],
    strength: tuple[float, float], artifact_rng: np.random.Generator, **wishes: Any,
) -> Shot:  # fmt: skip
    """Return a picture behind the camera's sensor, before it becomes a file; `wishes` go to `Brief`."""
    scene = SCENES[category]
    strengths = {kind: float(artifact_rng.uniform(*strength)) for kind in chosen}
    flaws = {kind: s for kind, s in strengths.items() if kind in scene.FLAWS}
    light = -1 if rng.random() < 0.5 else 1
    brief = Brief(rng, style, flaws, light, **wishes)
    canvas = Canvas(size)
    stage = scene.draw(canvas, brief)
    img, parts = canvas.down()
    subject = np.isin(parts, [int(p) for p in stage.subject])
    img = _light_up(img, parts, subject, stage, light, rng)
    place = artifacts.Place(subject, stage, light, artifact_rng)
    visible: list[Artifact] = []

    def note(kind: str, region: Sequence[float]) -> None:
        inside = tuple(round(float(min(1.0, max(0.0, v))), 3) for v in region)
        visible.append(Artifact(kind, inside, round(strengths[kind], 3)))

    def put(kinds: Sequence[str], picture: np.ndarray) -> np.ndarray:
        for kind in kinds:
            result = artifacts.apply(picture, kind, place, strengths[kind])
            if result is not None:
                picture, region = result
                note(kind, [v / size for v in region])
        return picture

    for kind in flaws:
        if kind in brief.flawed:
            note(kind, brief.flawed[kind])
    img = put([kind for kind in chosen if kind in _BEFORE_GRAIN], img)
    img = camera.expose(img, rng, style)
    img, soft = camera.lens(img, subject, rng, style)
    img, grain = camera.sense(img, rng, style)
    after = [kind for kind in chosen if kind in artifacts.MAKERS and kind not in _BEFORE_GRAIN]
    pixels = put(after, np.clip(img, 0, 255))
    facts = stage.facts | {"light": "right" if light > 0 else "left"}
    return Shot(pixels, b"", category, FAKE if fake else REAL, visible, soft + grain, facts, parts)


def shoot(
    category: str,
    rng: np.random.Generator,
    *,
    fake: bool = False,
    kinds: Sequence[str] | None = None,
    count: tuple[int, int] = (1, 3),
    strength: tuple[float, float] = (0.6, 1.0),
    style: str = "fakeclue",
    size: int = 96,
    layout: list | None = None,
    variant: str | None = None,
) -> Shot:
    """Return one picture; a fake with count ≥ 1 shows at least one artifact.

    Args:
        category: a key of `SCENES`.
        fake: whether a flawed generator draws it.
        kinds: artifact kinds that may occur; None: all that FakeClue-mini knows. Those that do not fit are
            left out.
        count: how many artifacts, (least, most); (0, 0) makes a fake that shows nothing.
        strength: range of the artifacts' strength, 0..1.
        style: a key of `stagecraft.STYLES`.
        size: pixels a side.
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


def shoot_video(
    rng: np.random.Generator,
    *,
    frames: int,
    manipulation: str | None = None,
    size: int = 96,
    style: str = "fakeclue",
) -> list[Shot]:
    """Return a clip of one face: the same identity, light and camera, slight motion of head and mouth.

    Args:
        manipulation: a key of `MANIPULATIONS`, whose artifacts stay through the clip; None for a real clip.
    """
    low, high = STYLES[style].grain
    steady = replace(STYLES[style], grain=(low, (low + high) / 2))
    identity, flaw_seed, motion = (int(rng.integers(2**31)) for _ in range(3))
    move = np.random.default_rng(motion)
    fake, chosen = manipulation is not None, []
    if fake:
        options = MANIPULATIONS[manipulation]
        chosen = [str(k) for k in rng.choice(options, int(rng.integers(1, 3)), replace=False)]
    shots = []
    for _ in range(frames):
        pose = tuple(float(move.uniform(*span)) for span in ((-0.035, 0.035), (-0.025, 0.025), (0, 0.03)))
        for attempt in range(6):
            rngs = np.random.default_rng(identity), np.random.default_rng(flaw_seed + attempt)
            shot = _take("deepfake", rngs[0], steady, size, fake, chosen, (0.7, 1.0), rngs[1], pose=pose)
            if shot.artifacts or not chosen:
                break
        shot.pixels = np.clip(shot.pixels, 0, 255).astype(np.uint8)
        shots.append(shot)
    return shots
