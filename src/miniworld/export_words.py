"""What people say of the miniature's images: LOKI's descriptions and DD-VQA's answers, in words unlike the catalogue's.

Benchmarks written by people use other words than annotating models do; so must the miniature's, or agreement of wording would
pass for understanding.
"""

from collections.abc import Sequence

import numpy as np

from fakevlm.data.clues import SUBJECTS
from fakevlm.data.ground_truth import Artifact, GroundTruth
from fakevlm.data.records import REAL

# {s} is the subject ("the animal"). Each phrase is a whole sentence and names its own kind only.
PHRASES: dict[str, tuple[str, ...]] = {
    "smooth": (
        "Someone seems to have polished {s}; it looks like plastic, real surfaces are never that clean.",
        "You cannot find a single pore or fibre here, it could be a wax doll.",
        "This area of {s} is far too smooth, as if all fine detail had been wiped away.",
    ),
    "grid": (
        "Tiny squares cover this area, like looking through a checkerboard.",
        "I see a mesh of crossing lines, a kind of grid, that has no business on {s}.",
    ),
    "smear": (
        "It looks as if a wet finger had smeared the paint here.",
        "Everything here was dragged sideways with a brush stroke and lost its detail.",
    ),
    "repeat": (
        "The very same bit of texture is used over and over, it repeats like wallpaper.",
        "This pattern repeats too exactly, someone tiled one small square.",
    ),
    "garble": (
        "What is written here cannot be read, it is gibberish in no known alphabet.",
        "The letters are garbled; no word makes sense.",
    ),
    "speckle": (
        "Coloured dots are sprinkled here like confetti.",
        "There is a cloud of bright speckles that no camera makes.",
    ),
    "extra_part": (
        "Count the parts of {s}: there is one more than there should be.",
        "There is an extra piece here, {s} should not have it.",
        "Too many limbs or supports for {s}.",
    ),
    "bent": ("Lines that ought to run straight are wavy here.", "This edge is crooked for no reason."),
    "duplicate": (
        "The same detail appears twice, side by side.",
        "I see a second copy of this part next to the first, like a ghost.",
    ),
    "asymmetry": (
        "Left and right do not match, the two sides differ in size.",
        "One of the pair is clearly bigger, {s} looks asymmetric.",
    ),
    "melt": (
        "{s} seems to melt here, one cannot say where it ends.",
        "The contour dissolves like butter in the sun and merges into what lies behind.",
    ),
    "misaligned": (
        "It looks cut and put together again with an offset.",
        "The upper and the lower piece are shifted, they do not meet.",
    ),
    "shadow": (
        "The shadow is on the wrong side for this light.",
        "Look at the shadow: it points towards the light, that contradicts the rest.",
    ),
    "halo": (
        "A bright rim runs around {s}, as if it had been pasted in.",
        "There is an odd halo along the contour.",
    ),
    "tint": (
        "This patch has a colour cast that nothing around it explains.",
        "The tint changes suddenly here, {s} cannot be of that colour.",
    ),
    "glare": (
        "A bright spot shines here although no lamp could cause it.",
        "The highlight is burnt out and comes from nowhere.",
    ),
    "banding": (
        "The tones change in visible steps, a kind of posterisation.",
        "Instead of a gradual change one sees banding.",
    ),
    "ringing": (
        "Thin ripples follow the contour like waves in water.",
        "There are ripples beside every edge.",
    ),
    "float": (
        "A piece of {s} hovers with nothing to hold it.",
        "This bit floats beside {s} and is not attached to it.",
    ),
}

OVERALL = (
    "The picture feels unnatural as a whole.",
    "At first sight it is convincing, but details are off.",
    "It looks computer-made rather than photographed.",
)

PARTS = ("skin", "eyebrows", "eyes", "nose", "mouth")  # the order in which DD-VQA asks
# Heights of the parts of a face (fractions of the image) as the miniature draws its faces.
_HEIGHTS = {"eyebrows": 0.40, "eyes": 0.47, "nose": 0.57, "mouth": 0.68}
_SURFACE = {"smooth", "tint", "glare", "speckle", "grid", "halo", "smear"}

_LOOK = {
    "skin": ("even", "warm", "clear", "slightly freckled"),
    "eyebrows": ("arched", "thin", "bushy", "straight"),
    "eyes": ("oval", "small", "deep", "round"),
    "nose": ("straight", "pointed", "broad", "small"),
    "mouth": ("full", "thin", "wide", "half-open"),
}


def describe(kind: str, category: str, rng: np.random.Generator) -> str:
    """One sentence by a person about one artifact."""
    phrases = PHRASES[kind]
    text = phrases[int(rng.integers(len(phrases)))].format(s=SUBJECTS.get(category, "the subject"))
    return text[0].upper() + text[1:]


def loki_problems(truth: GroundTruth, size: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """The `problems` of a row of LOKI's `open_ended_vqa.json`; the global description may be empty, as in LOKI."""
    whole = OVERALL[int(rng.integers(len(OVERALL)))] if rng.random() < 0.6 else ""
    regional = []
    for artifact in truth.artifacts:
        x0, y0, x1, y1 = (round(v * size) for v in artifact.region)
        desc = describe(artifact.kind, truth.category, rng)
        regional.append({"region": [x0, y0, x1 - x0, y1 - y0], "desc": desc})
    return {"global": [{"desc": whole}], "regional": regional}


def concerned(artifact: Artifact) -> list[str]:
    """The parts of a face that an artifact touches; surfaces and whole-face artifacts concern the skin."""
    if artifact.kind == "asymmetry":
        return ["eyes"]
    x0, y0, x1, y1 = artifact.region
    local = (y1 - y0) < 0.45 and x0 < 0.6 and x1 > 0.4
    parts = [part for part in _HEIGHTS if local and y0 - 0.02 <= _HEIGHTS[part] <= y1 + 0.02]
    if artifact.kind in _SURFACE or not parts:
        parts = ["skin", *parts]
    return parts


def _verb(part: str) -> tuple[str, str]:
    return ("Do", "look") if part in ("eyebrows", "eyes") else ("Does", "looks")


def question(part: str | None) -> str:
    """DD-VQA's question about a part of the face (None: about the whole image), spelt as released."""
    if part is None:
        return "Does the image looks real/fake?"
    return f"{_verb(part)[0]} the person's {part} look real/fake?"


def _because(part: str, artifacts: Sequence[Artifact], rng: np.random.Generator) -> str:
    degree = "very fake" if max(a.strength for a in artifacts) > 0.85 else "a bit fake"
    reasons = " ".join(describe(a.kind, "deepfake", rng) for a in artifacts)
    return f"The person's {part} {_verb(part)[1]} {degree}. {reasons}"


def ddvqa_entry(truth: GroundTruth, people: int, rng: np.random.Generator) -> dict[str, dict]:
    """The questions and answers about one video, numbered without gaps.

    Args:
        truth: of a frame of the video.
        people: how many answer each question.

    Returns:
        number → {question, answer}. Of fakes only the parts that are off are asked about, as in DD-VQA.
    """
    if truth.label == REAL:
        found: dict[str, list[Artifact]] = {part: [] for part in PARTS}
    else:
        found = {part: [a for a in truth.artifacts if part in concerned(a)] for part in PARTS}
        found = {part: artifacts for part, artifacts in found.items() if artifacts}
    whole, by_part = [], {part: [] for part in found}
    for _ in range(people):
        if truth.label == REAL:
            looks = {part: _LOOK[part][int(rng.integers(len(_LOOK[part])))] for part in PARTS}
            listed = ", ".join(f"{looks[part]} {part}" for part in PARTS)
            whole.append(f"The image looks real. Nothing about the person is off. The person has {listed}.")
            for part in PARTS:
                by_part[part].append(
                    f"The person's {part} {_verb(part)[1]} real. The person has naturally {looks[part]} {part}."
                )
        else:
            reasons = " ".join(_because(part, artifacts, rng) for part, artifacts in found.items())
            opening = OVERALL[int(rng.integers(len(OVERALL)))]
            whole.append(f"The image looks fake. {reasons or opening}")
            for part, artifacts in found.items():
                by_part[part].append(
                    f"The person's {part} {_verb(part)[1]} fake. {_because(part, artifacts, rng)}"
                )
    rows = [(None, whole), *by_part.items()]
    return {str(n): {"question": question(part), "answer": said} for n, (part, said) in enumerate(rows)}
