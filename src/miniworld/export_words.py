"""What people say of the images: LOKI's descriptions and DD-VQA's answers (words: export_words.yaml).

Benchmarks written by people use other words than annotating models do. So must the miniature's, or agreement
of wording would pass for understanding."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from fakevlm.data.clues import SUBJECTS
from fakevlm.data.ground_truth import Artifact, GroundTruth
from fakevlm.data.records import REAL
from miniworld.stagecraft import pick

_WORDS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
PHRASES: dict[str, list[str]] = _WORDS["phrases"]
_FACE: dict[str, list[str]] = _WORDS["face"]  # by part of the face, in the order in which DD-VQA asks
_HEIGHTS = {"eyebrows": 0.40, "eyes": 0.47, "nose": 0.57, "mouth": 0.68}  # where the miniature draws them
_SURFACE = {"smooth", "tint", "glare", "speckle", "grid", "halo", "smear"}


def describe(kind: str, category: str, rng: np.random.Generator) -> str:
    """Return one sentence by a person about one artifact."""
    text = pick(rng, PHRASES[kind]).format(s=SUBJECTS.get(category, "the subject"))
    return text[0].upper() + text[1:]


def loki_problems(ground_truth: GroundTruth, size: int, rng: np.random.Generator) -> dict[str, list[dict]]:
    """Return the `problems` of a row of LOKI's `open_ended_vqa.json`; the global one may be empty."""
    overall = pick(rng, _WORDS["overall"]) if rng.random() < 0.6 else ""
    regional = []
    for artifact in ground_truth.artifacts:
        x0, y0, x1, y1 = (round(v * size) for v in artifact.region)
        text = describe(artifact.kind, ground_truth.category, rng)
        regional.append({"region": [x0, y0, x1 - x0, y1 - y0], "desc": text})
    return {"global": [{"desc": overall}], "regional": regional}


def parts_touched(artifact: Artifact) -> list[str]:
    """Return the parts of a face that an artifact touches; surfaces and whole faces are the skin's."""
    if artifact.kind == "asymmetry":
        return ["eyes"]
    x0, y0, x1, y1 = artifact.region
    local = (y1 - y0) < 0.45 and x0 < 0.6 and x1 > 0.4
    parts = [part for part, height in _HEIGHTS.items() if local and y0 - 0.02 <= height <= y1 + 0.02]
    return ["skin", *parts] if artifact.kind in _SURFACE or not parts else parts


def question(part: str | None) -> str:
    """Return DD-VQA's question about a part of the face (None: about the whole image), spelt as released."""
    if part is None:
        return "Does the image looks real/fake?"
    return f"{'Do' if part.startswith('eye') else 'Does'} the person's {part} look real/fake?"


def _verdict(part: str, verdict: str) -> str:
    return f"The person's {part} {'look' if part.startswith('eye') else 'looks'} {verdict}."


def _reason(part: str, artifacts: Sequence[Artifact], rng: np.random.Generator) -> str:
    degree = "very fake" if max(a.strength for a in artifacts) > 0.85 else "a bit fake"
    return " ".join([_verdict(part, degree), *(describe(a.kind, "deepfake", rng) for a in artifacts)])


def ddvqa_entry(ground_truth: GroundTruth, people: int, rng: np.random.Generator) -> dict[str, dict]:
    """Return {number: {question, answer}} of `people` about a video; of a fake, only about what is off."""
    flaws = {part: [a for a in ground_truth.artifacts if part in parts_touched(a)] for part in _FACE}
    parts = [part for part in _FACE if ground_truth.label == REAL or flaws[part]]
    answers: dict[str | None, list[str]] = {None: []} | {part: [] for part in parts}
    for _ in range(people):
        if ground_truth.label == REAL:
            looks = {part: pick(rng, adjectives) for part, adjectives in _FACE.items()}
            listed = ", ".join(f"{adjective} {part}" for part, adjective in looks.items())
            overall = "The image looks real. Nothing about the person is off."
            answers[None].append(f"{overall} The person has {listed}.")
            for part, adjective in looks.items():
                answers[part].append(f"{_verdict(part, 'real')} The person has naturally {adjective} {part}.")
        else:
            reasons = " ".join(_reason(part, flaws[part], rng) for part in parts)
            overall = pick(rng, _WORDS["overall"])
            answers[None].append(f"The image looks fake. {reasons or overall}")
            for part in parts:
                answers[part].append(f"{_verdict(part, 'fake')} {_reason(part, flaws[part], rng)}")
    rows = enumerate(answers.items())
    return {str(n): {"question": question(part), "answer": texts} for n, (part, texts) in rows}
