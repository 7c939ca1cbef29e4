"""What people say of the miniature's images.

LOKI's descriptions and DD-VQA's answers (words: export_words.yaml).

Benchmarks written by people use other words than annotating models do. So must the miniature's, or agreement
of wording would pass for understanding."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from fakevlm.data.clues import SUBJECTS
from fakevlm.data.ground_truth import Artifact, GroundTruth
from fakevlm.data.records import REAL

_WORDS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
PHRASES: dict[str, list[str]] = _WORDS["phrases"]
OVERALL: list[str] = _WORDS["overall"]
_FACE: dict[str, list[str]] = _WORDS["face"]
PARTS = tuple(_FACE)  # the order in which DD-VQA asks
# Heights of the parts of a face (fractions of the image) as the miniature draws its faces.
_HEIGHTS = {"eyebrows": 0.40, "eyes": 0.47, "nose": 0.57, "mouth": 0.68}
_SURFACE = {"smooth", "tint", "glare", "speckle", "grid", "halo", "smear"}


def describe(kind: str, category: str, rng: np.random.Generator) -> str:
    """Return one sentence by a person about one artifact."""
    phrases = PHRASES[kind]
    text = phrases[int(rng.integers(len(phrases)))].format(s=SUBJECTS.get(category, "the subject"))
    return text[0].upper() + text[1:]


def loki_problems(truth: GroundTruth, size: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Return the `problems` of a row of LOKI's `open_ended_vqa.json`.

    The global description may be empty, as in LOKI.
    """
    whole = OVERALL[int(rng.integers(len(OVERALL)))] if rng.random() < 0.6 else ""
    regional = []
    for artifact in truth.artifacts:
        x0, y0, x1, y1 = (round(v * size) for v in artifact.region)
        desc = describe(artifact.kind, truth.category, rng)
        regional.append({"region": [x0, y0, x1 - x0, y1 - y0], "desc": desc})
    return {"global": [{"desc": whole}], "regional": regional}


def concerned(artifact: Artifact) -> list[str]:
    """Return the parts of a face that an artifact touches.

    Surfaces and whole-face artifacts concern the skin.
    """
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
    """Return DD-VQA's question about a part of the face (None: about the whole image), spelt as released."""
    if part is None:
        return "Does the image looks real/fake?"
    return f"{_verb(part)[0]} the person's {part} look real/fake?"


def _because(part: str, artifacts: Sequence[Artifact], rng: np.random.Generator) -> str:
    degree = "very fake" if max(a.strength for a in artifacts) > 0.85 else "a bit fake"
    reasons = " ".join(describe(a.kind, "deepfake", rng) for a in artifacts)
    return f"The person's {part} {_verb(part)[1]} {degree}. {reasons}"


def ddvqa_entry(truth: GroundTruth, people: int, rng: np.random.Generator) -> dict[str, dict]:
    """Return the questions and answers about one video, numbered without gaps.

    Args:
        truth: of a frame of the video.
        people: how many answer each question.

    Returns:
        number → {question, answer}. Of fakes only the parts that are off are asked about, as in DD-VQA.
    """
    if truth.label == REAL:
        parts_off: dict[str, list[Artifact]] = {part: [] for part in PARTS}
    else:
        parts_off = {part: [a for a in truth.artifacts if part in concerned(a)] for part in PARTS}
        parts_off = {part: artifacts for part, artifacts in parts_off.items() if artifacts}
    whole, by_part = [], {part: [] for part in parts_off}
    for _ in range(people):
        if truth.label == REAL:
            looks = {part: _FACE[part][int(rng.integers(len(_FACE[part])))] for part in PARTS}
            listed = ", ".join(f"{looks[part]} {part}" for part in PARTS)
            whole.append(f"The image looks real. Nothing about the person is off. The person has {listed}.")
            for part in PARTS:
                by_part[part].append(
                    f"The person's {part} {_verb(part)[1]} real. "
                    f"The person has naturally {looks[part]} {part}."
                )
        else:
            reasons = " ".join(_because(part, artifacts, rng) for part, artifacts in parts_off.items())
            opening = OVERALL[int(rng.integers(len(OVERALL)))]
            whole.append(f"The image looks fake. {reasons or opening}")
            for part, artifacts in parts_off.items():
                by_part[part].append(
                    f"The person's {part} {_verb(part)[1]} fake. {_because(part, artifacts, rng)}"
                )
    rows = [(None, whole), *by_part.items()]
    return {str(n): {"question": question(part), "answer": answers} for n, (part, answers) in enumerate(rows)}
