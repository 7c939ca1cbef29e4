"""Three scripted observers: the miniature's stand-ins for Qwen2-VL, InternVL2 and DeepSeek-VL2.

Their names say that they are scripted, so that no table or picture shows their words under a model's bare name.

Each looks at an image's truth and sees part of it: a strong artifact more surely than a weak one, some kinds better than
others. Each also invents: now and then it names an artifact that is not there, more often if the prompt demands one and
there is nothing to see. Each writes in its own style (prose, a list, hedged remarks), picks its own words from the
catalogue and adds remarks that say nothing. The three err independently, which is what makes their agreement worth something.

A description depends on nothing but the image's hash, the observer, the seed and what the prompt asked.
"""

import hashlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fakevlm.data.clues import KINDS, QUALITIES, SEEN_KINDS, SUBJECTS
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.errors import UserError
from fakevlm.inference.protocol import Outcome, Request
from miniworld.fitting import FITTING


@dataclass(frozen=True)
class Observer:
    """How well one observer sees, and how it writes.

    Attributes:
        hit: probability, by family, to see an artifact of full strength.
        strong, weak: kinds it sees better and worse than that (±0.12).
        quality: probability to cite a quality of a real image.
        invent: expected number of invented artifacts on a fake.
        spurious: the same on a real image.
        refuse: probability to refuse an image of a person.
        phrases: which of the catalogue's phrases it prefers (indices, wrapped).
        style: name of the writing function.
        fillers: its remarks that say nothing.
    """

    hit: Mapping[str, float]
    strong: frozenset[str]
    weak: frozenset[str]
    quality: float
    invent: float
    spurious: float
    refuse: float
    phrases: Sequence[int]
    style: str
    fillers: Sequence[str] = field(default=())


OBSERVERS: dict[str, Observer] = {
    "Qwen2-VL (scripted)": Observer(
        hit={"texture": 0.80, "geometry": 0.74, "lighting": 0.72},
        strong=frozenset({"grid", "garble", "extra_part"}),
        weak=frozenset({"asymmetry", "tint"}),
        quality=0.62,
        invent=0.26,
        spurious=0.08,
        refuse=0.0,
        phrases=(0, 0, 1, 3),
        style="prose",
        fillers=(
            "The composition is pleasant",
            "The main subject is placed near the centre of the frame",
            "The picture tells a simple story",
            "The colours give the picture a calm mood",
        ),
    ),
    "InternVL2 (scripted)": Observer(
        hit={"texture": 0.72, "geometry": 0.81, "lighting": 0.74},
        strong=frozenset({"misaligned", "bent", "duplicate"}),
        weak=frozenset({"speckle", "smear"}),
        quality=0.60,
        invent=0.30,
        spurious=0.10,
        refuse=0.01,
        phrases=(1, 2, 0, 2),
        style="bullets",
        fillers=(
            "Content: a single main subject in front of a background",
            "Resolution: low, but enough to judge",
            "Mood: quiet and plain",
        ),
    ),
    "DeepSeek-VL2 (scripted)": Observer(
        hit={"texture": 0.74, "geometry": 0.72, "lighting": 0.80},
        strong=frozenset({"shadow", "halo", "repeat"}),
        weak=frozenset({"misaligned", "grid"}),
        quality=0.58,
        invent=0.32,
        spurious=0.12,
        refuse=0.0,
        phrases=(2, 3, 3, 0),
        style="terse",
        fillers=("nice framing", "a plain background", "a small picture, hard to say much"),
    ),
}


def plausible_kinds(category: str) -> list[str]:
    """Kinds of artifact that somebody might believe to see in an image of `category`."""
    return [kind for kind in SEEN_KINDS if kind in FITTING.get(category, SEEN_KINDS)]


def sources_digest(ground_truth: Mapping[str, GroundTruth]) -> str:
    """Return a short hash of all that captions depend on: this script, the clue lexicon and the ground truth.

    It serves as the observers' model revision.
    """
    digest = hashlib.sha256(inspect.getsource(sys.modules[__name__]).encode())
    digest.update(repr((KINDS, QUALITIES, SUBJECTS, FITTING)).encode())
    for path in sorted(ground_truth):
        digest.update(repr(ground_truth[path]).encode())
    return digest.hexdigest()[:12]


class ScriptedAnnotator:
    """Annotator that is a scripted observer (`backend: observer`).

    Args:
        spec: entry of `annotate.annotators`; its name says which observer.
        ground_truth: ground truth by path.
        seed: of the run.

    Raises:
        UserError: there is no ground truth.
    """

    def __init__(self, spec: Any, ground_truth: Mapping[str, GroundTruth], seed: int) -> None:
        if not ground_truth:
            raise UserError(
                f"annotator {spec.name}: scripted observers need the miniature's ground truth, and there is none",
                "set collect.truth, or another back end (annotate.annotators[].backend)",
            )
        self.model = spec.name
        self.revision = sources_digest(ground_truth)
        self.sampling = {"seed": seed}
        self._ground_truth = ground_truth

    async def annotate(self, request: Request) -> Outcome:
        truth = self._ground_truth.get(request.path)
        if truth is None:
            return Outcome("error", f"no ground truth for {request.path}")
        seed, tagged = request.sampling["seed"], request.prompt.tagged
        text = describe(self.model, truth, request.image_sha256, seed=seed, tagged=tagged)
        if text is None:
            return Outcome("refused", "I cannot help with judging images of people.")
        return Outcome("ok", text) if text.strip() else Outcome("empty")


def describe(name: str, truth: GroundTruth, image_sha256: str, *, seed: int, tagged: bool) -> str | None:
    """What observer `name` writes about an image; None if it refuses.

    Args:
        name: key of `OBSERVERS`.
        truth: what is known of the image; its label is what the prompt gave as prior knowledge.
        image_sha256: hash of the image's bytes.
        seed: the run's seed.
        tagged: the prompt lets the observer say that it sees nothing.

    Raises:
        UserError: no such observer.
    """
    observer = OBSERVERS.get(name)
    if observer is None:
        raise UserError(
            f"no scripted observer is called {name!r}", f"annotate.annotators: use {', '.join(OBSERVERS)}"
        )
    key = hashlib.sha256(f"{image_sha256}|{name}|{seed}|{int(tagged)}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(key[:8], "little"))
    if truth.category in ("human", "deepfake") and rng.random() < observer.refuse:
        return None
    seen = (
        _artifacts_seen(observer, truth, rng, tagged)
        if truth.label == 0
        else _qualities_seen(observer, truth, rng)
    )
    subject = SUBJECTS.get(truth.category, "the image")
    clauses = [(family, _wording(observer, phrases, rng).format(s=subject)) for family, phrases in seen]
    return _STYLES[observer.style](clauses, truth.label == 0, observer, rng)


def _hit_rate(observer: Observer, kind: str, strength: float) -> float:
    rate = observer.hit[KINDS[kind].family] if kind in KINDS else 0.5
    rate += 0.12 * ((kind in observer.strong) - (kind in observer.weak))
    return min(0.97, rate * (0.75 + 0.3 * strength))


def _artifacts_seen(
    observer: Observer, truth: GroundTruth, rng: np.random.Generator, tagged: bool
) -> list[tuple[str, tuple]]:
    strongest: dict[str, float] = {}
    for artifact in truth.artifacts:
        strongest[artifact.kind] = max(artifact.strength, strongest.get(artifact.kind, 0.0))
    kinds = [
        kind for kind, strength in strongest.items() if rng.random() < _hit_rate(observer, kind, strength)
    ]
    others = [kind for kind in plausible_kinds(truth.category) if kind not in strongest]
    # A prompt that insists on artifacts where none are seen is what makes models hallucinate (paper section 3.2).
    pressure = 1.0 if kinds else (0.6 if tagged else 2.5)
    invented = min(len(others), rng.poisson(observer.invent * pressure))
    kinds += [str(kind) for kind in rng.choice(others, size=invented, replace=False)]
    return [(KINDS[kind].family, KINDS[kind].phrases) for kind in rng.permutation(kinds)]


def _qualities_seen(
    observer: Observer, truth: GroundTruth, rng: np.random.Generator
) -> list[tuple[str, tuple]]:
    names = [name for name in truth.qualities if rng.random() < observer.quality]
    seen = [(QUALITIES[name].family, QUALITIES[name].phrases) for name in rng.permutation(names)]
    if rng.random() < observer.spurious:
        kind = KINDS[str(rng.choice(plausible_kinds(truth.category)))]
        seen.insert(int(rng.integers(len(seen) + 1)), (kind.family, kind.phrases))
    return seen


def _wording(observer: Observer, phrases: Sequence[str], rng: np.random.Generator) -> str:
    return phrases[int(rng.choice(observer.phrases)) % len(phrases)]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _prose(clauses: list[tuple[str, str]], fake: bool, observer: Observer, rng: np.random.Generator) -> str:
    """Whole sentences with an opening, two clauses joined now and then, a verdict at the end."""
    openings = ("Looking closely, ", "On closer inspection, ", "It is noticeable that ", "")
    texts = [text for _, text in clauses]
    sentences = []
    while texts:
        take = 2 if len(texts) > 1 and rng.random() < 0.4 else 1
        sentences.append(_sentence(str(rng.choice(openings)) + ", and ".join(texts[:take])))
        texts = texts[take:]
    if rng.random() < 0.6:
        sentences.insert(int(rng.integers(len(sentences) + 1)), _sentence(str(rng.choice(observer.fillers))))
    if not clauses:
        return (
            "No visible artifact."
            if fake
            else " ".join([*sentences, "This looks like an ordinary photograph."])
        )
    ending = (
        ("These details suggest that the image was generated by a machine.", "Overall, the image is fake.")
        if fake
        else ("All of this is consistent with a real photograph.", "Overall, the image is authentic.")
    )
    return " ".join([*sentences, str(rng.choice(ending))])


def _bullets(clauses: list[tuple[str, str]], fake: bool, observer: Observer, rng: np.random.Generator) -> str:
    """A Markdown list, each point under its family's name."""
    if not clauses and fake:
        return "- No visible artifact."
    heading = "**Artifacts found:**" if fake else "**Signs of an authentic photograph:**"
    lines = [f"- **{family.capitalize()}**: {_sentence(text)}" for family, text in clauses]
    if rng.random() < 0.7:
        lines.append(f"- {_sentence(str(rng.choice(observer.fillers)))}")
    return "\n".join([heading, *lines])


def _terse(clauses: list[tuple[str, str]], fake: bool, observer: Observer, rng: np.random.Generator) -> str:
    """Short remarks, some with a hedge in front or behind, strung together with semicolons."""
    if not clauses and fake:
        return "no visible artifact"
    remarks = []
    for _, text in clauses:
        front = str(rng.choice(("", "", "perhaps ", "it seems that ", "possibly ")))
        remarks.append(front + text + ("" if front else str(rng.choice(("", "", ", I think", ", perhaps")))))
    if rng.random() < 0.5:
        remarks.insert(int(rng.integers(len(remarks) + 1)), str(rng.choice(observer.fillers)))
    return "; ".join(remarks) if remarks else "an ordinary photograph"


_STYLES = {"prose": _prose, "bullets": _bullets, "terse": _terse}
