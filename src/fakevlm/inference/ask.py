"""Models that are asked one request at a time, behind servers or written by a user, as predictors.

Each request is put once: its answer is kept in the cache of all servers' answers. A model never raises for
what one image or one answer does: the outcome's status says it. It raises `UserError` for what would spoil
every request alike (no key, an unknown model).
"""

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from queue import SimpleQueue
from typing import Any, Literal, Protocol
from weakref import WeakValueDictionary

import numpy as np

from fakevlm import cache
from fakevlm.cache import Cache
from fakevlm.data.shards import take
from fakevlm.errors import UserError
from fakevlm.inference.predict import Columns, predict
from fakevlm.progress import say

Status = Literal["ok", "refused", "empty", "truncated", "rejected", "error"]
# Up to the last end of a sentence or line.
_STATEMENTS = re.compile(r".*(?:[.!?][\"')*_]*(?=\s|\Z)|\n)", re.DOTALL)


class Prompt(Protocol):
    """Whatever has a text to be asked, such as a label prompt (`annotation.prompts`)."""

    @property
    def text(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt that is a text and nothing else."""

    text: str


@dataclass(frozen=True)
class Request:
    """One image, or only a text, put to one model.

    Attributes:
        id: the record's id, carried along; not part of what is asked.
        path: the image's path relative to the image root.
        image: the encoded image, byte for byte; None: the prompt alone is asked.
        prompt: the question.
        model: the model asked, as its server calls it; a scripted observer's name.
        revision: the exact version of the model (a commit, a tag; a scripted observer's digest).
        sampling: everything else that decides the answer (temperature, seed, maximum of tokens), JSON values;
            before it is put to a model, what differs from the model's.
    """

    id: str
    path: str
    image: bytes | None
    prompt: Prompt
    model: str = ""
    revision: str = ""
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def image_sha256(self) -> str:
        return "" if self.image is None else hashlib.sha256(self.image).hexdigest()

    @cached_property
    def key(self) -> str:
        """Hash of (image bytes, prompt, model, revision, sampling): equal keys ask the same question."""
        return cache.key(self.image_sha256, self.prompt.text, self.model, self.revision, dict(self.sampling))

    def to(self, model: "Annotator") -> "Request":
        """Return the same request, put to a model; its own sampling goes before the model's."""
        sampling = {**model.sampling, **self.sampling}
        return replace(self, model=model.model, revision=model.revision, sampling=sampling)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back.

    Attributes:
        status: `ok`; `refused` (the model declined), `empty` (it said nothing), `truncated` (cut off at the
            token limit; text holds what there is), `rejected` (the server will not take this request; text is
            its message), `error` (no answer: the transport failed; text says how). All but `error` are
            answers: asking again would give the same, and a rerun does not.
        text: the answer.
    """

    status: Status
    text: str = ""

    @property
    def caption(self) -> str:
        """What the aggregation may read: a whole answer, or the whole statements of a truncated one."""
        text = self.text if self.status == "ok" else ""
        if self.status == "truncated" and (statements := _STATEMENTS.match(self.text)):
            text = statements[0]
        return text if text.strip() else ""


class Annotator(Protocol):
    """A model that is asked. `model`, `revision` and `sampling` go into every request's key.

    It may also have: `name`, how tables call it if not by its model; `concurrency`, its number of requests
    under way; `note()`, a few words for the progress line; `close()`, a coroutine; and
    `answer(record, ask)`, a coroutine that returns the row of one record, and puts as many requests as it
    needs by `await ask(request)`.
    """

    model: str
    revision: str
    sampling: Mapping[str, Any]

    async def annotate(self, request: Request) -> Outcome:
        """Return the answer to one request; failures of transport come back as status `error`.

        Raises:
            UserError: what would spoil every request; with `away`, there is nobody to ask now.
        """
        ...


Ask = Callable[[Request], Awaitable[Outcome]]
Answer = Callable[[Any, Ask], Awaitable[dict[str, Any]]]


def name_of(annotator: Annotator) -> str:
    """Return how tables call an annotator: by its own name if it has one, else by its model."""
    return getattr(annotator, "name", annotator.model)


async def ask_once(request: Request, ask: Ask) -> dict[str, Any]:
    """Return the row of an annotator without a method `answer`: the outcome of the one request."""
    return asdict(await ask(request))


def answer_of(annotator: Annotator) -> Answer:
    """Return the coroutine function that makes a row of a record: the annotator's own, or `ask_once`."""
    return getattr(annotator, "answer", ask_once)


def stored(store: Cache, request: Request) -> Outcome | None:
    """Return the answer that the cache holds, if any."""
    data = store.get(request.key)
    return None if data is None else Outcome(**json.loads(data))


@lru_cache(maxsize=1)
def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of all requests, in a thread of its own: a Jupyter kernel has one running already."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="requests", daemon=True).start()
    return loop


class RequestPredictor:
    """An annotator as a predictor (see `predict.Predictor`); each answer is stored as it comes.

    `concurrency` requests are under way at a time, if the annotator does not say so itself.
    """

    def __init__(self, annotator: Annotator, store: Cache, concurrency: int = 8) -> None:
        self.annotator, self._store = annotator, store
        self._concurrency = getattr(annotator, "concurrency", None) or concurrency
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._failed: dict[str, Outcome] = {}
        self._cached = 0
        self._task: asyncio.Task | None = None
        self._stopped = False

    def batches(self, records: Sequence[Any]) -> tuple[list[list[int]], list[str]]:
        """Return batches of one record; their keys are numbers, for the answers have keys of their own."""
        numbers = range(len(records))
        return [[n] for n in numbers], [str(n) for n in numbers]

    def note(self) -> str:
        """Return a few words for the progress line."""
        notes = [f"{self._cached} from the cache"] if self._cached else []
        notes += [f"{len(self._failed)} failed, to be asked again by the next run"] if self._failed else []
        notes += [getattr(self.annotator, "note", str)()]
        return ", ".join(filter(None, notes))

    def compute(
        self, records: Sequence[Any], plan: list[list[int]], numbers: list[int]
    ) -> Iterator[tuple[int, Columns]]:
        """Yield each record's number and its row, in the order of the answers.

        Raises:
            UserError: the annotator cannot go on. What was answered is in the cache.
        """
        rows: SimpleQueue = SimpleQueue()

        async def start() -> asyncio.Task:
            self._task = asyncio.create_task(self._ask_all(records, iter(numbers), rows))
            self._task.add_done_callback(rows.put)
            return self._task

        task = asyncio.run_coroutine_threadsafe(start(), _loop()).result()
        if self._stopped:
            self.stop()
        try:
            while (row := rows.get()) is not task:
                yield row
            task.result()  # raises what ended it
        finally:  # nothing may still write when the caller goes on
            if not task.done():
                self.stop()
                while rows.get() is not task:
                    pass

    def stop(self) -> None:
        """Cancel all requests under way; called from another thread than theirs."""
        self._stopped = True
        if self._task is not None:
            _loop().call_soon_threadsafe(self._task.cancel)

    async def _ask_all(self, records: Sequence[Any], numbers: Iterator[int], rows: SimpleQueue) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(self._work(records, numbers, rows))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # a UserError must arrive as itself
        finally:
            if close := getattr(self.annotator, "close", None):
                await close()

    async def _work(self, records: Sequence[Any], numbers: Iterator[int], rows: SimpleQueue) -> None:
        answer = answer_of(self.annotator)
        for number in numbers:  # workers run in one thread and take from it between awaits
            (record,) = take(records, [number])
            row = await answer(record, self._ask)
            rows.put((number, {name: _column(value) for name, value in row.items()}))

    async def _ask(self, request: Request) -> Outcome:
        """Return the answer to a request: from the cache, or from the annotator."""
        request = request.to(self.annotator)
        await asyncio.sleep(0)  # one that never waits must still let the others through, and their failures
        async with self._locks.setdefault(request.key, asyncio.Lock()):  # equal requests are asked once
            if request.key in self._failed:
                return self._failed[request.key]
            if (outcome := stored(self._store, request)) is not None:
                self._cached += 1
                return outcome
            outcome = await self.annotator.annotate(request)
            if outcome.status == "error":
                self._failed[request.key] = outcome
            else:
                self._store.put(request.key, json.dumps(asdict(outcome)).encode())
            return outcome


def _column(value: Any) -> np.ndarray:
    """Return a value as a column of one row."""
    column = np.empty(1, type(value) if isinstance(value, bool | float) else object)
    column[0] = value
    return column


def ask_all(
    requests: Sequence[Request], annotators: Sequence[Annotator], store: Cache, *, concurrency: int = 8
) -> dict[str, Columns]:
    """Return the columns `status` and `text` of each annotator's answers to n requests, by its name.

    Each annotator walks through the requests at its own pace, so a slow one holds up no other. One that is
    away drops out, the others finish, and then the run ends with its error: so models that do not fit on the
    machines together can be served one after another.

    The requests name no model. See `RequestPredictor` for `concurrency`, which is each annotator's own.

    Raises:
        UserError: an annotator cannot go on, and the run stopped at once; or one or several were away, and
            the others are through. What was answered is in the cache.
    """
    predictors = {name_of(one): RequestPredictor(one, store, concurrency) for one in annotators}
    away: dict[str, UserError] = {}
    with ThreadPoolExecutor(len(predictors)) as threads:
        runs = {
            threads.submit(predict, predictor, requests, desc=f"annotate {name}"): name
            for name, predictor in predictors.items()
        }
        try:
            for run in as_completed(runs):
                error = run.exception()
                if error is None:
                    continue
                if not getattr(error, "away", False):
                    raise error
                away[runs[run]] = error
                left = [name for other, name in runs.items() if not other.done()]
                if left:  # said now, not hours later: its server may be started meanwhile for the next run
                    say(f"{error.what}; the run goes on without it, with {', '.join(left)}")
        except BaseException:
            for predictor in predictors.values():
                predictor.stop()
            raise
    if away:
        errors = [away[name] for name in predictors if name in away]
        cures = dict.fromkeys(error.cure for error in errors)
        raise UserError("; ".join(error.what for error in errors), "; ".join(cures))
    return {name: run.result() for run, name in runs.items()}
