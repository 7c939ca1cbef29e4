"""The miniature world: `shoot` photographs a scene, or lets a flawed generator imagine one.

Real and fake images come from the same scenes through the same camera; a fake differs by its artifacts alone, and a few
fakes by nothing that can be seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType

import cv2
import numpy as np

from fakevlm.data.clues import KINDS, SEEN_KINDS
from fakevlm.data.ground_truth import Artifact
from fakevlm.data.records import FAKE, REAL
from fakevlm.synthesis.jpeg import encode_jpeg
from miniworld import artifacts, camera
from miniworld.canvas import Canvas, Part, noise
from miniworld.fitting import FITTING, MANIPULATIONS
from miniworld.scenes import animal, face, human, landscape, page, satellite, scan, thing
from miniworld.stagecraft import STYLES, Box, Brief, Set, Style

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
# After the camera (they would not survive it, or must not carry its grain), or before it, as part of the scene's light.
_BEFORE_GRAIN = {"melt", "halo", "tint", "glare"}


@dataclass
class Shot:
    """A picture of the world and everything true of it.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, as decoded from `jpeg` (raw for video frames).
        jpeg: the file's bytes.
        artifacts: visible ones, with regions as fractions.
        qualities: honest qualities of the photograph, keys of `catalogue.QUALITIES`.
        facts: neutral facts (`legs`, `subject`, `light` …) for the base's descriptions.
        parts: (H, W) uint8 map of `canvas.Part`.
        layout: of a document, the blocks it was set from.
    """

    pixels: np.ndarray
    jpeg: bytes
    category: str
    label: int
    artifacts: list[Artifact] = field(default_factory=list)
    qualities: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    parts: np.ndarray | None = None
    layout: list | None = None


def _choose(
    category: str, rng: np.random.Generator, kinds: Sequence[str] | None, count: tuple[int, int]
) -> list[str]:
    fitting = FITTING[category] + UNSEEN
    allowed = [kind for kind in (kinds if kinds is not None else SEEN_KINDS) if kind in fitting]
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
    img: np.ndarray, parts: np.ndarray, stage: Set, light: int, rng: np.random.Generator
) -> np.ndarray:
    """Material texture everywhere, and shading of the subject from the side of the light."""
    n = img.shape[0]
    fine, streak = np.zeros(32, np.float32), np.zeros(32, np.float32)
    for part in Part:
        fine[part], streak[part] = stage.texture.get(part, (3, 0))
    texture = fine[parts] * noise(rng, "fine", n) + streak[parts] * noise(rng, "streak", n)
    img = img + texture[..., None] + (2.5 * noise(rng, "coarse", n))[..., None]
    if not stage.paper:
        x, _, rx, _ = stage.centre
        across = np.clip((np.arange(n, dtype=np.float32) / n - x) / max(rx, 0.1), -1.2, 1.2) * light
        on_subject = np.isin(parts, [int(p) for p in stage.subject])
        factor = 1 + np.where(on_subject, 0.42, 0.05) * across[None, :]
        img = img * factor[..., None]
    return img.astype(np.float32)


def _picture(
    category: str, rng: np.random.Generator, style: Style, size: int, chosen: list[str], strength: tuple[float, float],
    layout: list | None, variant: str | None, post_rng: np.random.Generator, pose: tuple[float, float, float] | None = None,
) -> tuple[np.ndarray, np.ndarray, Set, list[Artifact], list[str], int]:  # fmt: skip
    scene = SCENES[category]
    strengths = {kind: float(post_rng.uniform(*strength)) for kind in chosen}
    flaws = {kind: s for kind, s in strengths.items() if kind in scene.FLAWS}
    light = -1 if rng.random() < 0.5 else 1
    brief = Brief(rng, style, flaws, light, variant, layout)
    canvas = Canvas(size)
    stage = scene.draw(canvas, brief, pose) if pose is not None else scene.draw(canvas, brief)
    img, parts = canvas.down()
    img = _light_up(img, parts, stage, light, rng)
    subject = np.isin(parts, [int(p) for p in stage.subject])
    place = artifacts.Place(subject, stage, light, post_rng)
    found = [
        Artifact(k, _rounded(brief.flawed[k]), round(strengths[k], 3)) for k in flaws if k in brief.flawed
    ]

    def put(kinds: Sequence[str], picture: np.ndarray) -> np.ndarray:
        for kind in kinds:
            result = artifacts.apply(picture, kind, place, strengths[kind])
            if result is not None:
                picture, b = result
                found.append(Artifact(kind, _rounded(tuple(v / size for v in b)), round(strengths[kind], 3)))
        return picture

    after = [k for k in chosen if k in artifacts.MAKERS and k not in _BEFORE_GRAIN]
    img = put([k for k in chosen if k in _BEFORE_GRAIN], img)
    img = camera.expose(img, rng, style)
    img, soft = camera.lens(img, subject, rng, style)
    img, grain = camera.sense(img, rng, style)
    img = put(after, np.clip(img, 0, 255))
    return img, parts, stage, found, soft + grain, light


def _rounded(b: Sequence[float]) -> Box:
    return tuple(round(float(min(1.0, max(0.0, v))), 3) for v in b)  # type: ignore[return-value]


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
    """One picture.

    Args:
        category: a key of `SCENES`.
        fake: whether a flawed generator made it.
        kinds: artifact kinds that may occur; None means all that FakeClue-mini knows. Those that do not fit are left out.
        count: how many artifacts, (least, most); (0, 0) makes a fake that shows nothing.
        strength: range of the artifacts' strength, 0..1.
        style: a key of `stagecraft.STYLES`.
        size: pixels a side.
        layout: for documents, the blocks to set (`synthesis.layout`).
        variant: the kind of subject ("dog", "chair", "newspaper" …); random if None.

    Returns:
        The shot; a fake with count ≥ 1 shows at least one artifact.
    """
    look = STYLES[style]
    for _ in range(8):
        chosen = _choose(category, rng, kinds, count) if fake else []
        img, parts, stage, found, qualities, light = _picture(
            category, rng, look, size, chosen, strength, layout, variant, rng
        )
        if found or not chosen:
            break
    jpeg, twice = encode_jpeg(img, rng, look.jpeg)
    film = [*qualities, *(["compression"] if twice else [])]
    qualities = [*film, "structure", "lines", "light", "colour"]
    pixels = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    facts = {**stage.facts, "light": "right" if light > 0 else "left", "film": ",".join(film)}
    return Shot(
        pixels, jpeg, category, FAKE if fake else REAL, found, [] if fake else qualities, facts, parts, layout
    )


def shoot_video(
    rng: np.random.Generator,
    *,
    frames: int,
    manipulation: str | None = None,
    size: int = 96,
    style: str = "fakeclue",
) -> list[Shot]:
    """A clip of one face: the same identity, light and camera, slight motion of head and mouth.

    Args:
        manipulation: a key of `MANIPULATIONS`, whose artifacts stay on the face through the clip; None for a real clip.
    """
    look = STYLES[style]
    look = replace(look, grain=(look.grain[0], (look.grain[0] + look.grain[1]) / 2))
    identity, flaw_seed, motion = (int(rng.integers(2**31)) for _ in range(3))
    move = np.random.default_rng(motion)
    chosen: list[str] = []
    if manipulation is not None:
        options = MANIPULATIONS[manipulation]
        chosen = [str(k) for k in rng.choice(options, int(rng.integers(1, 3)), replace=False)]
    shots = []
    for _ in range(frames):
        pose = (
            float(move.uniform(-0.035, 0.035)),
            float(move.uniform(-0.025, 0.025)),
            float(move.uniform(0, 0.03)),
        )
        for attempt in range(6):
            img, parts, stage, found, qualities, light = _picture(
                "deepfake", np.random.default_rng(identity), look, size, chosen, (0.7, 1.0), None, None,
                np.random.default_rng(flaw_seed + attempt), pose,
            )  # fmt: skip
            if found or not chosen:
                break
        pixels = np.clip(img, 0, 255).astype(np.uint8)
        label = FAKE if manipulation else REAL
        honest = [] if manipulation else [*qualities, "structure", "lines", "light", "colour"]
        facts = {**stage.facts, "light": "right" if light > 0 else "left"}
        shots.append(Shot(pixels, b"", "deepfake", label, found, honest, facts, parts))
    return shots
