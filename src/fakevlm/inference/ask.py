"""Ask models about records, each question once: answers are kept in the cache of all servers' answers.

A model never raises for what one image or one answer does: the outcome's status says it. It raises
`UserError` for what would spoil every request alike (no key, an unknown model), and the run stops. One that
raises `Away` (no server) drops out and lets the others finish.
"""

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar
from weakref import WeakValueDictionary

from fakevlm import cache
from fakevlm.cache import Cache
from fakevlm.errors import UserError
from fakevlm.progress import bar, say

T = TypeVar("T")
Status = Literal["ok", "refused", "empty", "truncated", "rejected", "error"]
_AWAY = "away, the rest to be asked by the next run"
_BLOCK = 500  # answers read at a time
_DIGEST = 32  # bytes of a key
# Up to the last end of a sentence or line.
_STATEMENTS = re.compile(r".*(?:[.!?][\"')*_]*(?=\s|\Z)|\n)", re.DOTALL)


class Away(UserError):
    """There is nobody to ask now. From `ask_all` it arrives as a plain UserError, by which stages know it."""


class Prompt(Protocol):
    """Whatever has a text to be asked: a label prompt (`annotation.prompts`), a baseline's question."""

    @property
    def text(self) -> str: ...


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
        sampling: everything else that decides the answer (temperature, seed, maximum of tokens), JSON values.
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
        """Return the same request, put to a model."""
        return replace(self, model=model.model, revision=model.revision, sampling=model.sampling)


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
    def is_answer(self) -> bool:
        return self.status != "error"

    @property
    def caption(self) -> str:
        """What the aggregation may read: a whole answer, or the whole statements of a truncated one."""
        if self.status == "truncated":
            statements = _STATEMENTS.match(self.text)
            return statements[0] if statements else ""
        return self.text if self.status == "ok" else ""

    @property
    def usable(self) -> bool:
        """Whether there is anything for the aggregation to read."""
        return bool(self.caption.strip())


class Annotator(Protocol):
    """A model that is asked. `model`, `revision` and `sampling` go into every request's key.

    It may also have: `name`, how tables call it if not by its model; `concurrency`, its number of requests
    under way; `follow(request, outcomes)`, the next request about the same image or None, given the first
    request and all outcomes so far; `note()`, a few words for the progress line; `close()`, a coroutine.
    """

    model: str
    revision: str
    sampling: Mapping[str, Any]

    async def annotate(self, request: Request) -> Outcome:
        """Return the answer to one request; failures of transport come back as status `error`.

        Raises:
            UserError: what would spoil every request.
            Away: there is nobody to ask now.
        """
        ...


def name_of(annotator: Annotator) -> str:
    """Return how tables call an annotator: by its own name if it has one, else by its model."""
    return getattr(annotator, "name", annotator.model)


def follow_up(annotator: Annotator, first: Request, outcomes: Sequence[Outcome]) -> Request | None:
    """Return the next request about an image, given the outcomes so far; None if there is no other."""
    follow: Callable[..., Request | None] | None = getattr(annotator, "follow", None)
    return follow(first, outcomes) if follow else None


def stored(store: Cache, keys: Iterable[str]) -> dict[str, Outcome]:
    """Return the answers that the cache holds, by request key."""
    return {key: Outcome(**json.loads(data)) for key in keys if (data := store.get(key)) is not None}


class Answers:
    """What was answered to each request, in their order. Texts are read from the cache in blocks.

    Args:
        store: the cache.
        ids: of the requests.
        keys: by annotator, for each request the digests of it and of those that followed it.
        failed: outcomes that are no answers, by key.
    """

    def __init__(
        self, store: Cache, ids: list[str], keys: dict[str, list[bytes]], failed: dict[str, Outcome]
    ) -> None:
        self._store, self._ids, self._keys, self._failed = store, ids, keys, failed

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[tuple[str, dict[str, Outcome]]]:
        """Yield each request's id, and the last outcome about it by annotator."""
        for key, outcomes in zip(self._ids, zip(*map(self.of, self._keys), strict=True), strict=True):
            yield key, {name: each[-1] for name, each in zip(self._keys, outcomes, strict=True)}

    def of(self, name: str) -> Iterator[list[Outcome]]:
        """Yield the outcomes of one annotator about each request, followed-up ones in the order asked."""
        digests = self._keys[name]
        for start in range(0, len(digests), _BLOCK):
            block = [
                [each[n : n + _DIGEST].hex() for n in range(0, len(each), _DIGEST)]
                for each in digests[start : start + _BLOCK]
            ]
            outcomes = self._failed | stored(self._store, [key for keys in block for key in keys])
            for keys in block:
                yield [outcomes[key] for key in keys]


def ask_all(
    requests: Iterable[Request],
    annotators: Sequence[Annotator],
    store: Cache,
    *,
    concurrency: int = 8,
    total: int | None = None,
    desc: str = "annotate",
) -> Answers:
    """Put every request to every annotator; what the cache answers is not asked again.

    Each annotator walks through the requests at its own pace, so a slow one holds up no other. One that is
    away drops out, the others finish, and then the run ends with its error: so models that do not fit on the
    machines together can be served one after another. An annotator holds no more images than its requests
    under way.

    Args:
        requests: without model; with several annotators something that can be walked through more than once.
        annotators: those to ask.
        store: the cache.
        concurrency: requests under way at a time, for each annotator that does not say so itself.
        total: number of requests, for the progress bars.
        desc: what the bars call it.

    Raises:
        TypeError: several annotators, and requests can be walked through only once.
        UserError: an annotator cannot go on, and the run stopped at once; or one or several were away, and
            the others are through. What was answered is in the cache.
    """
    if len(annotators) > 1 and iter(requests) is requests:
        raise TypeError("several annotators cannot share an iterator: give a list, or what makes one anew")
    runs = [_Run(requests, annotator, store, total, desc) for annotator in annotators]
    _wait_for(_ask_all(runs, concurrency))
    failed = {key: outcome for run in runs for key, outcome in run.failed.items()}
    return Answers(store, runs[0].ids, {run.name: run.keys for run in runs}, failed)


async def _ask_all(runs: Sequence["_Run"], concurrency: int) -> None:
    under_way = [run.name for run in runs]
    away: list[Away] = []

    async def finish(run: _Run) -> None:
        error = await run.finish(concurrency)
        under_way.remove(run.name)
        if error is not None:
            away.append(error)
            if under_way:  # now, not hours later: its server may be started meanwhile for the next run
                say(f"{error.what}; the run goes on without it, with {', '.join(under_way)}")

    # If one fails, the others are cancelled: nothing may still write when this returns.
    try:
        async with asyncio.TaskGroup() as group:
            for run in runs:
                group.create_task(finish(run))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None  # a UserError must arrive as itself
    finally:
        for run in runs:
            await run.close()
    if away:
        cures = dict.fromkeys(error.cure for error in away)
        raise UserError("; ".join(error.what for error in away), "; ".join(cures))


class _Run:
    """One annotator's way through the requests. Its workers take them from one iterator."""

    def __init__(
        self, requests: Iterable[Request], annotator: Annotator, store: Cache, total: int | None, desc: str
    ) -> None:
        self.annotator, self.name = annotator, name_of(annotator)
        self.ids: list[str] = []
        self.keys: list[bytes] = []
        self.failed: dict[str, Outcome] = {}
        self._requests, self._store = iter(requests), store
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._away: Away | None = None
        self._cached = 0
        self._note = getattr(annotator, "note", str)
        self._bar = bar(total, f"{desc} {self.name}", unit="caption")

    async def finish(self, concurrency: int) -> Away | None:
        """Ask everything; return the error of an annotator that is away."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(getattr(self.annotator, "concurrency", None) or concurrency):
                    group.create_task(self._work())
        except BaseExceptionGroup as failures:
            for error in failures.exceptions:
                if not isinstance(error, Away):
                    raise error from None
            self._away = failures.exceptions[0]
        return self._away

    async def _work(self) -> None:
        for request in self._requests:  # workers run in one thread and take from it between awaits
            n = len(self.keys)
            self.ids.append(request.id)
            self.keys.append(b"")
            first = following = request.to(self.annotator)
            outcomes: list[Outcome] = []
            keys: list[str] = []
            while following is not None:
                keys.append(following.key)
                outcomes.append(await self._ask(following))
                following = follow_up(self.annotator, first, outcomes)
            self.keys[n] = bytes.fromhex("".join(keys))
            self._bar.set_postfix_str(self._note(), refresh=False)
            self._bar.update()

    async def _ask(self, request: Request) -> Outcome:
        await asyncio.sleep(0)  # one that never waits must still let the others through, and their failures
        async with self._locks.setdefault(request.key, asyncio.Lock()):  # equal requests are asked once
            if request.key in self.failed:
                return self.failed[request.key]
            if (data := self._store.get(request.key)) is not None:
                self._cached += 1
                return Outcome(**json.loads(data))
            outcome = await self.annotator.annotate(request)
            if outcome.is_answer:
                self._store.put(request.key, json.dumps(asdict(outcome)).encode())
            else:
                self.failed[request.key] = outcome
            return outcome

    async def close(self) -> None:
        """End the annotator's connections and the bar."""
        if close := getattr(self.annotator, "close", None):
            await close()
        notes = [f"{self._cached} from the cache"] if self._cached else []
        notes += [f"{len(self.failed)} failed, to be asked again by the next run"] if self.failed else []
        notes += [_AWAY] if self._away else []
        if notes:
            self._bar.set_postfix_str(", ".join(filter(None, [*notes, self._note()])))
        self._bar.close()


def _wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also inside Jupyter, whose kernel has a loop running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
