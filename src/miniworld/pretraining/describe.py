"""Neutral descriptions: what is there, how many, straight or bent, where the light comes from.

Every answer states what can be seen; nothing in it says whether that is right (words: describe.yaml).
"""

from pathlib import Path

import numpy as np
import yaml

from fakevlm.data.clues import FAMILIES, KINDS, SUBJECTS
from fakevlm.data.ground_truth import Artifact
from miniworld.stagecraft import pick
from miniworld.world import Shot

_WORDS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
PHRASES: dict[str, list[str]] = _WORDS["kinds"]


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
    shadow = f"light comes from the {light} and a shadow falls to the {light} too, towards the light"
    clues = []
    for a in artifacts:
        if a.kind == "shadow":
            clues.append(shadow)
        else:
            clues.append(f"{pick(rng, PHRASES[a.kind]).format(s=subject)}, at the {_place(a)}")
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
