"""Three scripted observers: the miniature's stand-ins for Qwen2-VL, InternVL2 and DeepSeek-VL2.

Each sees part of an image's ground truth, strong artifacts more surely than weak ones, and invents others,
more often if the prompt demands one. They err independently (numbers: observers.yaml). A caption depends on
the ground truth, the image's hash, the observer, the seed and whether the prompt lets it see nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fakevlm.cache import code_version
from fakevlm.data.clues import KINDS, QUALITIES, SEEN_KINDS, SUBJECTS, Kind
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.errors import UserError
from fakevlm.inference.ask import Outcome, Request
from miniworld.fitting import FITTING


@dataclass(frozen=True)
class Observer:
    """How well one observer sees, and how it writes (see observers.yaml)."""

    hit: Mapping[str, float]
    strong: Sequence[str]
    weak: Sequence[str]
    quality: float
    invent: float
    spurious: float
    refuse: float
    phrases: Sequence[int]
    style: str
    nothing: str
    fillers: Sequence[str]


_YAML = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
OBSERVERS = {name: Observer(**values) for name, values in _YAML.items()}


def plausible_kinds(category: str) -> list[str]:
    """Return kinds of artifact that somebody might believe to see in an image of `category`."""
    return [kind for kind in SEEN_KINDS if kind in FITTING.get(category, SEEN_KINDS)]


def sources_digest(ground_truths: Mapping[str, GroundTruth]) -> str:
    """Return a hash of all that captions depend on (script, clues, ground truth): the observers' revision."""
    parts = [OBSERVERS, KINDS, QUALITIES, SUBJECTS, FITTING, sorted(ground_truths.items())]
    return hashlib.sha256(f"{code_version(__name__)}{parts}".encode()).hexdigest()[:12]


class ScriptedAnnotator:
    """The observer that an entry of `annotate.annotators` names. Raises `UserError` without ground truth."""

    def __init__(self, spec: Any, ground_truths: Mapping[str, GroundTruth], seed: int) -> None:
        if not ground_truths:
            cure = "set collect.ground_truth, or another back end (annotate.annotators[].backend)"
            what = "scripted observers need ground truth, and there is none"
            raise UserError(f"annotator {spec.name}: {what}", cure)
        self.model, self.revision, self.sampling = spec.name, sources_digest(ground_truths), {"seed": seed}
        self._ground_truths = ground_truths

    async def annotate(self, request: Request) -> Outcome:
        ground_truth = self._ground_truths.get(request.path)
        if ground_truth is None:
            return Outcome("error", f"no ground truth for {request.path}")
        seed, tagged = request.sampling["seed"], request.prompt.tagged
        text = describe(self.model, ground_truth, request.image_sha256, seed=seed, tagged=tagged)
        if text is None:
            return Outcome("refused", "I cannot help with judging images of people.")
        return Outcome("ok", text)


def describe(
    name: str, ground_truth: GroundTruth, image_sha256: str, *, seed: int, tagged: bool
) -> str | None:
    """Return what observer `name` writes about an image; None if it refuses.

    The label is the prompt's prior knowledge; a `tagged` prompt lets the observer say that it sees
    nothing. Raises `UserError` if there is no such observer.
    """
    observer = OBSERVERS.get(name)
    if observer is None:
        cure = f"annotate.annotators: use {', '.join(OBSERVERS)}"
        raise UserError(f"no scripted observer is called {name!r}", cure)
    key = hashlib.sha256(f"{image_sha256}|{name}|{seed}|{int(tagged)}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
    if ground_truth.category in ("human", "deepfake") and rng.random() < observer.refuse:
        return None
    fake = ground_truth.label == 0
    if fake:
        clues = _artifacts_seen(observer, ground_truth, rng, tagged)
    else:
        clues = _qualities_seen(observer, ground_truth, rng)
    if fake and not clues:
        return observer.nothing
    subject, clauses = SUBJECTS.get(ground_truth.category, "the image"), []
    for clue in clues:
        phrase = clue.phrases[int(rng.choice(observer.phrases)) % len(clue.phrases)]
        clauses.append((clue.family, phrase.format(s=subject)))
    return _STYLES[observer.style](clauses, fake, observer, rng)


def _artifacts_seen(
    observer: Observer, ground_truth: GroundTruth, rng: np.random.Generator, tagged: bool
) -> list[Kind]:
    strongest: dict[str, float] = {}
    for artifact in ground_truth.artifacts:
        strongest[artifact.kind] = max(artifact.strength, strongest.get(artifact.kind, 0.0))
    kinds = []
    for kind, strength in strongest.items():
        rate = observer.hit[KINDS[kind].family] if kind in KINDS else 0.5
        rate += 0.12 * ((kind in observer.strong) - (kind in observer.weak))
        if rng.random() < min(0.97, rate * (0.75 + 0.3 * strength)):
            kinds.append(kind)
    others = [kind for kind in plausible_kinds(ground_truth.category) if kind not in strongest]
    # A prompt that insists on artifacts makes models hallucinate them (paper section 3.2).
    pressure = 1.0 if kinds else (0.6 if tagged else 2.5)
    invented = min(len(others), rng.poisson(observer.invent * pressure))
    kinds += [str(kind) for kind in rng.choice(others, size=invented, replace=False)]
    return [KINDS[kind] for kind in rng.permutation(kinds)]


def _qualities_seen(observer: Observer, ground_truth: GroundTruth, rng: np.random.Generator) -> list[Kind]:
    names = [name for name in ground_truth.qualities if rng.random() < observer.quality]
    clues = [QUALITIES[name] for name in rng.permutation(names)]
    if rng.random() < observer.spurious:
        kind = KINDS[str(rng.choice(plausible_kinds(ground_truth.category)))]
        clues.insert(int(rng.integers(len(clues) + 1)), kind)
    return clues


Clauses = list[tuple[str, str]]  # (family, text)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _prose(clauses: Clauses, fake: bool, observer: Observer, rng: np.random.Generator) -> str:
    """Write whole sentences with an opening, two clauses joined now and then, a verdict at the end."""
    openings = ("Looking closely, ", "On closer inspection, ", "It is noticeable that ", "")
    texts, sentences = [text for _, text in clauses], []
    while texts:
        take = 2 if len(texts) > 1 and rng.random() < 0.4 else 1
        sentences.append(_sentence(str(rng.choice(openings)) + ", and ".join(texts[:take])))
        texts = texts[take:]
    if rng.random() < 0.6:
        sentences.insert(int(rng.integers(len(sentences) + 1)), _sentence(str(rng.choice(observer.fillers))))
    if fake:
        reason, verdict = "These details suggest that the image was generated by a machine.", "fake"
    else:
        reason, verdict = "All of this is consistent with a real photograph.", "authentic"
    endings = [reason, f"Overall, the image is {verdict}."]
    ending = str(rng.choice(endings)) if clauses else "This looks like an ordinary photograph."
    return " ".join([*sentences, ending])


def _bullets(clauses: Clauses, fake: bool, observer: Observer, rng: np.random.Generator) -> str:
    """Write a Markdown list, each clue under its family's name."""
    lines = ["**Artifacts found:**" if fake else "**Signs of an authentic photograph:**"]
    lines += [f"- **{family.capitalize()}**: {_sentence(text)}" for family, text in clauses]
    if rng.random() < 0.7:
        lines.append(f"- {_sentence(str(rng.choice(observer.fillers)))}")
    return "\n".join(lines)


def _terse(clauses: Clauses, fake: bool, observer: Observer, rng: np.random.Generator) -> str:
    """Write short remarks, some with a hedge in front or behind, joined by semicolons."""
    remarks = []
    for _, text in clauses:
        front = str(rng.choice(("", "", "perhaps ", "it seems that ", "possibly ")))
        remarks.append(front + text + ("" if front else str(rng.choice(("", "", ", I think", ", perhaps")))))
    if rng.random() < 0.5:
        remarks.insert(int(rng.integers(len(remarks) + 1)), str(rng.choice(observer.fillers)))
    return "; ".join(remarks) or "an ordinary photograph"


_STYLES = {"prose": _prose, "bullets": _bullets, "terse": _terse}
