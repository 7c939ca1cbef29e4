"""The driver: bounded, concurrent, in order, and every request once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakevlm.annotation.prompts import label_prompt
from fakevlm.errors import UserError
from fakevlm.inference.driver import Task, annotate_all
from fakevlm.inference.journal import Journal
from fakevlm.inference.protocol import Outcome, Request
from smallworld import Scripted

PROMPT = label_prompt("animal", 0)


def tasks(n: int) -> list[Task]:
    return [Task(f"{i}.jpg", f"{i}.jpg", f"image {i}".encode(), PROMPT) for i in range(n)]


def test_every_task_and_annotator_in_order(tmp_path: Path) -> None:
    a, b = Scripted("a"), Scripted("b", {"1.jpg": Outcome("refused")})
    with Journal(tmp_path / "j") as journal:
        found = annotate_all(tasks(5), [a, b], journal, concurrency=3)
    assert [(c.id, c.annotator) for c in found] == [(f"{i}.jpg", m) for i in range(5) for m in "ab"]
    assert found[3].outcome.status == "refused"
    assert found[4].outcome.text == "a saw 2.jpg"
    assert sorted(a.asked) == sorted(b.asked) == [f"{i}.jpg" for i in range(5)]


def test_a_rerun_asks_only_what_failed(tmp_path: Path) -> None:
    broken = Scripted("a", {"2.jpg": Outcome("error", "connection reset")})
    with Journal(tmp_path / "j") as journal:
        first = annotate_all(tasks(4), [broken], journal)
        assert first[2].outcome.status == "error"
    mended, other = Scripted("a"), Scripted("a", revision="2")
    with Journal(tmp_path / "j") as journal:
        found = annotate_all(tasks(4), [mended], journal)
        assert mended.asked == ["2.jpg"]
        assert [c.outcome.status for c in found] == ["ok"] * 4
        annotate_all(tasks(4), [other], journal)
        assert len(other.asked) == 4, "another revision is another question"


class Slow(Scripted):
    """Answers late images first; remembers how many it answered at a time."""

    now = most = 0

    async def annotate(self, request: Request) -> Outcome:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02 if request.id < "3" else 0.001)
        self.now -= 1
        return await super().annotate(request)


def test_requests_overlap_up_to_the_limit_and_images_are_read_as_needed(tmp_path: Path) -> None:
    slow, read = Slow("a"), []

    def reading() -> Iterator[Task]:
        for task in tasks(9):
            read.append(task.id)
            assert len(read) - len(slow.asked) <= 4
            yield task

    with Journal(tmp_path / "j") as journal:
        found = annotate_all(reading(), [slow], journal, concurrency=4)
    assert slow.most == 4
    assert slow.asked != sorted(slow.asked), "they finish out of order"
    assert [c.id for c in found] == [f"{i}.jpg" for i in range(9)], "and come back in order"


def test_each_annotator_has_requests_and_a_pace_of_its_own(tmp_path: Path) -> None:
    class Read(list):
        """Counts what is taken from it each time that it is walked through."""

        def __iter__(self) -> Iterator[Task]:
            counts.append(0)
            walk = len(counts) - 1
            for task in super().__iter__():
                counts[walk] += 1
                yield task

    class Blocked(Slow):
        concurrency = 2

        async def annotate(self, request: Request) -> Outcome:
            while len(quick.asked) < 9:
                await asyncio.sleep(0.001)
            held.append(counts[0])
            return await super().annotate(request)

    counts: list[int] = []
    held: list[int] = []
    quick, blocked = Slow("quick"), Blocked("blocked")
    with Journal(tmp_path / "j") as journal:
        found = annotate_all(Read(tasks(9)), [blocked, quick], journal, concurrency=3)
    assert held[0] == 2, "one that waits holds as many images as it has requests, while the other is through"
    assert (blocked.most, quick.most) == (2, 3)
    assert [(c.id, c.annotator) for c in found] == [
        (f"{i}.jpg", name) for i in range(9) for name in ("blocked", "quick")
    ]


def test_an_iterator_cannot_be_shared(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal, pytest.raises(TypeError, match="iterator"):
        annotate_all(iter(tasks(2)), [Scripted("a"), Scripted("b")], journal)


def test_connections_are_ended_and_the_rejected_are_not_asked_again(tmp_path: Path) -> None:
    class Closing(Scripted):
        closed = 0

        async def close(self) -> None:
            self.closed += 1

    a = Closing("a", {"0.jpg": Outcome("rejected", "too small")})
    for _ in range(2):
        with Journal(tmp_path / "j") as journal:
            found = annotate_all(tasks(2), [a], journal)
    assert a.closed == 2
    assert len(a.asked) == 2
    assert found[0].outcome == Outcome("rejected", "too small")
    assert not found[0].outcome.usable


def test_equal_images_under_way_are_asked_once(tmp_path: Path) -> None:
    slow = Slow("a")
    twins = [Task(name, name, b"same", PROMPT) for name in ("0.jpg", "1.jpg", "2.jpg")]
    with Journal(tmp_path / "j") as journal:
        found = annotate_all(twins, [slow], journal, concurrency=3)
    assert len(slow.asked) == 1
    assert len({c.outcome.text for c in found}) == 1


def test_a_failure_stops_the_run_as_itself_and_keeps_what_was_answered(tmp_path: Path) -> None:
    class Broken(Scripted):
        async def annotate(self, request: Request) -> Outcome:
            if request.id == "3.jpg":
                raise UserError("no key for the server", "set it")
            return await super().annotate(request)

    with Journal(tmp_path / "j") as journal:
        with pytest.raises(UserError, match="no key"):
            annotate_all(tasks(6), [Broken("a")], journal, concurrency=2)
        assert 3 <= len(journal) <= 4, "what came before is kept, the rest is not asked"


def test_who_is_away_stops_no_other_and_is_named_at_once_and_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    class Gone(Scripted):
        async def annotate(self, request: Request) -> Outcome:
            if request.id == "2.jpg":
                raise UserError(f"annotator {self.model}: no server", "start the servers", away=True)
            return await super().annotate(request)

    class Late(Slow):
        async def annotate(self, request: Request) -> Outcome:
            outcome = await super().annotate(request)
            said.append("without it, with late" in capsys.readouterr().err)
            return outcome

    said: list[bool] = []
    late = Late("late")
    with Journal(tmp_path / "j") as journal:
        with pytest.raises(UserError, match="annotator a: no server; annotator b: no server") as caught:
            annotate_all(tasks(9), [Gone("a"), late, Gone("b")], journal, concurrency=2)
        assert caught.value.cure == "start the servers"
        assert type(caught.value) is UserError, "the stage knows it by this name"
        assert len(late.asked) == 9, "there, and through"
        assert any(said), "told while it still works"
        a, b, late = Scripted("a"), Scripted("b"), Scripted("late")
        found = annotate_all(tasks(9), [a, late, b], journal)
    assert late.asked == []
    assert {"2.jpg"} < set(a.asked) == set(b.asked) < {task.id for task in tasks(9)}
    assert [c.outcome.status for c in found] == ["ok"] * 27


def test_a_mistake_stops_the_others_at_once_also_behind_one_that_is_away(tmp_path: Path) -> None:
    class Failing(Scripted):
        def __init__(self, model: str, failure: Exception, after: float) -> None:
            super().__init__(model)
            self.failure, self.after = failure, after

        async def annotate(self, request: Request) -> Outcome:
            await asyncio.sleep(self.after)
            raise self.failure

    slow = Slow("slow")
    gone, wrong = (
        Failing("a", UserError("nobody there", away=True), 0.001),
        Failing("b", UserError("wrong key", "another"), 0.01),
    )
    with Journal(tmp_path / "j") as journal, pytest.raises(UserError, match="wrong key"):
        annotate_all(tasks(60), [gone, slow, wrong], journal, concurrency=1)
    assert len(slow.asked) < 20


def test_a_run_that_stops_counts_as_known_what_the_journal_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(Scripted):
        async def annotate(self, request: Request) -> Outcome:
            await asyncio.sleep(0.01)  # all have their request under way when the first fails
            raise UserError("no server", "start it")

    class Bar:
        last = ""

        def set_postfix_str(self, text: str, refresh: bool = True) -> None:
            Bar.last = text

        def update(self) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr("fakevlm.inference.driver.bar", lambda *_, **__: Bar())
    with Journal(tmp_path / "j") as journal:
        annotate_all(tasks(10), [Scripted("a")], journal)
        assert Bar.last == ""
        with pytest.raises(UserError, match="no server"):
            annotate_all(tasks(30), [Gone("a")], journal, concurrency=8)
    assert Bar.last == "10 from the journal"


def test_runs_inside_a_running_loop_as_in_jupyter(tmp_path: Path) -> None:
    async def notebook() -> int:
        with Journal(tmp_path / "j") as journal:
            return len(annotate_all(tasks(2), [Scripted("a")], journal))

    assert asyncio.run(notebook()) == 2
