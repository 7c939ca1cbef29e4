"""The aggregation A = M(A1, A2, A3) by a language model behind a server (paper section 3.2, Eq. 1).

The model, which may see the image, is asked for JSON of a fixed schema. An answer that does not fit is asked
for again with what was wrong; after `attempts` the image is left out. Each attempt is a request of its own in
the cache: a change of the rules in `_clues` asks nothing anew.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ValidationError

from fakevlm.annotation.aggregate import FAMILIES, Annotation, Candidates, Clue, answer, in_order
from fakevlm.annotation.captions import JUDGEMENT, split
from fakevlm.annotation.prompts import LABELS, subject
from fakevlm.cache import Cache
from fakevlm.config.params import ServedAggregator
from fakevlm.data.records import FAKE
from fakevlm.errors import UserError
from fakevlm.inference.ask import Ask, Outcome, Request, RequestPredictor, Text
from fakevlm.inference.predict import predict
from fakevlm.inference.servers import Client

_TEXTS = yaml.safe_load(Path(__file__).with_name("aggregate.yaml").read_text(encoding="utf-8"))
_ASKED_AGAIN = ("invalid", "truncated", "empty")  # the same would be refused again; errors had their retries
_ALL_UNFIT = 100  # first answers of a run, none of which fits
_SHOWN = 2000  # characters of an unfit answer that the model is shown again
_LEAST_WORDS = 2  # of a statement; what is shorter is a heading
_FENCE = re.compile(r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.DOTALL)  # how models wrap JSON unguided


# The server's schema: every key required, none more allowed, no limits of length, which not all support.
class _Clause(BaseModel, extra="forbid", strict=True):
    statement: str
    annotators: list[int]
    critical: bool


class _Reply(BaseModel, extra="forbid", strict=True):
    verdict: Literal["fake", "real"]
    texture: list[_Clause]
    geometry: list[_Clause]
    lighting: list[_Clause]


RESPONSE_FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {"name": "aggregate", "strict": True, "schema": _Reply.model_json_schema()},
}


class _Unfit(ValueError):
    """What is wrong with an answer, in words that the model is told."""


def question(image: Candidates, min_annotators: int, with_image: bool) -> str:
    """Return the first question about an image: the rules, and the captions numbered in the order of names.

    The names stay out: which model says a thing is no argument. No text can end a caption: it is in JSON.
    """
    label, texts = LABELS[image.label], [image.captions[name] for name in sorted(image.captions)]
    captions = [{"observer": n, "said": text} for n, text in enumerate(texts, 1)]
    return _TEXTS["instructions"].format(
        n=len(captions),
        subject=subject(image.category),
        verdict=label,
        min_annotators=min_annotators,
        image=_TEXTS["with_image"] + "\n" if with_image else "",
        captions="[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in captions) + "\n]",
        **_TEXTS[label],
    )


def again(first: str, attempt: int, last: str, problem: str) -> str:
    """Return the question with the last answer and what was wrong with it. `attempt` makes texts differ."""
    shown = json.dumps(last if len(last) <= _SHOWN else last[:_SHOWN] + "…", ensure_ascii=False)
    return _TEXTS["again"].format(question=first, attempt=attempt, answer=shown, problem=problem)


def _read(text: str, image: Candidates) -> _Reply:
    """Return a reply that fits the schema, the label and the number of captions, or raise `_Unfit`."""
    fenced = _FENCE.match(text)
    try:
        reply = _Reply.model_validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        places = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()]
        problems = [f"{place or 'the answer'}: {message}" for place, message in places]
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise _Unfit("; ".join(problems[:3]) + more) from error
    if reply.verdict != LABELS[image.label]:
        raise _Unfit(f"the image is {LABELS[image.label]}, and the verdict says {reply.verdict}")
    for family in FAMILIES:
        for n, clause in enumerate(getattr(reply, family)):
            if strangers := sorted(set(clause.annotators) - set(range(1, len(image.captions) + 1))):
                raise _Unfit(f"{family}.{n}.annotators: there is no observer {strangers[0]}")
    return reply


def _clues(reply: _Reply, label: int, min_annotators: int) -> tuple[Clue, ...]:
    """Return the clues with `min_annotators`, or with one if critical, which on real images nothing is."""
    clues: dict[str, Clue] = {}
    for family in FAMILIES:
        for clause in getattr(reply, family):
            annotators = len(set(clause.annotators))
            single = annotators < min_annotators
            if single and not (clause.critical and annotators and label == FAKE):
                continue
            # The fixed format has no other sentences and semicolons than its own.
            for statement in split(clause.statement, _LEAST_WORDS):
                if not JUDGEMENT.search(statement):
                    clues.setdefault(statement.lower(), Clue(family, statement, annotators, single))
    return in_order(clues.values())


def judge(image: Candidates, outcome: Outcome, spec: ServedAggregator, min_annotators: int) -> Annotation:
    """Return the aggregate that one answer is, or why it is none."""
    if outcome.status == "ok":
        try:
            clues = _clues(_read(outcome.text, image), image.label, min_annotators)
            return Annotation(image.id, answer(image.label, clues), clues)
        except _Unfit as unfit:
            return Annotation(image.id, "", (), "invalid", str(unfit))
    why = {"truncated": f"it was cut off at {spec.max_tokens} tokens; be shorter", "empty": "it was empty"}
    return Annotation(image.id, "", (), outcome.status, why.get(outcome.status, outcome.text))


class LLMAggregator(Client):
    """M by a language model behind servers, told to answer in the schema.

    `min_annotators` must name a clue that is not critical. `store` caches answers; `picture` returns an
    image's encoded bytes by its id, if the model sees them; `concurrency` goes where the entry says none.
    """

    role, entry = "aggregator", "annotate.aggregator"

    def __init__(
        self, spec: ServedAggregator, min_annotators: int, seed: int, store: Cache,
        picture: Callable[[str], bytes], concurrency: int = 8,
    ) -> None:  # fmt: skip
        super().__init__(spec, seed, response_format=RESPONSE_FORMAT)
        self._min, self.picture = min_annotators, picture
        self._predictor = RequestPredictor(self, store, concurrency)
        self._fit = self._unfit = 0

    def aggregate(self, images: Iterable[Candidates]) -> Iterator[Annotation]:
        """Return one annotation an image, in order, also where there is no answer (see `Annotation.outcome`).

        Raises `UserError` as `Client.annotate` does, and if none of the first answers fits.
        """
        images = list(images)
        columns = predict(self._predictor, images, desc=f"aggregate {self.name}") if images else {}
        return iter(columns.get("annotation", ()))

    def first(self, image: Candidates) -> Request:
        """Return the first request about an image."""
        picture = self.picture(image.id) if self.spec.with_image else None
        return Request(image.id, image.id, picture, Text(question(image, self._min, self.spec.with_image)))

    async def answer(self, image: Candidates, ask: Ask) -> dict[str, Any]:
        """Ask about an image until an answer fits; return its annotation."""
        request = self.first(image)
        first = request.prompt.text
        for attempt in range(1, self.spec.attempts + 1):
            outcome = await ask(request)
            annotation = judge(image, outcome, self.spec, self._min)
            if annotation.outcome not in _ASKED_AGAIN:
                break
            self._unfit += 1
            if self._unfit >= _ALL_UNFIT and not self._fit:
                what = f"none of the first {self._unfit} answers fits the schema: {annotation.problem}"
                cure = f"serve the model with structured outputs, raise {self.entry}.max_tokens, or name "
                cure += "another model; what was answered is asked again only with another model or revision"
                raise UserError(f"aggregator {self.name}: {what}", cure)
            text = again(first, attempt + 1, outcome.text, annotation.problem)
            request = replace(request, prompt=Text(text))
        self._fit += annotation.outcome == "ok"
        return {"annotation": annotation}
