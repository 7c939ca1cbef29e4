"""Neutral descriptions: what is there, how many, straight or bent, where the light comes from. Never real or fake.

Every answer states what can be seen; nothing in it says whether that is as it should be.
"""

import numpy as np

from fakevlm.data.clues import FAMILIES, KINDS, SUBJECTS
from fakevlm.data.ground_truth import Artifact
from miniworld.world import Shot

# What each phenomenon looks like, without judgement.
LOOKS: dict[str, tuple[str, ...]] = {
    "smooth": ("one area of {s} is very smooth, without grain", "a smooth, waxy area lies on {s}"),
    "grid": ("a regular grid of lines covers part of {s}", "a checkerboard grid lies over {s}"),
    "smear": (
        "details near {s} are drawn out in streaks, smeared in one direction",
        "a smeared area lies near {s}",
    ),
    "repeat": ("a small patch repeats side by side near {s}", "identical tiles repeat near {s}"),
    "garble": ("the letters on {s} are irregular, an illegible scribble", "the writing on {s} is garbled"),
    "speckle": ("small coloured dots, speckles, lie on {s}", "coloured speckles cover part of {s}"),
    "banding": ("tones near {s} change in steps", "colour steps around {s}"),
    "ringing": ("ripples follow the edges of {s}", "the edges of {s} echo as ripples"),
    "extra_part": ("{s} has one extra limb or part", "one more part, an extra one, grows out of {s}"),
    "bent": ("one line of {s} is bent and wavy", "a line of {s} is wavy, not straight"),
    "duplicate": ("a piece of {s} appears twice", "a piece of {s} is doubled next to itself"),
    "asymmetry": (
        "the two sides of {s} differ in size, they are asymmetric",
        "paired parts of {s} have different sizes",
    ),
    "melt": ("the outline of {s} melts and flows", "the shape of {s} is melted"),
    "misaligned": ("one part of {s} is shifted by a step", "{s} is cut and one side is shifted"),
    "float": ("a piece of {s} floats apart", "a piece of {s} hovers above"),
    "halo": ("a bright band, a halo, runs around {s}", "{s} has a glowing outline, a halo"),
    "tint": ("one area of {s} has another colour, a tint", "a colour tint lies on part of {s}"),
    "glare": ("a bright spot of glare lies on {s}", "a very bright highlight lies on {s}"),
}
PLAIN = {
    "texture": ("texture is even over {s}", "the surface of {s} shows natural fine texture throughout"),
    "geometry": (
        "lines of {s} are straight and its parts fit together",
        "the shape of {s} is whole and regular",
    ),
    "lighting": (
        "colour of {s} is even, light comes from the {l} and the shadow falls to the {d}",
        "light comes from the {l}",
    ),
}
FILM = {
    "grain": "fine grain lies over the picture",
    "noise": "strong noise lies over the picture",
    "blur": "the picture is soft, out of focus",
    "focus": "the background is out of focus",
    "compression": "compression blocks are visible",
}
QUESTIONS = {
    "texture": ("Describe the texture.", "What does the surface look like?"),
    "geometry": ("Describe the shapes.", "What do the lines and shapes look like?"),
    "lighting": ("Describe the light and colour.", "What do light and colour look like?"),
    "subject": ("What does the image show?", "What is in the image?"),
    "camera": ("Describe the quality of the photograph.", "How sharp is the picture?"),
    "all": ("Describe the image.", "Describe the image in detail."),
}


# What a thing is called in "an image of …", where its key is no noun.
NOUNS = {
    "country": "a country landscape",
    "urban": "an urban area from above",
    "suburban": "a suburban area from above",
    "natural": "natural terrain from above",
    "paper": "a page of a paper",
    "newspaper": "a newspaper page",
    "magazine": "a magazine page",
}


def _noun(subject: str) -> str:
    return NOUNS.get(subject) or f"{'an' if subject[0] in 'aeiou' else 'a'} {subject}"


def where(region: tuple[float, float, float, float]) -> str:
    """The rough place of a region: upper left, middle, lower right …"""
    x, y = (region[0] + region[2]) / 2, (region[1] + region[3]) / 2
    row = "upper" if y < 0.4 else "lower" if y > 0.6 else ""
    column = "left" if x < 0.4 else "right" if x > 0.6 else ""
    return f"{row} {column}".strip() or "middle"


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _looks(artifact: Artifact, subject: str, light: str, rng: np.random.Generator) -> str:
    if artifact.kind == "shadow":
        return f"light comes from the {light} and a shadow falls to the {light} too, towards the light"
    return _pick(rng, LOOKS[artifact.kind]).format(s=subject) + f", at the {where(artifact.region)}"


def family_text(shot: Shot, family: str, rng: np.random.Generator) -> str:
    """What one family (texture, geometry, lighting) looks like in the shot."""
    subject, light = SUBJECTS[shot.category], shot.facts["light"]
    seen = [a for a in shot.artifacts if KINDS[a.kind].family == family]
    if not seen:
        dark = "left" if light == "right" else "right"
        return _pick(rng, PLAIN[family]).format(s=subject, l=light, d=dark)
    order = list(KINDS)
    return "; ".join(_looks(a, subject, light, rng) for a in sorted(seen, key=lambda a: order.index(a.kind)))


def ask(shot: Shot, rng: np.random.Generator) -> tuple[str, str]:
    """One question about the shot and its answer."""
    topic = str(
        rng.choice(
            ["texture", "geometry", "lighting", "subject", "camera", "all"],
            p=[0.1, 0.1, 0.06, 0.04, 0.04, 0.66],
        )
    )
    question = _pick(rng, QUESTIONS[topic])
    if topic in FAMILIES:
        return question, _sentence(family_text(shot, topic, rng))
    if topic == "subject":
        facts = shot.facts
        counts = [f"{facts[k]} {k}" for k in ("legs", "arms", "wheels", "houses") if k in facts]
        return question, f"This is an image of {_noun(facts['subject'])}" + (
            f" with {' and '.join(counts)}." if counts else "."
        )
    if topic == "camera":
        said = [FILM[q] for q in shot.facts["film"].split(",") if q in FILM] or [
            "the picture is clean and sharp"
        ]
        return question, _sentence("; ".join(said))
    parts = "; ".join(f"{family.capitalize()}: {family_text(shot, family, rng)}" for family in FAMILIES)
    return question, f"This is an image of {_noun(shot.facts['subject'])}. {parts}."


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
