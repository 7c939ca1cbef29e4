"""The aggregation A = M(A1, A2, A3) by a language model behind a server (paper section 3.2, Eq. 1), which may see the image.

The model proposes, this module disposes. It is asked for JSON of a fixed schema (`response_format`, which
vLLM, SGLang and hosted APIs enforce while decoding, and which is checked here whoever enforced it): the
verdict, and by family the clues with the annotators who make each. An answer that does not fit (no JSON,
another verdict than the known label, an annotator who does not exist, cut off, empty) is asked for again,
with what was wrong, `attempts` times in all. Then the image has no aggregate: it is left out and listed with
the reason, never given another aggregator's text. From one that fits, the rules are taken literally: a point
needs `min_annotators` annotators, or one and to be critical, which on real images nothing is; statements of
the verdict itself are dropped. Whether two annotators mean the same, and what is glaring, is the model's
judgement.

Captions are data: they are put as JSON strings, which no text can end, the verdict in the answer is the known
label's, and the answer is written by the same `answer` as the embedding aggregator's. Each attempt is a
request of its own in the journal, and what an answer amounts to is worked out anew from there: a killed run
repeats nothing, and neither does a change of the rules.
"""

import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fakevlm.annotation.aggregate import FAMILIES, Annotation, Candidates, Clue, answer, in_order
from fakevlm.annotation.captions import is_verdict, split
from fakevlm.annotation.prompts import LABELS, Prompt, subject
from fakevlm.config.params import ServedAggregator
from fakevlm.data.records import FAKE
from fakevlm.errors import UserError
from fakevlm.inference.driver import Task, annotate_all
from fakevlm.inference.endpoint import EndpointAnnotator
from fakevlm.inference.journal import Journal, outcome_at
from fakevlm.inference.protocol import Outcome, Request

ENTRY = "annotate.aggregator"  # its place in params.yaml
_ASKED_AGAIN = (
    "invalid",
    "truncated",
    "empty",
)  # the same would be refused or rejected again; errors had their retries
_ALL_UNFIT = 100  # first answers, none of which fits
_SHOWN = 2000  # characters of an unfit answer that the model is shown again
_LEAST_WORDS = 2  # of a statement; what is shorter is a heading
_FENCE = re.compile(
    r"^\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*$", re.DOTALL
)  # how models wrap JSON unless decoding is guided


# In the schema that the server gets: every key required, none more allowed, no limits of length, which not
# all support.
class _Clause(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    statement: str
    annotators: list[int]
    critical: bool


class _Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

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


@lru_cache(maxsize=1)
def _texts() -> dict:
    return yaml.safe_load(resources.files(__package__).joinpath("aggregate.yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Question(Prompt):
    """What is asked about an image, and the image's captions, which an answer is judged by."""

    image: Candidates = field(kw_only=True, compare=False)


def question(image: Candidates, min_annotators: int, with_image: bool) -> Question:
    """What the model is asked first about an image: the rules, and the captions numbered in the order of names.

    The names stay out: which model says a thing is no argument.
    """
    texts, label = _texts(), LABELS[image.label]
    said = [{"observer": n, "said": image.captions[name]} for n, name in enumerate(sorted(image.captions), 1)]
    text = texts["instructions"].format(
        n=len(said),
        subject=subject(image.category),
        verdict=label,
        min_annotators=min_annotators,
        image=texts["with_image"] + "\n" if with_image else "",
        captions="[\n" + ",\n".join(json.dumps(one, ensure_ascii=False) for one in said) + "\n]",
        **texts[label],
    )
    return Question("aggregate", text, image.label, image.category, image=image)


def _again(asked: Question, attempt: int, given: str, problem: str) -> Question:
    """The question, the last answer and what was wrong with it. The number keeps a third from being the second anew."""
    shown = json.dumps(given if len(given) <= _SHOWN else given[:_SHOWN] + "…", ensure_ascii=False)
    text = _texts()["again"].format(question=asked.text, attempt=attempt, answer=shown, problem=problem)
    return replace(asked, text=text)


def _read(text: str, image: Candidates) -> _Reply:
    """A reply that fits the schema, the label and the number of captions.

    Raises:
        _Unfit: it does not.
    """
    fenced = _FENCE.match(text)
    try:
        reply = _Reply.model_validate_json(fenced[1] if fenced else text)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or 'the answer'}: {problem['msg']}"
            for problem in error.errors()
        ]
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise _Unfit("; ".join(problems[:3]) + more) from error
    if reply.verdict != LABELS[image.label]:
        raise _Unfit(f"the image is {LABELS[image.label]}, and the verdict says {reply.verdict}")
    for family in FAMILIES:
        for n, clause in enumerate(getattr(reply, family)):
            if strangers := sorted(set(clause.annotators) - set(range(1, len(image.captions) + 1))):
                raise _Unfit(f"{family}.{n}.annotators: there is no observer {strangers[0]}")
    return reply


def _kept(reply: _Reply, label: int, min_annotators: int) -> tuple[Clue, ...]:
    """The clues of a reply that the rules keep, whatever the model made of them."""
    clues: dict[str, Clue] = {}
    for family in FAMILIES:
        for clause in getattr(reply, family):
            annotators = len(set(clause.annotators))
            single = annotators < min_annotators
            if single and not (clause.critical and annotators and label == FAKE):
                continue
            # The fixed format has no other sentences and semicolons than its own.
            for statement in split(clause.statement, _LEAST_WORDS):
                if not is_verdict(statement):
                    clues.setdefault(statement.lower(), Clue(family, statement, annotators, single))
    return in_order(clues.values())


def judge(image: Candidates, outcome: Outcome, spec: ServedAggregator, min_annotators: int) -> Annotation:
    """What one answer amounts to: an aggregate, or why it is none.

    Args:
        image: its captions.
        outcome: how the request ended.
        spec: the entry `annotate.aggregator`.
        min_annotators: how many must make a point that is not critical.
    """
    problem = outcome.text
    if outcome.status == "ok":
        try:
            clues = _kept(_read(outcome.text, image), image.label, min_annotators)
            return Annotation(image.id, answer(image.label, clues), clues)
        except _Unfit as unfit:
            return Annotation(image.id, "", (), "invalid", str(unfit))
    if outcome.status == "truncated":
        problem = f"it was cut off at {spec.max_tokens} tokens; be shorter"
    elif outcome.status == "empty":
        problem = "it was empty"
    return Annotation(image.id, "", (), outcome.status, problem)


def follow(
    image: Candidates, outcomes: Sequence[Outcome], spec: ServedAggregator, min_annotators: int
) -> Question | Annotation:
    """What to ask next about an image, or what came of it, given how all requests about it ended so far (in order)."""
    first = asked = question(image, min_annotators, spec.with_image)
    for attempt, outcome in enumerate(outcomes, 1):
        made = judge(image, outcome, spec, min_annotators)
        if made.outcome not in _ASKED_AGAIN or attempt == spec.attempts:
            return made
        asked = _again(first, attempt + 1, outcome.text, made.problem)
    return asked


class _Model(EndpointAnnotator):
    """The model behind its servers. Stops the run if none of its first answers fits: a hundred thousand would not either."""

    judge: Callable[[Candidates, Outcome], Annotation] | None = None  # of first answers; None: they are over
    _fit = _unfit = 0

    async def annotate(self, request: Request) -> Outcome:
        outcome = await super().annotate(request)
        if self.judge is not None:
            made = self.judge(request.prompt.image, outcome)
            self._fit += made.outcome == "ok"
            self._unfit += made.outcome in _ASKED_AGAIN
            if self._unfit >= _ALL_UNFIT and not self._fit:
                raise UserError(
                    f"aggregator {self.name}: none of the first {self._unfit} answers fits the schema; the last: {made.problem}",
                    f"serve the model with structured outputs, raise {ENTRY}.max_tokens, or name a model that follows "
                    "instructions; what was answered is in the journal and will be asked only with another model or revision",
                )
        return outcome


def served_model(spec: ServedAggregator, seed: int) -> _Model:
    """The model that aggregates, told to answer in the schema; nothing is asked yet."""
    return _Model(spec, seed, {"response_format": RESPONSE_FORMAT}, ENTRY, "aggregator")


class LLMAggregator:
    """M by a language model: as many rounds over the images as there are attempts, each with those still open.

    Args:
        spec: the entry `annotate.aggregator`.
        min_annotators: how many must make a point that is not critical.
        seed: the profile's.
        journal: opened for writing.
        tasks: where the images come from if the model sees them: those that were annotated, in the order of
            the captions; to be walked through repeatedly.
        concurrency: requests under way at a time, if the entry does not say.
    """

    def __init__(
        self,
        spec: ServedAggregator,
        min_annotators: int,
        seed: int,
        journal: Journal,
        tasks: Iterable[Task],
        concurrency: int,
    ) -> None:
        self.spec, self.min_annotators = spec, min_annotators
        self._model = served_model(spec, seed)
        self._journal, self._tasks, self._concurrency = journal, tasks, concurrency

    def aggregate(self, images: Iterable[Candidates]) -> Iterator[Annotation]:
        """One annotation an image, in order, also for those that have no answer (see `Annotation.outcome`).

        Raises:
            UserError: as `EndpointAnnotator.annotate`; and if none of the first answers fits.
        """
        if iter(images) is images:
            raise TypeError(
                "images are walked through once a round: give a list, or what makes an iterator anew"
            )
        self._model.judge = lambda image, outcome: judge(image, outcome, self.spec, self.min_annotators)
        rounds: list[array[int]] = []  # where in the journal each image's answer stands; −1: it was not asked
        for attempt in range(self.spec.attempts):
            still_open = self._open(images, rounds) if attempt else None
            if still_open == 0:
                break
            asked = _Round(self, images, rounds)
            again = f", attempt {attempt + 1} of {self.spec.attempts}:" if attempt else ""
            found = annotate_all(
                asked, [self._model], self._journal, self._concurrency, still_open, f"aggregate{again}"
            )
            rounds.append(asked.all_places(found.places(self._model.name)))
            self._model.judge = None
        for _, after in self.after(images, rounds):
            assert isinstance(after, Annotation), after
            yield after

    def after(
        self, images: Iterable[Candidates], rounds: Sequence["array[int]"]
    ) -> Iterator[tuple[Candidates, Question | Annotation]]:
        """Each image, and what to ask about it or what came of it after these rounds; answers are read from the journal."""
        with self._journal.file.open("rb") as lines:
            for n, image in enumerate(images):
                outcomes = [outcome_at(lines, places[n]) for places in rounds if places[n] >= 0]
                yield image, follow(image, outcomes, self.spec, self.min_annotators)

    def _open(self, images: Iterable[Candidates], rounds: Sequence["array[int]"]) -> int:
        return sum(isinstance(after, Question) for _, after in self.after(images, rounds))

    def seen(self) -> Iterable[Task] | None:
        """The images' tasks, if the model sees them."""
        return self._tasks if self.spec.with_image else None


class _Round:
    """The questions of one round, made as they are needed: with the images of the aggregator's tasks, or as they are."""

    def __init__(
        self, aggregator: LLMAggregator, images: Iterable[Candidates], rounds: Sequence["array[int]"]
    ) -> None:
        self._aggregator, self._images, self._rounds = aggregator, images, list(rounds)
        self._asked = bytearray()  # by image: whether it is asked in this round

    def __iter__(self) -> Iterator[Task]:
        tasks = iter(self._aggregator.seen() or ())
        self._asked.clear()
        for image, after in self._aggregator.after(self._images, self._rounds):
            self._asked.append(isinstance(after, Question))
            if not isinstance(after, Question):
                continue
            if self._aggregator.seen() is None:
                yield Task(image.id, image.id, None, after)
            else:  # both are in the order of collection
                yield replace(next(task for task in tasks if task.id == image.id), prompt=after)

    def all_places(self, places: "array[int]") -> "array[int]":
        """Places of this round's answers, in the order asked, as a list with every image."""
        given = iter(places)
        return array("q", (next(given) if asked else -1 for asked in self._asked))
