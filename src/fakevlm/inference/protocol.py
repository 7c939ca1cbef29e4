"""What is asked of an annotator and what comes back: one interface for a scripted observer and for a model behind a server.

An annotator gets a request (image, prompt, what identifies the model) and gives an outcome. It never raises
for what one image or one answer does: the outcome's status says it, and the journal keeps it. It raises
`UserError` for what would spoil every request alike (no key, an unknown model), and the run stops; one that
is `away` (no server) lets the others finish first.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol


class Prompt(Protocol):
    """Whatever has a text to be asked: a label prompt (`annotation.prompts`), a baseline's question."""

    @property
    def text(self) -> str: ...


_STATEMENTS = re.compile(
    r".*(?:[.!?][\"')*_]*(?=\s|\Z)|\n)", re.DOTALL
)  # up to the last end of a sentence or line

Status = Literal["ok", "refused", "empty", "truncated", "rejected", "error"]


@dataclass(frozen=True)
class Request:
    """One image, or only a text, put to one model.

    Attributes:
        id: the record's id, carried along; not part of what is asked.
        path: the image's path relative to the image root.
        image: the encoded image, byte for byte; None: the prompt alone is asked.
        prompt: the label prompt, or what an aggregator is asked.
        model: the model asked, as its server calls it; a scripted observer's name.
        revision: the exact version of the model (a commit, a tag; a scripted observer's digest).
        sampling: everything else that decides the answer (temperature, seed, maximum of tokens …), JSON
            values.
    """

    id: str
    path: str
    image: bytes | None
    prompt: Prompt
    model: str
    revision: str
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def image_sha256(self) -> str:
        return "" if self.image is None else hashlib.sha256(self.image).hexdigest()

    @cached_property
    def key(self) -> str:
        """Hash of (image bytes, prompt, model, revision, sampling): equal keys ask the same question."""
        parts = [self.image_sha256, self.prompt.text, self.model, self.revision, dict(self.sampling)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back.

    Attributes:
        status: `ok`; `refused` (the model declined), `empty` (it said nothing), `truncated` (cut off at the
            token limit; text holds what there is), `rejected` (the server will not take this request; text is
            its message), `error` (no answer: the transport failed; text says how). All but `error` are
            answers: asking again would give the same, and a rerun does not.
        text: the caption.
    """

    status: Status
    text: str = ""

    @property
    def is_answer(self) -> bool:
        return self.status != "error"

    @property
    def caption(self) -> str:
        """What the aggregation may read: a whole answer, the whole statements of one that was cut off, else nothing."""
        if self.status == "truncated":
            whole = _STATEMENTS.match(self.text)
            return whole[0] if whole else ""
        return self.text if self.status == "ok" else ""

    @property
    def usable(self) -> bool:
        """Whether there is anything for the aggregation to read."""
        return bool(self.caption.strip())


class Annotator(Protocol):
    """Writes captions. `model`, `revision` and `sampling` go into every request's key.

    An annotator may also have, and the driver then uses: `name`, how tables call it if not by its model;
    `concurrency`, its own number of requests under way at a time; `note()`, a few words for the progress
    line; `close()`, a coroutine that ends its connections.
    """

    model: str
    revision: str
    sampling: Mapping[str, Any]

    async def annotate(self, request: Request) -> Outcome:
        """The caption for one request; failures of transport come back as status `error`.

        Raises:
            UserError: what would spoil every request; `away`: there is nobody to ask now.
        """
        ...


def name_of(annotator: Annotator) -> str:
    """How tables call an annotator: by its own name if it has one, else by its model."""
    return getattr(annotator, "name", annotator.model)
