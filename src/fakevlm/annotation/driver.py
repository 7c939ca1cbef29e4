"""Puts every image to every annotator: concurrent, journalled, resumable, in bounded memory."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fakevlm.annotation.journal import Journal
from fakevlm.annotation.protocol import Annotator, Outcome, Prompt, Request, name_of
from fakevlm.progress import bar

T = TypeVar("T")


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


def annotate_all(
    tasks: Iterable[Task],
    annotators: Sequence[Annotator],
    journal: Journal,
    concurrency: int = 8,
    total: int | None = None,
    what: str = "annotate",
) -> list[Candidate]:
    """Every task put to every annotator; what the journal already answers is not asked again.

    Each annotator walks through the tasks at its own pace with requests of its own under way, so a slow one holds up no
    other. Tasks may read images as they are needed: an annotator holds no more of them than its requests under way.

    Args:
        tasks: the images; with several annotators something that can be walked through more than once.
        annotators: those to ask.
        journal: opened for writing.
        concurrency: requests under way at a time, for each annotator that does not say so itself.
        total: number of tasks, for the progress bars.
        what: what the bars call it.

    Returns:
        One candidate a task and annotator, in the order of tasks, then annotators.

    Raises:
        TypeError: several annotators, and tasks can be walked through only once.
        UserError: an annotator cannot go on; what was answered is in the journal.
    """
    if len(annotators) > 1 and iter(tasks) is tasks:
        raise TypeError("several annotators cannot share an iterator: give a list, or what makes one anew")
    return _run(_annotate_all(tasks, annotators, journal, concurrency, total, what))


async def _annotate_all(
    tasks: Iterable[Task],
    annotators: Sequence[Annotator],
    journal: Journal,
    concurrency: int,
    total: int | None,
    what: str,
) -> list[Candidate]:
    walks = [_Walk(tasks, annotator, journal, total, what) for annotator in annotators]
    # If one fails, the others are cancelled: nothing may still write when this returns.
    try:
        async with asyncio.TaskGroup() as group:
            for walk in walks:
                for _ in range(getattr(walk.annotator, "concurrency", None) or concurrency):
                    group.create_task(walk.work())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None  # a UserError must arrive as itself
    finally:
        for walk in walks:
            await walk.close()
    return [walk.found[n] for n in sorted(walks[0].found) for walk in walks] if walks else []


class _Walk:
    """One annotator's way through the tasks. Any number of workers share it."""

    def __init__(
        self, tasks: Iterable[Task], annotator: Annotator, journal: Journal, total: int | None, what: str
    ) -> None:
        self.annotator = annotator
        self.found: dict[int, Candidate] = {}
        self._queue = enumerate(tasks)
        self._journal = journal
        self._under_way: dict[str, asyncio.Future[Outcome]] = {}  # by key: two equal images are one request
        self._asked = 0
        self._name = name_of(annotator)
        self._note = getattr(annotator, "note", str)
        self._progress = bar(total, f"{what} {self._name}", unit="caption")

    async def work(self) -> None:
        # Workers run in one thread and take from the queue between awaits.
        for n, task in self._queue:
            outcome = await self._ask(task)
            self.found[n] = Candidate(task.id, self._name, outcome)
            if note := self._note():
                self._progress.set_postfix_str(note, refresh=False)
            self._progress.update()

    async def close(self) -> None:
        """Ends the annotator's connections and the bar."""
        if close := getattr(self.annotator, "close", None):
            await close()
        known = len(self.found) - self._asked
        failed = sum(not candidate.outcome.is_answer for candidate in self.found.values())
        notes = [f"{known} from the journal"] if known else []
        notes += [f"{failed} failed, to be asked again by the next run"] if failed else []
        if notes:
            self._progress.set_postfix_str(", ".join(filter(None, [*notes, self._note()])))
        self._progress.close()

    async def _ask(self, task: Task) -> Outcome:
        request = request_for(task, self.annotator)
        await asyncio.sleep(0)  # one that never waits must still let the others through, and their failures
        answered = self._journal.get(request)
        if answered is not None:
            return answered
        if request.key in self._under_way:
            return await self._under_way[request.key]
        self._asked += 1
        future = self._under_way[request.key] = asyncio.get_running_loop().create_future()
        try:
            outcome = await self.annotator.annotate(request)
            self._journal.put(request, outcome)
            future.set_result(outcome)
        finally:
            future.cancel()  # no effect on a future that has its result
            del self._under_way[request.key]
        return outcome


def _run(work: Coroutine[Any, Any, T]) -> T:
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
