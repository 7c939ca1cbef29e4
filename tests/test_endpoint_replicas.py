"""Several servers of one model: shared work, dead and dying ones, those that ask to wait; when a run stops."""

import asyncio
import contextlib
import json
import threading
import time
from pathlib import Path

import pytest

from fakevlm.errors import UserError
from fakevlm.inference.driver import annotate_all
from fakevlm.inference.endpoint import EndpointAnnotator
from fakevlm.inference.journal import Journal
from fakevlm.inference.replicas import Pool, Replica, backoff, retry_after
from misbehaving import requests, serving
from served import ask, entry, free_port, tasks

pytestmark = pytest.mark.usefixtures("quick_servers")


def test_two_replicas_share_the_work(tmp_path: Path) -> None:
    logs = tmp_path / "a", tmp_path / "b"
    with serving(logs[0], latency=0.02) as a, serving(logs[1], latency=0.02) as b:
        found = ask(tmp_path / "j", tasks(["ok"] * 40), entry(a, b))
    assert {c.outcome.status for c in found} == {"ok"}
    shares = [len(requests(log)) for log in logs]
    assert sum(shares) == 40
    assert min(shares) >= 12


def test_of_two_replicas_one_is_dead(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log) as url:
        dead = f"http://127.0.0.1:{free_port()}/v1"
        found = ask(tmp_path / "j", tasks(["ok"] * 60), entry(dead, url))
    assert {c.outcome.status for c in found} == {"ok"}
    assert len(found) == len(requests(log)) == 60


def test_a_replica_that_dies_on_the_way(tmp_path: Path) -> None:
    mortal = contextlib.ExitStack()
    with mortal, serving(tmp_path / "b", latency=0.02) as url:
        doomed = mortal.enter_context(serving(tmp_path / "a", latency=0.02))

        class Killing(EndpointAnnotator):
            async def annotate(self, request):
                if request.id == "20.jpg":
                    mortal.close()  # with requests of ours under way there
                return await super().annotate(request)

        with Journal(tmp_path / "j") as book:
            found = annotate_all(tasks(["ok"] * 60), [Killing(entry(doomed, url), 1)], book, concurrency=8)
    assert [c.outcome.status for c in found] == ["ok"] * 60
    assert len((tmp_path / "j").read_text().splitlines()) == 60
    assert requests(tmp_path / "a"), "it had its share before"


def test_a_replica_that_asks_to_wait_rests_and_the_other_works_on(tmp_path: Path) -> None:
    logs = tmp_path / "a", tmp_path / "b"
    with serving(logs[0], latency=0.02) as a, serving(logs[1], latency=0.05, good=True) as b:
        found = ask(tmp_path / "j", tasks(["429after*1"] + ["ok"] * 40), entry(a, b), concurrency=1)
    assert {c.outcome.status for c in found} == {"ok"}
    first, second = requests(logs[0]), requests(logs[1])
    assert first[0]["due"] == "429after", "of two that are free the first is taken"
    back = first[1]["time"] if len(first) > 1 else float("inf")
    assert back - first[0]["time"] >= 1.0
    assert sum(r["time"] < back for r in second) >= 5, "the other works on meanwhile"


def test_retry_after_is_kept_to(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as url:
        started = time.monotonic()
        found = ask(tmp_path / "j", tasks(["429after*1"]), entry(url))
        assert found[0].outcome.status == "ok"
        assert time.monotonic() - started >= 1.0


def test_nobody_there_stops_the_run(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(UserError, match="no server can be reached at") as caught:
        ask(tmp_path / "j", tasks(["ok"] * 200), entry(dead, retries=0))
    assert "start the servers" in str(caught.value)
    assert (tmp_path / "j").read_text() == "", "it is no image's fault"


def test_models_may_be_served_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("fakevlm.inference.replicas._NONE_YET", 0.2)
    wanted, port = tasks(["ok"] * 30), free_port()
    away = entry(f"http://127.0.0.1:{port}/v1", name="InternVL2", model="internvl")
    with serving(tmp_path / "a", latency=0.15) as url:
        with pytest.raises(UserError, match="annotator InternVL2: no server can be reached at"):
            ask(tmp_path / "j", wanted, entry(url, name="Qwen2-VL"), away, concurrency=2)
        assert len(requests(tmp_path / "a")) == 30, "whoever is there finishes"
    said = capsys.readouterr().err
    assert f"annotator InternVL2: http://127.0.0.1:{port}/v1 cannot be reached; all requests wait" in said
    assert "the run goes on without it, with Qwen2-VL" in said
    with serving(tmp_path / "b", port=port):
        found = ask(tmp_path / "j", wanted, entry(url, name="Qwen2-VL"), away)
    assert [c.outcome.status for c in found] == ["ok"] * 60


def _rising(tmp_path: Path, port: int, after: float, open_servers: contextlib.ExitStack) -> threading.Timer:
    """Starts a server on a port after some seconds."""
    timer = threading.Timer(
        after, lambda: open_servers.enter_context(serving(tmp_path / "log", latency=0.02, port=port))
    )
    timer.start()
    return timer


def test_a_server_that_is_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fakevlm.inference.replicas._NONE_YET", 30.0)
    port = free_port()
    with contextlib.ExitStack() as servers:
        timer = _rising(tmp_path, port, 0.5, servers)
        found = ask(tmp_path / "j", tasks(["ok"] * 40), entry(f"http://127.0.0.1:{port}/v1", retries=0))
        timer.join()
    assert [c.outcome.status for c in found] == ["ok"] * 40
    assert len(requests(tmp_path / "log")) == 40


def _restarting(tmp_path: Path, after: float | None) -> tuple[list[str], int]:
    """Statuses of 60 images whose only server is killed at the twentieth, and started anew so many seconds later."""
    port = free_port()
    with contextlib.ExitStack() as servers:
        mortal = servers.enter_context(contextlib.ExitStack())
        url = mortal.enter_context(serving(tmp_path / "first", latency=0.02, port=port))
        timers = []

        class Killing(EndpointAnnotator):
            async def annotate(self, request):
                if request.id == "20.jpg":
                    mortal.close()  # with requests of ours under way there
                    if after is not None:
                        timers.append(_rising(tmp_path, port, after, servers))
                return await super().annotate(request)

        with Journal(tmp_path / "j") as book:
            found = annotate_all(tasks(["ok"] * 60), [Killing(entry(url, retries=1), 1)], book, concurrency=8)
        for timer in timers:
            timer.join()
    return [c.outcome.status for c in found], len(requests(tmp_path / "log"))


def test_a_server_that_is_started_anew_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(
        "fakevlm.inference.replicas._NONE_YET", 0.0
    )  # the patience for one that was there is another
    statuses, asked_anew = _restarting(tmp_path, after=0.5)
    assert statuses == ["ok"] * 60
    assert 40 <= asked_anew < 60
    said = capsys.readouterr().err
    assert said.count("cannot be reached; all requests wait, 30 s at most") == 1
    assert said.count("can be reached again") == 1


def test_a_server_that_does_not_come_back_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fakevlm.inference.replicas._NONE_ANY_MORE", 0.5)
    with pytest.raises(UserError, match="no server can be reached at"):
        _restarting(tmp_path, after=None)
    lines = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]
    assert {line["status"] for line in lines} == {"ok"}, "what waited is asked by the next run"


def test_a_server_that_only_fails_is_named_and_stops_the_run_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("fakevlm.inference.replicas._NONE_ANY_MORE", 1.0)
    with (
        serving(tmp_path / "log") as url,
        pytest.raises(UserError, match=r"nothing but failures.*out of memory"),
    ):
        ask(tmp_path / "j", tasks(["500"] * 400), entry(url))
    said = capsys.readouterr().err
    assert said.count("fails again and again") == 1
    assert "one request at a time" in said
    lines = [json.loads(line) for line in (tmp_path / "j").read_text().splitlines()]
    assert {line["status"] for line in lines} <= {"error"}
    assert len(lines) < 100, "the others are asked by the next run"


def test_while_one_replica_may_be_there_nobody_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> list[bool]:
        pool = Pool({"a": None, "b": None}, met=True)
        clock = [0.0]
        pool._now = lambda: clock[0]
        first, second = pool.replicas
        hopeless = []
        pool.failed(first, unreachable=True)
        clock[0] = 1000.0
        hopeless.append(pool.hopeless())  # the other was not tried: a long request may be under way there
        pool.failed(second, unreachable=True)
        hopeless.append(pool.hopeless())
        clock[0] = 1029.0
        hopeless.append(pool.hopeless())
        clock[0] = 1030.0
        hopeless.append(pool.hopeless())
        pool.failed(second)  # somebody is there, but gives no answer
        hopeless.append(pool.hopeless())
        pool.succeeded(second)
        pool.failed(second)
        hopeless.append(pool.hopeless())
        return hopeless

    assert asyncio.run(go()) == [False, False, False, True, True, False]


def test_a_server_that_dies_of_each_request_and_is_started_anew_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("fakevlm.inference.replicas._NONE_ANY_MORE", 900.0)

    async def go() -> float:
        pool = Pool({"a": None}, met=True)
        clock = [0.0]
        pool._now = lambda: clock[0]
        (server,) = pool.replicas
        while not pool.hopeless() and clock[0] < 7200.0:
            clock[0] += (
                60.0  # three minutes to load, in which its port is shut; then it takes a request and dies
            )
            pool.failed(server, unreachable=clock[0] % 240.0 > 0.0)
        return clock[0]

    assert asyncio.run(go()) == 960.0, "a quarter of an hour after it was first found away"
    said = capsys.readouterr().err
    assert "a cannot be reached; all requests wait, 900 s at most" in said
    assert "a cannot be reached; all requests wait, 660 s at most" in said, "what is left, not all of it anew"


def test_retry_after_in_all_its_forms() -> None:
    from datetime import UTC, datetime, timedelta
    from email.utils import format_datetime

    assert retry_after({"retry-after": "7"}) == 7.0
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < retry_after({"retry-after": date}) <= 30
    for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "-3"}, {"retry-after": "nan"}):
        assert retry_after(nothing) == 0.0
    assert retry_after({"retry-after": "1e9"}) == 600.0, "nobody waits for ever"


def test_waits_grow_and_differ() -> None:
    assert all(0 <= backoff(n) <= 30 for n in range(50))
    assert len({backoff(4) for _ in range(20)}) == 20


def test_a_failing_replica_rests_and_one_request_probes_it() -> None:
    replica = Replica("u", None)
    replica.failed(now=0.0)
    assert replica.ready(0.0), "one failure may be the image's"
    replica.failed(now=0.0)
    replica.failed(now=0.0)
    assert not replica.ready(0.01)
    later = replica.until
    replica.failed(now=0.01)
    assert replica.until == later, "requests under way together fail together"
    replica.busy = 1
    assert not replica.ready(later), "a probe is under way"
    replica.busy = 0
    assert replica.ready(later)
    replica.succeeded()
    replica.busy = 5
    assert replica.ready(later)
    replica.failed(now=10.0, wait=4.0)
    assert not replica.ready(13.9)
    assert replica.ready(14.0)
