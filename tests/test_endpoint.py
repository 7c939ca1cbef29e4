"""Annotators behind servers, against a server process that misbehaves: every image ends with exactly one outcome."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from fakevlm.annotation.annotators import make_annotators
from fakevlm.annotation.driver import Candidate, Task, annotate_all
from fakevlm.annotation.endpoint import EndpointAnnotator, data_url
from fakevlm.annotation.journal import Journal, read_answers
from fakevlm.annotation.prompts import label_prompt
from fakevlm.annotation.replicas import Replica, backoff, retry_after
from fakevlm.errors import UserError
from fakevlm.params import Endpoint
from imports import imported, modules, reached
from misbehaving import image, requests, serving

PROMPT = label_prompt("animal", 0)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fakevlm.annotation.replicas._BACKOFF", 0.02)
    monkeypatch.setattr("fakevlm.annotation.replicas._FIRST_REST", 0.05)
    monkeypatch.setattr("fakevlm.annotation.replicas._LONGEST_REST", 0.2)


def entry(*urls: str, **changes: Any) -> Endpoint:
    values = {
        "name": "Qwen2-VL",
        "backend": "endpoint",
        "model": "Qwen/Qwen2-VL-72B-Instruct",
        "revision": "abc",
        "urls": list(urls),
        "max_tokens": 50,
        "temperature": 0.0,
        "timeout": 5.0,
        "retries": 3,
    }
    return Endpoint(**{**values, **changes})


def tasks(behaviours: list[str]) -> list[Task]:
    return [
        Task(f"{n}.jpg", f"{n}.jpg", image(behaviour, name=str(n)), PROMPT)
        for n, behaviour in enumerate(behaviours)
    ]


def ask(journal: Path, wanted: list[Task], *entries: Endpoint, concurrency: int = 8) -> list[Candidate]:
    annotators = make_annotators(entries, {}, seed=17)
    with Journal(journal) as book:
        return annotate_all(wanted, annotators, book, concurrency, total=len(wanted))


EXPECTED = {
    "ok": "ok",
    "empty": "empty",
    "null": "empty",
    "length": "truncated",
    "filter": "refused",
    "refusal": "refused",
    "filtered": "refused",
    "400": "rejected",
    "413": "rejected",
    "429*2": "ok",
    "429after*1": "ok",
    "429": "error",
    "500*3": "ok",
    "500": "error",
    "503*1": "ok",
    "cut*1": "ok",
    "cut": "error",
    "reset*2": "ok",
    "reset": "error",
    "drip*1": "ok",
    "hang*1": "ok",
    "hang": "error",
    "half*1": "ok",
    "half": "error",
    "nochoice*1": "ok",
    "badjson*1": "ok",
    "badjson": "error",
    "html": "error",
    "500*1,429*1,cut*1": "ok",
}
FINAL = [b for b, status in EXPECTED.items() if status not in ("error",) and "*" not in b]


@pytest.mark.slow
def test_every_image_ends_with_exactly_one_outcome_and_a_rerun_asks_only_what_failed(tmp_path: Path) -> None:
    wanted = tasks(list(EXPECTED))
    log, journal = tmp_path / "log", tmp_path / "journal.jsonl"
    with serving(log) as url:
        found = ask(journal, wanted, entry(url, timeout=0.8))
        assert {c.id: c.outcome.status for c in found} == dict(
            zip([task.id for task in wanted], EXPECTED.values(), strict=True)
        )
        assert [c.id for c in found] == [task.id for task in wanted]
        assert {c.annotator for c in found} == {"Qwen2-VL"}
        by = dict(zip(EXPECTED, (c.outcome.text for c in found), strict=True))
        assert by["ok"].endswith("is waxy.")
        assert by["length"] == "The fur is wa"
        assert by["refusal"] == "I will not judge people."
        assert "the image is too small" in by["400"]
        assert by["413"].startswith("status 413")
        assert "out of memory" in by["500"]
        assert "within 0.8 s" in by["hang"]
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        assert sorted(line["id"] for line in lines) == sorted(task.id for task in wanted), "one line an image"

        asked = requests(log)
        per_image = {task.id: sum(r["image"] == _digest(task) for r in asked) for task in wanted}
        for task, behaviour in zip(wanted, EXPECTED, strict=True):
            if EXPECTED[behaviour] == "error":
                assert per_image[task.id] == 4, f"{behaviour}: retries times more than once"
            if behaviour in FINAL:
                assert per_image[task.id] == 1, f"{behaviour}: an answer is not asked again"

        before = len(asked)
        again = ask(journal, wanted, entry(url, timeout=0.8))
        repeated = {r["image"] for r in requests(log)[before:]}
        failed = {_digest(task) for task, c in zip(wanted, found, strict=True) if c.outcome.status == "error"}
        assert repeated == failed
        assert [c.outcome.status for c in again] == list(EXPECTED.values())


def _digest(task: Task) -> str:
    import hashlib

    return hashlib.sha256(task.image).hexdigest()


def test_images_go_as_data_with_the_prompt_the_sampling_and_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_KEY", "sk-secret-of-ours")
    wanted, log, journal = tasks(["ok"]), tmp_path / "log", tmp_path / "j"
    with serving(log) as url:
        ask(journal, wanted, entry(url, api_key_env="VLM_KEY", seed=3))
        ask(tmp_path / "k", wanted, entry(url))
    with_key, without = requests(log)
    assert with_key["kind"] == "data:image/jpeg;base64"
    assert with_key["image"] == _digest(wanted[0]), "the very bytes"
    assert with_key["prompt"] == [PROMPT.text]
    assert with_key["asked"] == {
        "model": "Qwen/Qwen2-VL-72B-Instruct",
        "max_tokens": 50,
        "temperature": 0.0,
        "seed": 3,
    }
    assert with_key["key"] == "Bearer sk-secret-of-ours"
    assert without["asked"]["seed"] == 17, "the profile's"
    assert "somebody" not in without["key"], "a key of another service is nobody's business"
    assert "sk-" not in journal.read_text()


def test_the_miniature_pays_nothing_for_it() -> None:
    for name in ("fakeclue", "annotators", "driver", "endpoint", "estimate"):
        file = modules()[f"fakevlm.annotation.{name}"]
        files = [file, *(modules()[inner] for inner in reached(file, lazy=False))]
        assert not {"openai", "httpx2"} & set().union(*(imported(each, lazy=False) for each in files)), name


def test_the_type_of_an_image_is_read_from_its_bytes() -> None:
    import io

    from PIL import Image

    for kind, mime in {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}.items():
        out = io.BytesIO()
        Image.new("L", (8, 8)).save(out, kind)
        assert data_url(out.getvalue()).startswith(f"data:{mime};base64,")
    with pytest.raises(ValueError, match="not an image"):
        data_url(b"GIF? no")


def test_what_is_no_image_is_rejected_without_asking(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log) as url:
        found = ask(tmp_path / "j", [Task("a", "a", b"torn", PROMPT)], entry(url))
    assert found[0].outcome.status == "rejected"
    assert requests(log) == []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


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
        dead = f"http://127.0.0.1:{_free_port()}/v1"
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
    dead = f"http://127.0.0.1:{_free_port()}/v1"
    with pytest.raises(UserError, match="no server answers at") as caught:
        ask(tmp_path / "j", tasks(["ok"] * 200), entry(dead, retries=0))
    assert "start the servers" in str(caught.value)
    assert len((tmp_path / "j").read_text().splitlines()) < 30


@pytest.mark.parametrize(("status", "cure"), [("401", "VLM_KEY"), ("404", "/models")])
def test_a_users_mistake_stops_the_run_and_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, cure: str
) -> None:
    monkeypatch.setenv("VLM_KEY", "sk-secret-of-ours")
    with serving(tmp_path / "log") as url:
        with pytest.raises(UserError, match=f"answers {status}") as caught:
            ask(tmp_path / "j", tasks([status] * 100), entry(url, api_key_env="VLM_KEY"), concurrency=4)
        assert cure in str(caught.value)
        assert "secret" not in str(caught.value)
        assert len(requests(tmp_path / "log")) <= 4
    assert (tmp_path / "j").read_text() == ""


def test_when_all_is_rejected_the_run_stops(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as url:
        with pytest.raises(UserError, match="too small"):
            ask(tmp_path / "j", tasks(["400"] * 150), entry(url))
        found = ask(tmp_path / "k", tasks(["ok"] + ["400"] * 150), entry(url), concurrency=1)
    assert [c.outcome.status for c in found] == ["ok"] + ["rejected"] * 150, "some images are answered: go on"


def test_a_key_that_is_not_set_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLM_KEY", raising=False)
    with pytest.raises(UserError, match="VLM_KEY is not set"):
        ask(tmp_path / "j", tasks(["ok"]), entry("http://127.0.0.1:1/v1", api_key_env="VLM_KEY"))


def test_a_slow_model_does_not_hold_up_the_others(tmp_path: Path) -> None:
    log = tmp_path / "fast"
    with serving(log) as fast, serving(tmp_path / "slow", latency=0.3) as slow:
        entries = (
            entry(slow, name="slow", model="slow", concurrency=2),
            entry(fast, name="fast", model="fast", concurrency=4),
        )
        wanted, ended = tasks(["ok"] * 12), []

        class Watching(EndpointAnnotator):
            async def annotate(self, request):
                outcome = await super().annotate(request)
                ended.append(self.name)
                return outcome

        with Journal(tmp_path / "j") as book:
            found = annotate_all(wanted, [Watching(each, 1) for each in entries], book)
    assert [(c.id, c.annotator) for c in found] == [(t.id, n) for t in wanted for n in ("slow", "fast")]
    assert ended.index("slow") >= 8, "the fast one is nearly through before the slow one's first answer"


def test_progress_tells_rate_cost_and_what_remains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def talkative(*args: Any, **options: Any) -> tqdm:
        return tqdm(*args, **{**options, "mininterval": 0, "delay": 0})

    monkeypatch.setattr("fakevlm.progress.tqdm", talkative)
    spec = {"price_input": 1.0, "price_output": 50.0}
    with serving(tmp_path / "log", latency=0.02) as url:
        ask(tmp_path / "j", tasks(["ok"] * 20 + ["500"]), entry(url, retries=1, **spec), concurrency=1)
    lines = capsys.readouterr().err.splitlines()
    assert re.search(
        r"annotate Qwen2-VL: .* 10/21 \[\d+:\d+<\d+:\d+, .*caption.*, cost 0.02, 300\+40 tokens each",
        "\n".join(lines),
    )
    assert "1 failed, to be asked again by the next run" in lines[-1]


def test_one_model_under_two_names_is_asked_once(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as url:
        ask(tmp_path / "j", tasks(["ok"] * 3), entry(url))
        found = ask(tmp_path / "j", tasks(["ok"] * 3), entry(url, name="renamed"))
        assert {c.annotator for c in found} == {"renamed"}
        assert len(requests(tmp_path / "log")) == 3
        ask(tmp_path / "j", tasks(["ok"] * 3), entry(url, revision="other"))
        assert len(requests(tmp_path / "log")) == 6, "another revision is another question"


CLIENT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_endpoint as t
t.ask(Path(sys.argv[2]), t.tasks(["ok"] * 60), t.entry(sys.argv[3]), concurrency=4)
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_repeats_nothing_that_was_answered(tmp_path: Path) -> None:
    journal, log = tmp_path / "journal.jsonl", tmp_path / "log"
    with serving(log, latency=0.05) as url:
        here = str(Path(__file__).parent)
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, here, journal, url], stderr=subprocess.DEVNULL
        )
        try:
            deadline = time.monotonic() + 90
            while not journal.exists() or journal.read_bytes().count(b"\n") < 15:
                assert client.poll() is None, "the client ended before it could be killed"
                assert time.monotonic() < deadline
                time.sleep(0.005)
        finally:
            client.send_signal(signal.SIGKILL)
            client.wait()
        answered, before = read_answers(journal), len(requests(log))
        assert 15 <= len(answered) < 60
        found = ask(journal, tasks(["ok"] * 60), entry(url))
        later = [r["image"] for r in requests(log)[before:]]
    assert [c.outcome.status for c in found] == ["ok"] * 60
    assert len(later) == len(set(later)) == 60 - len(answered), "only what had no answer, once"
    assert len(read_answers(journal)) == 60


# ── a real server ────────────────────────────────────────────────────────────────────────────────────────────────────

SERVE = "import sys; from transformers.cli.transformers import main; sys.argv[:1] = ['transformers', 'serve']; main()"


@pytest.mark.slow
def test_a_real_server_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.utils.import_utils import is_serve_available

    import tinyqwen

    if not is_serve_available():
        pytest.skip("transformers[serving] is not installed")
    model, port, log = str(tinyqwen.build(tmp_path / "qwen")), _free_port(), (tmp_path / "log").open("w")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = [model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    server = subprocess.Popen([sys.executable, "-c", SERVE, *options], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 180
        while server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.2)
        else:
            pytest.fail((tmp_path / "log").read_text())
        spec = entry(f"http://127.0.0.1:{port}/v1", model=model, timeout=120.0)
        annotator = EndpointAnnotator(spec, seed=17)
        with Journal(tmp_path / "j") as book:
            found = annotate_all(tasks(["", "", "ok"]), [annotator], book, concurrency=2)
        assert [c.outcome.status for c in found] == ["ok"] * 3, found
        assert all(len(c.outcome.text) == 1 and c.outcome.text.islower() for c in found)
        assert annotator.spent.requests == 3
        assert annotator.spent.tokens_in > 3 * 100, "the prompt was read"
    finally:
        server.kill()
        server.wait()
        log.close()


# ── replicas ─────────────────────────────────────────────────────────────────────────────────────────────────────────


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
