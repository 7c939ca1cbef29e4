"""Puts every image to every annotator: concurrent, journalled, resumable, in bounded memory."""

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fakevlm.annotation.annotators import Annotator, Outcome, Request
from fakevlm.annotation.journal import Journal
from fakevlm.annotation.prompts import Prompt
from fakevlm.progress import bar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Task:
    """An image to be annotated and the prompt for it."""

    id: str
    path: str
    image: bytes
    prompt: Prompt


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
) -> list[Candidate]:
    """Every task put to every annotator; what the journal already answers is not asked again.

    Tasks may be a generator that reads images as they are needed: at most `concurrency` are held at a time.

    Args:
        tasks: the images.
        annotators: those to ask.
        journal: opened for writing.
        concurrency: requests under way at a time.
        total: number of tasks, for the progress bar.

    Returns:
        One candidate a task and annotator, in the order of tasks, then annotators.
    """
    return _run(_annotate_all(tasks, annotators, journal, concurrency, total))


async def _annotate_all(
    tasks: Iterable[Task],
    annotators: Sequence[Annotator],
    journal: Journal,
    concurrency: int,
    total: int | None,
) -> list[Candidate]:
    found: dict[int, Candidate] = {}
    under_way: dict[str, asyncio.Future[Outcome]] = {}  # by key: two equal images are one request
    asked = 0

    def requests() -> Iterator[tuple[Annotator, Request]]:
        for task in tasks:
            for a in annotators:
                yield a, Request(task.id, task.path, task.image, task.prompt, a.model, a.revision, a.sampling)

    queue = enumerate(requests())

    async def ask(annotator: Annotator, request: Request) -> Outcome:
        nonlocal asked
        answered = journal.get(request)
        if answered is not None:
            return answered
        if request.key in under_way:
            return await under_way[request.key]
        asked += 1
        future = under_way[request.key] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.sleep(0)  # an annotator that never waits must still let another's failure through
            outcome = await annotator.annotate(request)
            journal.put(request, outcome)
            future.set_result(outcome)
        finally:
            future.cancel()  # no effect on a future that has its result
            del under_way[request.key]
        return outcome

    async def work(progress) -> None:
        # One generator feeds all workers; they run in one thread and take from it between awaits.
        for n, (annotator, request) in queue:
            outcome = await ask(annotator, request)
            found[n] = Candidate(request.id, request.model, outcome)
            progress.update()

    with bar(None if total is None else total * len(annotators), "annotate", unit="caption") as progress:
        # If one fails, the others are cancelled: nothing may still write when this returns.
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work(progress))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # a UserError must arrive as itself
        if asked < len(found):
            progress.set_postfix_str(f"{len(found) - asked} from the journal")
    return [found[n] for n in sorted(found)]


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
