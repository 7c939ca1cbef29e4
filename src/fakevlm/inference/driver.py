"""Puts every image to every annotator: concurrent, journalled, resumable, in bounded memory."""

import asyncio
import threading
from array import array
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fakevlm.errors import UserError
from fakevlm.inference.journal import Journal, outcome_at
from fakevlm.inference.protocol import Annotator, Outcome, Prompt, Request, name_of
from fakevlm.progress import bar, say

T = TypeVar("T")
_AWAY = "away, the rest to be asked by the next run"


@dataclass(frozen=True, slots=True)
class Task:
    """An image (None: only its prompt is put) and the prompt for it."""

    id: str
    path: str
    image: bytes | None
    prompt: Prompt


def request_for(task: Task, annotator: Annotator) -> Request:
    """What is asked of an annotator about a task."""
    model, revision, sampling = annotator.model, annotator.revision, annotator.sampling
    return Request(task.id, task.path, task.image, task.prompt, model, revision, sampling)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What one annotator said about one image."""

    id: str
    annotator: str
    outcome: Outcome


class Found(Sequence[Candidate]):
    """One candidate a task and annotator, in the order of tasks, then annotators; read from the journal's file anew each time.

    Only ids and places are held, so that a million captions need no memory.

    Args:
        file: the journal's.
        ids: of the tasks.
        places: by annotator, where the outcome of each task stands in the file.
    """

    def __init__(self, file: Path, ids: list[str], places: dict[str, "array[int]"]) -> None:
        self._file, self._ids, self._places = file, ids, places

    def __len__(self) -> int:
        return len(self._ids) * len(self._places)

    def __getitem__(self, n: int) -> Candidate:
        if not -len(self) <= n < len(self):
            raise IndexError(n)
        task, which = divmod(n % len(self), len(self._places))
        name = list(self._places)[which]
        with self._file.open("rb") as lines:
            return Candidate(self._ids[task], name, outcome_at(lines, self._places[name][task]))

    def __iter__(self) -> Iterator[Candidate]:
        with self._file.open("rb") as lines:
            for task, key in enumerate(self._ids):
                for name, places in self._places.items():
                    yield Candidate(key, name, outcome_at(lines, places[task]))

    def places(self, annotator: str) -> "array[int]":
        """Where the outcome of each task stands in the journal."""
        return self._places[annotator]

    def by_task(self) -> Iterator[tuple[str, dict[str, Outcome]]]:
        """The id of each task and its outcomes by annotator."""
        with self._file.open("rb") as lines:
            for task, key in enumerate(self._ids):
                yield key, {name: outcome_at(lines, at[task]) for name, at in self._places.items()}


def annotate_all(
    tasks: Iterable[Task],
    annotators: Sequence[Annotator],
    journal: Journal,
    concurrency: int = 8,
    total: int | None = None,
    what: str = "annotate",
) -> Found:
    """Every task put to every annotator; what the journal already answers is not asked again.

    Each annotator walks through the tasks at its own pace with requests of its own under way, so a slow one
    holds up no other. One that is away drops out, the others finish, and then the run ends with its error: so
    models that do not fit on the machines together can be served one after another. Tasks may read images as
    they are needed: an annotator holds no more of them than its requests under way.

    Args:
        tasks: the images; with several annotators something that can be walked through more than once.
        annotators: those to ask.
        journal: opened for writing.
        concurrency: requests under way at a time, for each annotator that does not say so itself.
        total: number of tasks, for the progress bars.
        what: what the bars call it.

    Returns:
        One candidate a task and annotator, in the order of tasks, then annotators; to be walked through any
        number of times.

    Raises:
        TypeError: several annotators, and tasks can be walked through only once.
        UserError: an annotator cannot go on, and the run stopped at once; or one or several were `away`, and
            the others are through. What was answered is in the journal.
    """
    if len(annotators) > 1 and iter(tasks) is tasks:
        raise TypeError("several annotators cannot share an iterator: give a list, or what makes one anew")
    return run(_annotate_all(tasks, annotators, journal, concurrency, total, what))


async def _annotate_all(
    tasks: Iterable[Task],
    annotators: Sequence[Annotator],
    journal: Journal,
    concurrency: int,
    total: int | None,
    what: str,
) -> Found:
    ids: list[str] = []
    walks = [
        _Walk(tasks, annotator, journal, total, what, None if n else ids)
        for n, annotator in enumerate(annotators)
    ]
    under_way = [walk.name for walk in walks]

    async def through(walk: _Walk) -> None:
        await walk.through(concurrency)
        under_way.remove(walk.name)
        if (
            walk.away and under_way
        ):  # now, not hours later: its server may be started meanwhile for the next run
            say(f"{walk.away.what}; the run goes on without it, with {', '.join(under_way)}")

    # If one fails, the others are cancelled, unless it is only away: nothing may still write when this
    # returns.
    try:
        async with asyncio.TaskGroup() as group:
            for walk in walks:
                group.create_task(through(walk))
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None  # a UserError must arrive as itself
    finally:
        for walk in walks:
            await walk.close()
    if away := [walk.away for walk in walks if walk.away]:
        raise away[0] if len(away) == 1 else _all_of(away)
    return Found(journal.file, ids, {walk.name: walk.places for walk in walks})


def _all_of(away: Sequence[UserError]) -> UserError:
    """One error that names all annotators that were away."""
    what, cures = "; ".join(each.what for each in away), dict.fromkeys(each.cure for each in away)
    return UserError(what, "; ".join(cures), away=True)


class _Walk:
    """One annotator's way through the tasks. Any number of workers share it."""

    def __init__(
        self,
        tasks: Iterable[Task],
        annotator: Annotator,
        journal: Journal,
        total: int | None,
        what: str,
        ids: list[str] | None,
    ) -> None:
        self.annotator = annotator
        self.name = name_of(annotator)
        self.places = array("q")  # of outcomes in the journal, in the order of tasks
        self._ids = ids  # filled by the first walk alone
        self._queue = iter(tasks)
        self._journal = journal
        self._under_way: dict[
            str, asyncio.Future[tuple[int, bool]]
        ] = {}  # by key: two equal images are one request
        self.away: UserError | None = None  # why the way ended early
        self._known = self._failed = 0
        self._note = getattr(annotator, "note", str)
        self._progress = bar(total, f"{what} {self.name}", unit="caption")

    async def through(self, concurrency: int) -> None:
        """All the way with so many workers, or as many as the annotator says; if it is `away`, up to there."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(getattr(self.annotator, "concurrency", None) or concurrency):
                    group.create_task(self._work())
        except BaseExceptionGroup as failures:
            worse = [each for each in failures.exceptions if not getattr(each, "away", False)]
            if worse:
                raise worse[0] from None
            self.away = failures.exceptions[0]
            self._progress.set_postfix_str(_AWAY)

    async def _work(self) -> None:
        # Workers run in one thread and take from the queue between awaits.
        for task in self._queue:
            n = len(self.places)
            self.places.append(-1)
            if self._ids is not None:
                self._ids.append(task.id)
            self.places[n], answered = await self._ask(task)
            self._failed += not answered
            if note := self._note():
                self._progress.set_postfix_str(note, refresh=False)
            self._progress.update()

    async def close(self) -> None:
        """Ends the annotator's connections and the bar."""
        if close := getattr(self.annotator, "close", None):
            await close()
        notes = [f"{self._known} from the journal"] if self._known else []
        notes += [f"{self._failed} failed, to be asked again by the next run"] if self._failed else []
        notes += [_AWAY] if self.away else []
        if notes:
            self._progress.set_postfix_str(", ".join(filter(None, [*notes, self._note()])))
        self._progress.close()

    async def _ask(self, task: Task) -> tuple[int, bool]:
        """Where the outcome stands in the journal, and whether it is an answer."""
        request = request_for(task, self.annotator)
        await asyncio.sleep(0)  # one that never waits must still let the others through, and their failures
        if (known := self._journal.find(request)) is not None:
            self._known += 1
            return known, True
        if request.key in self._under_way:
            return await self._under_way[request.key]
        future = self._under_way[request.key] = asyncio.get_running_loop().create_future()
        try:
            outcome = await self.annotator.annotate(request)
            made = self._journal.put(request, outcome), outcome.is_answer
            future.set_result(made)
        finally:
            future.cancel()  # no effect on a future that has its result
            del self._under_way[request.key]
        return made


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, also inside Jupyter, whose kernel has a loop running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    result: list[T] = []
    failure: list[BaseException] = []

    def target() -> None:
        try:
            result.append(asyncio.run(work))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]
