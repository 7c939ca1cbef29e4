"""The miniature's catalogue of artifacts: kinds, families, words for them, and how to find them named in a text.

The catalogue is the miniature's ground truth about language. The observers speak from it and the evaluation reads
with it (`kinds_named`); the aggregation must not import it, since it has to work on text nobody scripted.
"""

import re
from dataclasses import dataclass

FAMILIES = ("texture", "geometry", "lighting")


@dataclass(frozen=True)
class Kind:
    """One kind of artifact.

    Attributes:
        name: the key.
        family: texture, geometry or lighting (the paper's hierarchy, section 3.2).
        phrases: ways to say it; `{s}` is the subject ("the animal", "the page").
        pattern: a regular expression that any sensible wording of it matches and no other kind's does.
        critical: glaring enough that the aggregation may keep it from a single witness.
        unseen: occurs only in benchmarks, never in FakeClue-mini.
    """

    name: str
    family: str
    phrases: tuple[str, ...]
    pattern: str
    critical: bool = False
    unseen: bool = False


def _kind(name: str, family: str, pattern: str, *phrases: str, **flags: bool) -> Kind:
    return Kind(name, family, phrases, pattern, **flags)


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        _kind(
            "smooth",
            "texture",
            r"wax|overly smooth|too smooth|plastic|airbrush",
            "the surface of {s} is overly smooth and waxy",
            "part of {s} looks waxy and overly smooth, like plastic",
            "an overly smooth, airbrushed patch on {s} without any natural grain",
            "the texture of {s} is too smooth and plastic",
        ),
        _kind(
            "grid",
            "texture",
            r"grid|checkerboard|lattice",
            "a regular grid pattern covers part of {s}",
            "a checkerboard grid is visible on {s}",
            "there is an unnatural grid-like lattice over {s}",
            "a fine checkerboard pattern runs across {s}",
        ),
        _kind(
            "smear",
            "texture",
            r"smear|brush ?stroke|painterly",
            "details near {s} are smeared in one direction",
            "a smeared, painterly area lies near {s}",
            "the texture near {s} is smeared like a brush stroke",
            "smeared brush strokes replace the detail near {s}",
        ),
        _kind(
            "repeat",
            "texture",
            r"repeat|tiled|copies of the same patch|identical tiles",
            "the same patch repeats again and again around {s}",
            "a small texture is tiled and repeats near {s}",
            "the background shows repeated, tiled copies of the same patch",
            "identical tiles repeat in a row next to {s}",
        ),
        _kind(
            "garble",
            "texture",
            r"garbled|illegible|scribble|gibberish|unreadable",
            "the writing on {s} is garbled and illegible",
            "garbled, unreadable characters appear on {s}",
            "the letters on {s} are an illegible scribble",
            "the text on {s} is garbled gibberish",
        ),
        _kind(
            "speckle",
            "texture",
            r"speckle|colou?red dots|colou?r noise|confetti",
            "a cluster of coloured speckles covers part of {s}",
            "bright coloured speckle noise sits on {s}",
            "random coloured dots and speckles are scattered over {s}",
            "a patch of speckled colour noise lies on {s}",
        ),
        _kind(
            "extra_part",
            "geometry",
            r"extra|superfluous|too many|one more",
            "{s} has an extra part that does not belong there",
            "{s} has too many parts, one of them is extra",
            "an extra limb or leg grows out of {s}",
            "{s} shows a superfluous, extra leg or limb",
            critical=True,
        ),
        _kind(
            "bent",
            "geometry",
            r"\bbent\b|\bbends?\b|warped|wavy|crooked",
            "lines of {s} that should be straight are bent",
            "a straight edge of {s} is bent and wavy",
            "the straight lines of {s} are warped and wavy",
            "{s} has crooked, bent edges instead of straight ones",
        ),
        _kind(
            "duplicate",
            "geometry",
            r"duplicat|doubled|ghost|second copy|appears twice",
            "a part of {s} is duplicated next to itself",
            "a part of {s} appears twice, as a duplicated ghost",
            "there is a doubled, duplicated copy of a part of {s}",
            "a ghostly duplicate sits beside {s}",
        ),
        _kind(
            "asymmetry",
            "geometry",
            r"asymmetr|uneven size|mismatched sizes?|differ in size|different sizes?",
            "{s} is asymmetric, with paired parts of different sizes",
            "the two sides of {s} are asymmetric and differ in size",
            "paired parts of {s} have mismatched sizes",
            "left and right halves of {s} are asymmetric",
        ),
        _kind(
            "melt",
            "geometry",
            r"melt|dissolv|fused|merges? into",
            "the outline of {s} melts into the background",
            "part of {s} is melted and fused with its surroundings",
            "{s} dissolves and merges into the background",
            "the shape of {s} is melted and loses its boundary",
        ),
        _kind(
            "misaligned",
            "geometry",
            r"misalign|broken off|shifted|displaced|discontinu|offset",
            "{s} is misaligned, its two halves are shifted against each other",
            "a break runs through {s} and one side is shifted",
            "parts of {s} are displaced and misaligned",
            "{s} is discontinuous, one part is offset from the other",
            critical=True,
        ),
        _kind(
            "shadow",
            "lighting",
            r"shadow[^;.]*(wrong|contradict|inconsisten|opposite|towards the light)|(wrong|contradict\w*|inconsistent) shadow",
            "the shadow of {s} falls in the wrong direction",
            "the shadow of {s} contradicts the direction of the light",
            "the shadow near {s} is inconsistent with the light source",
            "the shadow of {s} lies on the wrong side, towards the light",
            critical=True,
        ),
        _kind(
            "halo",
            "lighting",
            r"halo|glowing (rim|outline|edge)|bright (rim|outline)",
            "a bright halo surrounds {s}",
            "{s} is outlined by a glowing halo",
            "an unnatural halo with a bright rim follows the edge of {s}",
            "there is a glowing outline, a halo, around {s}",
        ),
        _kind(
            "tint",
            "lighting",
            r"\btint|colou?r cast|unnatural colou?r|discolou?r",
            "part of {s} has an unnatural colour tint",
            "a strange tint discolours a part of {s}",
            "one region of {s} carries an unnatural colour cast",
            "{s} is discoloured by an unnatural tint",
        ),
        _kind(
            "glare",
            "lighting",
            r"glare|highlight|overexposed|bright spot",
            "an overexposed glare spot on {s} has no light source",
            "a bright highlight on {s} is not explained by any light",
            "there is an unexplained glare, a bright spot, on {s}",
            "an impossible highlight shines on {s}",
        ),
        _kind(
            "banding",
            "texture",
            r"banding|posteri|colou?r steps|stepped",
            "smooth tones near {s} break into stepped colour banding",
            "posterised colour steps around {s}",
            unseen=True,
        ),
        _kind(
            "ringing",
            "texture",
            r"ringing|ripples?|echoes? of (the|its) (edge|outline)",
            "ripples echo around the edges of {s}",
            "ringing follows the contour of {s}",
            unseen=True,
        ),
        _kind(
            "float",
            "geometry",
            r"float|hover|detached|not attached",
            "a piece of {s} floats in the air, detached from the rest",
            "part of {s} hovers without being attached",
            unseen=True,
        ),
    )
}

SEEN_KINDS = tuple(name for name, kind in KINDS.items() if not kind.unseen)


@dataclass(frozen=True)
class Quality:
    """What an honest photograph shows; observers cite these for real images. Same fields as `Kind`."""

    name: str
    family: str
    phrases: tuple[str, ...]


QUALITIES: dict[str, Quality] = {
    quality.name: quality
    for quality in (
        Quality(
            "grain",
            "texture",
            (
                "the texture of {s} carries natural fine grain",
                "natural sensor grain lies evenly over {s}",
                "{s} shows fine, natural surface texture",
            ),
        ),
        Quality(
            "blur",
            "texture",
            (
                "the slight blur is even, as from a lens slightly out of focus",
                "the mild softness is what a camera lens produces",
                "focus blur is even and natural",
            ),
        ),
        Quality(
            "noise",
            "texture",
            (
                "the noise is even, as from a sensor in low light",
                "sensor noise of low light is spread evenly",
                "the even noise fits a camera at high sensitivity",
            ),
        ),
        Quality(
            "compression",
            "texture",
            (
                "the only flaws are those of ordinary compression",
                "ordinary JPEG compression explains the small blocks",
                "faint compression marks are ordinary for a photograph",
            ),
        ),
        Quality(
            "focus",
            "texture",
            (
                "the background falls out of focus naturally",
                "a shallow depth of field softens the background naturally",
                "the background blur is that of a real lens",
            ),
        ),
        Quality(
            "structure",
            "geometry",
            (
                "the structure of {s} is coherent and well proportioned",
                "the parts of {s} fit together in correct proportion",
                "{s} is complete and its proportions are correct",
            ),
        ),
        Quality(
            "lines",
            "geometry",
            (
                "lines are straight and edges continue without breaks",
                "straight edges stay straight and continuous",
                "edges and lines are continuous and straight",
            ),
        ),
        Quality(
            "light",
            "lighting",
            (
                "shading and shadow agree on one light source",
                "light and shadow of {s} are consistent",
                "the lighting on {s} comes from one consistent direction",
            ),
        ),
        Quality(
            "colour",
            "lighting",
            (
                "the colours of {s} are balanced and natural",
                "colour and exposure of {s} are natural",
                "the natural colours of {s} agree with the light",
            ),
        ),
    )
}

SUBJECTS = {
    "animal": "the animal",
    "human": "the person",
    "object": "the object",
    "scene": "the scene",
    "satellite": "the terrain",
    "doc": "the page",
    "deepfake": "the face",
    "medicine": "the scan",
}

_PATTERNS = {name: re.compile(kind.pattern, re.IGNORECASE) for name, kind in KINDS.items()}
_NEGATED = re.compile(r"\b(no|without any|not any|free of|neither|nor)\b[^;,.]*$", re.IGNORECASE)


def kinds_named(text: str) -> set[str]:
    """The kinds of artifact that a text asserts ("no halo" asserts none).

    Only what follows a plain statement counts: a match with a negation before it in the same clause is left out.
    """
    named = set()
    for clause in re.split(r"[;.\n]", text):
        for name, pattern in _PATTERNS.items():
            match = pattern.search(clause)
            if match and not _NEGATED.search(clause[: match.start()]):
                named.add(name)
    return named
