"""One interface for whoever writes candidate captions: a scripted observer here, a model behind a server elsewhere.

An annotator gets a request (image, prompt, what identifies the model) and gives an outcome. It never raises for what one
image or one answer does: the outcome's status says it, and the journal keeps it.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

from fakevlm.annotation.prompts import Prompt
from fakevlm.errors import UserError
from fakevlm.miniature import observers
from fakevlm.miniature.truth import Truth

Status = Literal["ok", "refused", "empty", "truncated", "error"]


@dataclass(frozen=True)
class Request:
    """One image put to one model.

    Attributes:
        id: the record's id, carried along; not part of what is asked.
        path: the image's path relative to the image root.
        image: the encoded image, byte for byte.
        prompt: the label prompt.
        model: the annotator's name.
        revision: the exact version of the model (a commit, a tag; a scripted observer's digest).
        sampling: everything else that decides the answer (temperature, seed, maximum of tokens …), JSON values.
    """

    id: str
    path: str
    image: bytes
    prompt: Prompt
    model: str
    revision: str
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def image_sha256(self) -> str:
        return hashlib.sha256(self.image).hexdigest()

    @cached_property
    def key(self) -> str:
        """Hash of (image bytes, prompt, model, revision, sampling): equal keys ask the same question."""
        parts = [self.image_sha256, self.prompt.text, self.model, self.revision, dict(self.sampling)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back.

    Attributes:
        status: `ok`; `refused` (the model declined), `empty` (it said nothing), `truncated` (cut off at the token limit;
            text holds what there is), `error` (no answer: the transport failed; text says how). All but `error` are
            answers: asking again would give the same, and a rerun does not.
        text: the caption.
    """

    status: Status
    text: str = ""

    @property
    def is_answer(self) -> bool:
        return self.status != "error"

    @property
    def usable(self) -> bool:
        """Whether the aggregation may read it: whole answers, and cut-off ones, whose statements are still statements."""
        return self.status in ("ok", "truncated") and bool(self.text.strip())


class Annotator(Protocol):
    """Writes captions. `model`, `revision` and `sampling` go into every request's key."""

    model: str
    revision: str
    sampling: Mapping[str, Any]

    async def annotate(self, request: Request) -> Outcome:
        """The caption for one request; failures of transport come back as status `error`."""
        ...


class ObserverAnnotator:
    """A scripted observer of the miniature (`miniature.observers`): needs the truth, answers at once.

    Args:
        name: which observer.
        truths: the world's truth by path.
        seed: the run's seed.
    """

    def __init__(self, name: str, truths: Mapping[str, Truth], seed: int) -> None:
        if not truths:
            raise UserError(
                f"annotator {name}: scripted observers need the miniature's truth, and there is none",
                "set collect.truth, or name a back end that looks at the images (annotate.annotators[].backend)",
            )
        self.model = name
        self.revision = observers.sources_digest(truths)
        self.sampling = {"seed": seed}
        self._truths = truths

    async def annotate(self, request: Request) -> Outcome:
        truth = self._truths.get(request.path)
        if truth is None:
            return Outcome("error", f"no truth is known of {request.path}")
        text = observers.describe(
            self.model,
            truth,
            request.image_sha256,
            seed=request.sampling["seed"],
            tagged=request.prompt.tagged,
        )
        if text is None:
            return Outcome("refused", "I cannot help with judging images of people.")
        return Outcome("ok", text) if text.strip() else Outcome("empty")


def _observer(spec, truths: Mapping[str, Truth], seed: int) -> Annotator:
    return ObserverAnnotator(spec.name, truths, seed)


# A back end: (its entry in annotate.annotators, the truth if there is any, the seed) -> annotator.
BACKENDS: dict[str, Callable[..., Annotator]] = {"observer": _observer}


def make_annotators(specs: Sequence, truths: Mapping[str, Truth], seed: int) -> list[Annotator]:
    """The annotators of a profile, in the order of params.yaml.

    Args:
        specs: entries of `annotate.annotators` (name, backend).

    Raises:
        UserError: an unknown back end, two annotators of one name, or what the back end itself lacks.
    """
    names = [spec.name for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"annotate.annotators: {', '.join(twice)} appears twice", "give each annotator its own name"
        )
    for spec in specs:
        if spec.backend not in BACKENDS:
            raise UserError(
                f"annotator {spec.name}: no back end {spec.backend!r}",
                f"annotate.annotators[].backend: use {', '.join(BACKENDS)}",
            )
    return [BACKENDS[spec.backend](spec, truths, seed) for spec in specs]
