"""Several servers of one model: shared work, dead and dying ones, those that ask to wait; when a run stops."""

import contextlib
import time
from pathlib import Path

import pytest

from fakevlm.annotation.driver import annotate_all
from fakevlm.annotation.endpoint import EndpointAnnotator
from fakevlm.annotation.journal import Journal
from fakevlm.annotation.replicas import Replica, backoff, retry_after
from fakevlm.errors import UserError
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
    with pytest.raises(UserError, match="no server answers at") as caught:
        ask(tmp_path / "j", tasks(["ok"] * 200), entry(dead, retries=0))
    assert "start the servers" in str(caught.value)
    assert len((tmp_path / "j").read_text().splitlines()) < 30


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
