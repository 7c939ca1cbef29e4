"""Neutral descriptions: what is there, how many, straight or bent, where the light comes from.

Never real or fake.

Every answer states what can be seen; nothing in it says whether that is as it should be.
"""

from pathlib import Path

import numpy as np
import yaml

from fakevlm.data.clues import FAMILIES, KINDS, SUBJECTS
from fakevlm.data.ground_truth import Artifact
from miniworld.world import Shot

_WORDS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
LOOKS: dict[str, list[str]] = _WORDS["kinds"]


def _noun(subject: str) -> str:
    return _WORDS["nouns"].get(subject) or f"{'an' if subject[0] in 'aeiou' else 'a'} {subject}"


def where(region: tuple[float, float, float, float]) -> str:
    """Return the rough place of a region: upper left, middle, lower right …"""
    x, y = (region[0] + region[2]) / 2, (region[1] + region[3]) / 2
    row = "upper" if y < 0.4 else "lower" if y > 0.6 else ""
    column = "left" if x < 0.4 else "right" if x > 0.6 else ""
    return f"{row} {column}".strip() or "middle"


def _pick(rng: np.random.Generator, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _looks(artifact: Artifact, subject: str, light: str, rng: np.random.Generator) -> str:
    if artifact.kind == "shadow":
        return f"light comes from the {light} and a shadow falls to the {light} too, towards the light"
    return _pick(rng, LOOKS[artifact.kind]).format(s=subject) + f", at the {where(artifact.region)}"


def family_text(shot: Shot, family: str, rng: np.random.Generator) -> str:
    """Return what one family (texture, geometry, lighting) looks like in the shot."""
    subject, light = SUBJECTS[shot.category], shot.facts["light"]
    seen = [a for a in shot.artifacts if KINDS[a.kind].family == family]
    if not seen:
        dark = "left" if light == "right" else "right"
        return _pick(rng, _WORDS["plain"][family]).format(s=subject, l=light, d=dark)
    order = list(KINDS)
    return "; ".join(_looks(a, subject, light, rng) for a in sorted(seen, key=lambda a: order.index(a.kind)))


def ask(shot: Shot, rng: np.random.Generator) -> tuple[str, str]:
    """Return one question about the shot, and its answer."""
    topics = ["texture", "geometry", "lighting", "subject", "camera", "all"]
    topic = str(rng.choice(topics, p=[0.1, 0.1, 0.06, 0.04, 0.04, 0.66]))
    question = _pick(rng, _WORDS["questions"][topic])
    if topic in FAMILIES:
        return question, _sentence(family_text(shot, topic, rng))
    if topic == "subject":
        facts = shot.facts
        counts = [f"{facts[k]} {k}" for k in ("legs", "arms", "wheels", "houses") if k in facts]
        counted = f" with {' and '.join(counts)}" if counts else ""
        return question, f"This is an image of {_noun(facts['subject'])}{counted}."
    if topic == "camera":
        film = [_WORDS["film"][q] for q in shot.facts["film"].split(",") if q in _WORDS["film"]]
        return question, _sentence("; ".join(film or ["the picture is clean and sharp"]))
    parts = "; ".join(f"{family.capitalize()}: {family_text(shot, family, rng)}" for family in FAMILIES)
    return question, f"This is an image of {_noun(shot.facts['subject'])}. {parts}."


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
