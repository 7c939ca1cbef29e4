"""Asking: bounded, concurrent, in order, every request once; what was answered is kept."""

import asyncio
import time
from multiprocessing import get_context
from pathlib import Path

import pytest

from fakevlm.annotation.prompts import label_prompt
from fakevlm.cache import Cache
from fakevlm.errors import UserError
from fakevlm.inference.ask import Outcome, Request
from served import PROMPT, answered, ask, images
from smallworld import Scripted, annotate, content, make_world


class Slow(Scripted):
    """Answers late images first; remembers how many it answered at a time."""

    now = most = 0

    async def annotate(self, request: Request) -> Outcome:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02 if request.id < "3" else 0.001)
        self.now -= 1
        return await super().annotate(request)


class Failing(Scripted):
    """Raises an error at one image."""

    closed = False

    def __init__(self, model: str, error: UserError, at: str, delay: float = 0.0) -> None:
        super().__init__(model, delay=delay)
        self.error, self.at = error, at

    async def annotate(self, request: Request) -> Outcome:
        if request.id == self.at:
            raise self.error
        return await super().annotate(request)

    async def close(self) -> None:
        self.closed = True


def test_key_is_what_decides_the_answer() -> None:
    fields = {"id": "a", "path": "a", "image": b"pixels", "prompt": PROMPT, "model": "m", "revision": "r"}
    fields["sampling"] = {"temperature": 0.0, "seed": 1}
    key, tagged = Request(**fields).key, label_prompt("animal", 0, tagged=True)
    same = {"id": "b", "path": "b", "sampling": {"seed": 1, "temperature": 0.0}}
    assert Request(**fields | same).key == key, "an image under another name"
    changes = [("image", b"other"), ("prompt", label_prompt("animal", 1)), ("prompt", tagged), ("model", "n")]
    changes += [("revision", "s"), ("sampling", {"temperature": 0.5, "seed": 1})]
    assert len({key} | {Request(**fields | {name: value}).key for name, value in changes}) == 7


def stage(file: Path, world: Path, out: Path, delay: float = 0.0) -> list[tuple[str, str]]:
    """Run the stage; return which annotator was asked about which image."""
    annotators = [Scripted(name, delay=delay) for name in "ab"]
    with Cache(file) as store:
        annotate(world, out, store, annotators)
    return [(each.model, key) for each in annotators for key in each.asked]


@pytest.mark.slow
def test_killed_in_the_middle_the_stage_resumes_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    world, file, out, calm = (tmp_path / name for name in ("world", "killed/answers", "killed/out", "calm"))
    make_world(world)
    doomed = get_context("spawn").Process(target=stage, args=(file, world, out, 0.05))
    doomed.start()
    while not file.exists() or answered(file) < 40:
        assert doomed.is_alive()
        time.sleep(0.005)
    doomed.kill()
    doomed.join()
    assert not (out / "metrics.json").exists()
    before = answered(file)
    undisturbed = stage(calm / "answers", world, calm / "out")
    assert 40 <= before < len(undisturbed) == len(set(undisturbed))
    assert len(stage(file, world, out)) == len(undisturbed) - before, "the rest is asked, and no more"
    assert stage(file, world, out) == [], "a rerun asks nothing"
    assert content(out) == content(calm / "out")


def test_requests_overlap_up_to_the_limit_and_images_are_read_as_needed() -> None:
    class Reading(list):
        def __getitem__(self, n: int) -> Request:
            read.append(n)
            assert len(read) - len(slow.asked) <= 4
            return super().__getitem__(n)

    slow, read = Slow("a"), []
    outcomes = ask(None, Reading(images(["ok"] * 9)), slow, concurrency=4)
    assert slow.most == 4
    assert slow.asked != sorted(slow.asked), "they finish out of order"
    assert [each.text for each in outcomes] == [f"a saw {i}.jpg" for i in range(9)], "and come back in order"


def test_each_annotator_has_requests_and_a_pace_of_its_own() -> None:
    class Blocked(Slow):
        concurrency = 2

        async def annotate(self, request: Request) -> Outcome:
            while len(quick.asked) < 9:
                await asyncio.sleep(0.001)
            return await super().annotate(request)

    quick, blocked = Slow("quick"), Blocked("blocked")
    outcomes = ask(None, images(["ok"] * 9), blocked, quick, concurrency=3)
    assert (blocked.most, quick.most) == (2, 3)
    assert [each.text for each in outcomes[:3:2]] == ["blocked saw 0.jpg", "blocked saw 1.jpg"]


def test_equal_images_under_way_are_asked_once_also_in_a_running_loop_as_in_jupyter() -> None:
    slow = Slow("a")
    twins = [Request(name, name, b"same", PROMPT) for name in ("0.jpg", "1.jpg", "2.jpg")]

    async def notebook() -> list[Outcome]:
        return ask(None, twins, slow, concurrency=3)

    assert len(set(asyncio.run(notebook()))) == 1
    assert len(slow.asked) == 1


def test_who_is_away_stops_no_other_and_is_named_at_once_and_in_the_end(tmp_path: Path, capsys) -> None:
    class Late(Slow):
        async def annotate(self, request: Request) -> Outcome:
            outcome = await super().annotate(request)
            messages.append("without it, with late" in capsys.readouterr().err)
            return outcome

    def away(name: str) -> Failing:
        error = UserError(f"annotator {name}: no server", "start the servers", away=True)
        return Failing(name, error, at="2.jpg")

    messages: list[bool] = []
    late = Late("late")
    with pytest.raises(UserError, match="annotator a: no server; annotator b: no server") as caught:
        ask(tmp_path / "c", images(["ok"] * 9), away("a"), late, away("b"), concurrency=2)
    assert caught.value.cure == "start the servers"
    assert len(late.asked) == 9, "there, and through"
    assert any(messages), "told while it still works"


def test_a_mistake_stops_all_as_itself_also_behind_one_that_is_away(tmp_path: Path) -> None:
    slow, away = Slow("slow"), Failing("a", UserError("nobody there", away=True), at="0.jpg")
    wrong = Failing("b", UserError("wrong key", "another"), at="5.jpg", delay=0.002)
    with pytest.raises(UserError, match="wrong key"):
        ask(tmp_path / "c", images(["ok"] * 60), away, slow, wrong, concurrency=1)
    assert away.closed
    assert wrong.closed
    assert len(slow.asked) < 20
    assert answered(tmp_path / "c") == len(slow.asked) + 5, "what came before is kept"
