"""Models behind servers, against a server that misbehaves: every image ends with exactly one outcome."""

import asyncio
import base64
import contextlib
import hashlib
import io
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from tqdm import tqdm

from fakevlm.data.records import decode
from fakevlm.errors import UserError
from fakevlm.inference.ask import Outcome, Request
from fakevlm.inference.servers import Client, Pool, Replica, _Failure, _retry_after, data_url
from misbehaving import requests, serving
from served import PROMPT, answered, ask, entry, free_port, images, kill_after, statuses

pytestmark = pytest.mark.usefixtures("quick_servers")

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


def digest(request: Request) -> str:
    return hashlib.sha256(request.image).hexdigest()


# ── outcomes ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_every_image_ends_with_exactly_one_outcome_and_a_rerun_asks_only_what_failed(tmp_path: Path) -> None:
    wanted = images(list(EXPECTED))
    log, file = tmp_path / "log", tmp_path / "answers"
    with serving(log) as url:
        outcomes = ask(file, wanted, entry(url, timeout=0.8))
        assert dict(zip(EXPECTED, statuses(outcomes), strict=True)) == EXPECTED
        texts = dict(zip(EXPECTED, (each.text for each in outcomes), strict=True))
        assert texts["ok"].endswith("is waxy.")
        assert texts["length"] == "The fur is wa"
        assert texts["refusal"] == "I will not judge people."
        assert "the image is too small" in texts["400"]
        assert "413" in texts["413"]
        assert "out of memory" in texts["500"]
        assert "within 0.8 s" in texts["hang"]

        log_before = requests(log)
        times = {
            b: sum(r["image"] == digest(w) for r in log_before) for b, w in zip(EXPECTED, wanted, strict=True)
        }
        for behaviour, status in EXPECTED.items():
            if status == "error":
                assert times[behaviour] == 4, f"{behaviour}: retries times more than once"
            elif "*" not in behaviour:
                assert times[behaviour] == 1, f"{behaviour}: an answer is not asked again"

        again = ask(file, wanted, entry(url, timeout=0.8))
        repeated = {r["image"] for r in requests(log)[len(log_before) :]}
        failed = {digest(w) for w, each in zip(wanted, outcomes, strict=True) if each.status == "error"}
        assert repeated == failed
        assert again == outcomes


def test_images_go_as_data_with_the_prompt_the_sampling_and_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLM_KEY", "sk-secret-of-ours")
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    wanted, log, file = images(["ok"]), tmp_path / "log", tmp_path / "answers"
    with serving(log) as url:
        ask(file, wanted, entry(f"{url}/", api_key_env="VLM_KEY", seed=3))
        ask(None, wanted, entry(url))
    with_key, without = requests(log)
    assert with_key["kind"] == "data:image/jpeg;base64"
    assert with_key["image"] == digest(wanted[0]), "the very bytes"
    assert with_key["prompt"] == [PROMPT.text]
    assert with_key["asked"] == {
        "model": "Qwen/Qwen2-VL-72B-Instruct",
        "max_tokens": 50,
        "temperature": 0.0,
        "seed": 3,
    }
    assert with_key["key"] == "Bearer sk-secret-of-ours"
    assert without["asked"]["seed"] == 17, "the profile's"
    assert without["key"] is None, "a key of another service is nobody's business"
    assert b"sk-" not in file.read_bytes()


def test_the_miniature_pays_nothing_for_it() -> None:
    modules = "sys, fakevlm.annotation.fakeclue, fakevlm.inference.served"
    code = f"import {modules}; assert 'openai' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_no_image_is_rejected_without_asking(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log) as url:
        outcomes = ask(None, [Request("a", "a", b"torn", PROMPT)], entry(url))
    assert statuses(outcomes) == ["rejected"]
    assert requests(log) == []


@pytest.mark.parametrize(("status", "cure"), [("401", "VLM_KEY"), ("404", "/models")])
def test_a_users_mistake_stops_the_run_and_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, cure: str
) -> None:
    monkeypatch.setenv("VLM_KEY", "sk-secret-of-ours")
    file = tmp_path / "answers"
    with serving(tmp_path / "log") as url:
        with pytest.raises(UserError, match=f"answers {status}") as caught:
            ask(file, images([status] * 100), entry(url, api_key_env="VLM_KEY"), concurrency=4)
        assert cure in str(caught.value)
        assert "secret" not in str(caught.value)
        assert len(requests(tmp_path / "log")) <= 4
    assert answered(file) == 0


def test_when_all_is_rejected_the_run_stops(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as url:
        with pytest.raises(UserError, match="too small"):
            ask(None, images(["400"] * 150), entry(url))
        outcomes = ask(None, images(["ok"] + ["400"] * 150), entry(url), concurrency=1)
    assert statuses(outcomes) == ["ok"] + ["rejected"] * 150, "some images are answered: go on"


def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLM_KEY", raising=False)
    with pytest.raises(UserError, match="VLM_KEY is not set"):
        ask(None, images(["ok"]), entry("http://127.0.0.1:1/v1", api_key_env="VLM_KEY"))


def test_progress_tells_rate_cost_and_what_remains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def talkative(*args: Any, **options: Any) -> tqdm:
        return tqdm(*args, **{**options, "mininterval": 0, "delay": 0})

    monkeypatch.setattr("fakevlm.progress.tqdm", talkative)
    spec = {"price_input": 1.0, "price_output": 50.0}
    with serving(tmp_path / "log", latency=0.02) as url:
        ask(None, images(["ok"] * 20 + ["500"]), entry(url, retries=1, **spec), concurrency=1, total=21)
    lines = capsys.readouterr().err.splitlines()
    assert re.search(
        r"annotate Qwen2-VL: .* 10/21 \[\d+:\d+<\d+:\d+, .*caption.*, cost 0.02, 300\+40 tokens each",
        "\n".join(lines),
    )
    assert "1 failed, to be asked again by the next run" in lines[-1]


def test_one_model_under_two_names_is_asked_once(tmp_path: Path) -> None:
    file = tmp_path / "answers"
    with serving(tmp_path / "log") as url:
        for name in ("Qwen2-VL", "renamed"):
            assert statuses(ask(file, images(["ok"] * 3), entry(url, name=name))) == ["ok"] * 3
        assert len(requests(tmp_path / "log")) == 3


@pytest.mark.slow
def test_killed_in_the_middle_it_repeats_nothing_that_was_answered(tmp_path: Path) -> None:
    file, log = tmp_path / "answers", tmp_path / "log"
    script = (
        "import served as t\nfrom pathlib import Path\n"
        't.ask(Path(sys.argv[1]), t.images(["ok"] * 60), t.entry(sys.argv[2]), concurrency=4)'
    )
    with serving(log, latency=0.05) as url:
        kill_after(15, file, script, url)
        before, asked = answered(file), len(requests(log))
        assert 15 <= before < 60
        assert statuses(ask(file, images(["ok"] * 60), entry(url))) == ["ok"] * 60
        later = [r["image"] for r in requests(log)[asked:]]
    assert len(later) == len(set(later)) == 60 - before, "only what had no answer, once"


def test_a_proxy_is_used_unless_the_host_is_excepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "proxy") as proxy, serving(tmp_path / "direct") as url:
        monkeypatch.setenv("http_proxy", proxy.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.delenv("NO_PROXY")
        ask(None, images(["ok"]), entry("http://model.invalid/v1"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        ask(None, images(["ok"]), entry(url))
    assert len(requests(tmp_path / "proxy")) == len(requests(tmp_path / "direct")) == 1


# ── replicas ──────────────────────────────────────────────────────────────────────────────────────────────


class Disturbed(Client):
    """Does something when it is asked about the twentieth image, with requests under way."""

    def __init__(self, spec: Any, disturb: Callable[[], None]) -> None:
        super().__init__(spec, 1)
        self.disturb = disturb

    async def annotate(self, request: Request) -> Outcome:
        if request.id == "20.jpg":
            self.disturb()
        return await super().annotate(request)


def test_two_replicas_share_the_work(tmp_path: Path) -> None:
    logs = tmp_path / "a", tmp_path / "b"
    with serving(logs[0], latency=0.02) as a, serving(logs[1], latency=0.02) as b:
        assert set(statuses(ask(None, images(["ok"] * 40), entry(a, b)))) == {"ok"}
    shares = [len(requests(log)) for log in logs]
    assert sum(shares) == 40
    assert min(shares) >= 12


def test_of_two_replicas_one_is_dead(tmp_path: Path) -> None:
    log, dead = tmp_path / "log", f"http://127.0.0.1:{free_port()}/v1"
    with serving(log) as url:
        assert statuses(ask(None, images(["ok"] * 60), entry(dead, url))) == ["ok"] * 60
    assert len(requests(log)) == 60


def test_a_replica_that_dies_on_the_way(tmp_path: Path) -> None:
    mortal = contextlib.ExitStack()
    with mortal, serving(tmp_path / "b", latency=0.02) as url:
        doomed = mortal.enter_context(serving(tmp_path / "a", latency=0.02))
        outcomes = ask(None, images(["ok"] * 60), Disturbed(entry(doomed, url), mortal.close))
    assert statuses(outcomes) == ["ok"] * 60
    assert requests(tmp_path / "a"), "it had its share before"


def test_a_replica_that_asks_to_wait_rests_and_the_other_works_on(tmp_path: Path) -> None:
    logs = tmp_path / "a", tmp_path / "b"
    with serving(logs[0], latency=0.02) as a, serving(logs[1], latency=0.05, good=True) as b:
        outcomes = ask(None, images(["429after*1"] + ["ok"] * 40), entry(a, b), concurrency=1)
    assert set(statuses(outcomes)) == {"ok"}
    first, second = requests(logs[0]), requests(logs[1])
    assert first[0]["due"] == "429after", "of two that are free the first is taken"
    back = first[1]["time"] if len(first) > 1 else float("inf")
    assert back - first[0]["time"] >= 1.0
    assert sum(r["time"] < back for r in second) >= 5, "the other works on meanwhile"


def test_retry_after_is_kept_to(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as url:
        started = time.monotonic()
        assert statuses(ask(None, images(["429after*1"]), entry(url))) == ["ok"]
        assert time.monotonic() - started >= 1.0


def test_a_slow_model_does_not_hold_up_the_others(tmp_path: Path) -> None:
    class Watching(Client):
        async def annotate(self, request: Request) -> Outcome:
            outcome = await super().annotate(request)
            ended.append(self.name)
            return outcome

    ended: list[str] = []
    with serving(tmp_path / "fast") as fast, serving(tmp_path / "slow", latency=0.3) as slow:
        specs = [
            entry(slow, name="slow", model="slow", concurrency=2),
            entry(fast, name="fast", model="fast", concurrency=4),
        ]
        ask(None, images(["ok"] * 12), *(Watching(spec, 1) for spec in specs))
    assert ended.index("slow") >= 8, "the fast one is nearly through before the slow one's first answer"


@pytest.mark.parametrize("host", ["127.0.0.1", "nobody.invalid"])
def test_nobody_there_stops_the_run(tmp_path: Path, host: str) -> None:
    file = tmp_path / "answers"
    with pytest.raises(UserError, match="no server can be reached at") as caught:
        ask(file, images(["ok"] * 200), entry(f"http://{host}:{free_port()}/v1", retries=0))
    assert "start the servers" in str(caught.value)
    assert answered(file) == 0, "it is no image's fault"


def test_models_may_be_served_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("fakevlm.inference.servers._NONE_YET", 0.2)
    wanted, port, file = images(["ok"] * 30), free_port(), tmp_path / "answers"
    away = entry(f"http://127.0.0.1:{port}/v1", name="InternVL2", model="internvl")
    with serving(tmp_path / "a", latency=0.15) as url:
        with pytest.raises(UserError, match="annotator InternVL2: no server can be reached at"):
            ask(file, wanted, entry(url), away, concurrency=2)
        assert len(requests(tmp_path / "a")) == 30, "whoever is there finishes"
    messages = capsys.readouterr().err
    assert f"annotator InternVL2: http://127.0.0.1:{port}/v1 cannot be reached; all requests wait" in messages
    assert "the run goes on without it, with Qwen2-VL" in messages
    with serving(tmp_path / "b", port=port):
        assert statuses(ask(file, wanted, entry(url), away)) == ["ok"] * 60


def rise(tmp_path: Path, port: int, after: float, servers: contextlib.ExitStack) -> threading.Timer:
    """Start a server on a port after some seconds."""
    context = serving(tmp_path / "log", latency=0.02, port=port)
    timer = threading.Timer(after, lambda: servers.enter_context(context))
    timer.start()
    return timer


def test_a_server_that_is_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fakevlm.inference.servers._NONE_YET", 30.0)
    port = free_port()
    with contextlib.ExitStack() as servers:
        timer = rise(tmp_path, port, 0.5, servers)
        outcomes = ask(None, images(["ok"] * 40), entry(f"http://127.0.0.1:{port}/v1", retries=0))
        timer.join()
    assert statuses(outcomes) == ["ok"] * 40
    assert len(requests(tmp_path / "log")) == 40


def restart(tmp_path: Path, after: float | None) -> tuple[list[str], int]:
    """Ask about 60 images; their server is killed at the twentieth and started anew so many seconds later."""
    port = free_port()
    with contextlib.ExitStack() as servers:
        mortal = servers.enter_context(contextlib.ExitStack())
        url = mortal.enter_context(serving(tmp_path / "first", latency=0.02, port=port))
        timers = []

        def disturb() -> None:
            mortal.close()
            if after is not None:
                timers.append(rise(tmp_path, port, after, servers))

        outcomes = ask(tmp_path / "answers", images(["ok"] * 60), Disturbed(entry(url, retries=1), disturb))
        timers[0].join()
    return statuses(outcomes), len(requests(tmp_path / "log"))


def test_a_server_that_is_started_anew_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("fakevlm.inference.servers._NONE_YET", 0.0)  # of one that was there it is another
    outcomes, asked_anew = restart(tmp_path, after=0.5)
    assert outcomes == ["ok"] * 60
    assert 40 <= asked_anew < 60
    messages = capsys.readouterr().err
    assert messages.count("cannot be reached; all requests wait, 30 s at most") == 1
    assert messages.count("can be reached again") == 1


def test_a_server_that_does_not_come_back_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fakevlm.inference.servers._NONE_ANY_MORE", 0.5)
    with pytest.raises(UserError, match="no server can be reached at"):
        restart(tmp_path, after=None)
    assert 10 <= answered(tmp_path / "answers") <= 20, "what waited is asked by the next run"


def test_a_server_that_only_fails_is_named_and_stops_the_run_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("fakevlm.inference.servers._NONE_ANY_MORE", 1.0)
    with (
        serving(tmp_path / "log") as url,
        pytest.raises(UserError, match=r"nothing but failures.*out of memory"),
    ):
        ask(tmp_path / "answers", images(["500"] * 400), entry(url))
    messages = capsys.readouterr().err
    assert messages.count("fails again and again") == 1
    assert "one request at a time" in messages
    assert len({r["image"] for r in requests(tmp_path / "log")}) < 100, "the others are asked by the next run"
    assert answered(tmp_path / "answers") == 0


AWAY, FAILED = _Failure("nobody", unreachable=True), _Failure("errors")


def with_pool(n: int, check: Callable[[Pool, list[float]], None]) -> None:
    """Call with a pool that was reached before, and the time on its clock."""

    async def go() -> None:
        clock, replicas = [0.0], Pool([Replica(name) for name in "ab"[:n]], "model")
        replicas._reached, replicas.now = True, lambda: clock[0]
        check(replicas, clock)

    asyncio.run(go())


def test_while_one_replica_may_be_there_nobody_gives_up() -> None:
    def check(pool: Pool, clock: list[float]) -> None:
        first, second = pool.replicas
        pool.failed(first, AWAY)
        clock[0] = 1000.0
        assert not pool.hopeless(), "the other was not tried: a long request may be under way there"
        pool.failed(second, AWAY)
        clock[0] = 1029.0
        assert not pool.hopeless()
        clock[0] = 1030.0
        assert pool.hopeless()
        pool.failed(second, FAILED)
        assert pool.hopeless(), "somebody is there, but gives no answer"
        pool.answered(second)
        pool.failed(second, FAILED)
        assert not pool.hopeless()

    with_pool(2, check)


def test_a_server_that_dies_of_each_request_and_is_started_anew_is_given_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("fakevlm.inference.servers._NONE_ANY_MORE", 900.0)

    def check(pool: Pool, clock: list[float]) -> None:
        while not pool.hopeless() and clock[0] < 7200.0:
            clock[0] += 60.0  # three minutes to load, its port shut; then it takes a request and dies
            pool.failed(pool.replicas[0], AWAY if clock[0] % 240.0 else FAILED)
        assert clock[0] == 960.0, "a quarter of an hour after it was first found away"

    with_pool(1, check)
    messages = capsys.readouterr().err
    assert "a cannot be reached; all requests wait, 900 s at most" in messages
    assert "a cannot be reached; all requests wait, 660 s at most" in messages, "what is left, not all anew"


def test_a_failing_replica_rests_and_one_request_probes_it() -> None:
    def check(pool: Pool, clock: list[float]) -> None:
        (replica,) = pool.replicas
        pool.failed(replica, FAILED)
        assert pool.ready(), "one failure may be the image's"
        pool.failed(replica, FAILED)
        pool.failed(replica, FAILED)
        assert not pool.ready()
        end = replica.until
        pool.failed(replica, FAILED)
        assert replica.until == end, "requests under way together fail together"
        clock[0] = end
        replica.busy = 1
        assert not pool.ready(), "a probe is under way"
        replica.busy = 0
        assert pool.ready()
        pool.answered(replica)
        replica.busy = 5
        assert pool.ready()
        clock[0] = 10.0
        pool.failed(replica, _Failure("slow down", wait=4.0))
        clock[0] = 13.9
        assert not pool.ready()
        clock[0] = 14.0
        assert pool.ready()

    with_pool(1, check)


def test_retry_after_in_all_its_forms() -> None:
    assert _retry_after({"retry-after": "7"}) == 7.0
    assert _retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < _retry_after({"retry-after": date}) <= 30
    for nothing in ({}, {"retry-after": "soon"}, {"retry-after": "-3"}, {"retry-after": "nan"}):
        assert _retry_after(nothing) == 0.0
    assert _retry_after({"retry-after": "1e9"}) == 600.0, "nobody waits for ever"


# ── a real server ─────────────────────────────────────────────────────────────────────────────────────────

SERVE = (
    "import sys; from transformers.cli.transformers import main\n"
    "sys.argv[:1] = ['transformers', 'serve']; main()"
)


@pytest.mark.slow
def test_transformers_serve_answers_but_gives_no_log_probabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tinyqwen

    class Completions(Client):
        def _read(self, completion: Any) -> Outcome:
            completions.append(completion)
            return super()._read(completion)

    completions: list[Any] = []
    model, port = str(tinyqwen.build(tmp_path / "qwen")), free_port()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    options = [model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-c", SERVE, *options], stdout=log, stderr=log)
    try:
        monkeypatch.setattr("fakevlm.inference.servers._NONE_YET", 180.0)
        spec = entry(f"http://127.0.0.1:{port}/v1", model=model, timeout=120.0)
        client = Completions(spec, 17, {"logprobs": True})
        outcomes = ask(None, images(["", "", "ok"]), client, concurrency=2)
    finally:
        server.kill()
        server.wait()
    assert statuses(outcomes) == ["ok"] * 3, (tmp_path / "log").read_text()
    assert all(len(outcome.text) == 1 and outcome.text.islower() for outcome in outcomes)
    assert client.answered == 3
    assert client.tokens_in > 3 * 100, "the prompt was read"
    # Why `evaluate.servers` wants vLLM or SGLang.
    assert {completion.choices[0].logprobs for completion in completions} == {None}


# ── images ────────────────────────────────────────────────────────────────────────────────────────────────


def encoded(picture: Image.Image, kind: str, **how: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **how)
    return out.getvalue()


def sent(picture: bytes) -> tuple[str, bytes]:
    head, _, body = data_url(picture).partition(";base64,")
    return head.removeprefix("data:"), base64.b64decode(body)


def test_an_image_is_sent_byte_for_byte_under_its_type() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        for mode in ("L", "RGB"):
            picture = encoded(Image.new(mode, (8, 8), 90 if mode == "L" else (90, 0, 9)), kind)
            assert sent(picture) == (f"image/{kind.lower()}", picture)
    exif = Image.Exif()
    exif[0x010F] = "a camera's name"
    more = {"save_all": True, "append_images": [Image.new("RGB", (4, 4))], "exif": exif}
    second = encoded(Image.new("RGB", (8, 8)), "MPO", **more)
    assert Image.open(io.BytesIO(second)).format == "MPO"
    assert sent(second) == ("image/jpeg", second), "two pictures in a file, as some cameras write them"
    photograph = encoded(Image.new("RGB", (8, 8)), "JPEG", exif=exif)
    assert sent(photograph) == ("image/jpeg", photograph)
    with pytest.raises(ValueError, match="not an image"):
        data_url(b"GIF? no")


def test_a_server_sees_the_pixels_that_a_model_here_sees() -> None:
    """A server itself would turn the first upright, lay others over white, and make the last one white."""
    colours = np.random.default_rng(0).integers(0, 256, (6, 9, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    flat, clear = Image.fromarray(colours[..., :3]), Image.fromarray(colours)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    for picture in (
        encoded(flat, "JPEG", exif=exif),
        encoded(flat, "PNG", exif=exif),
        encoded(flat, "JPEG", xmp=xmp),
        encoded(flat, "PNG", transparency=(0, 0, 0)),
        encoded(flat.quantize(8), "PNG", transparency=3),
        encoded(clear, "PNG"),
        encoded(clear, "WEBP", lossless=True),
        encoded(clear.convert("LA"), "PNG"),
        encoded(Image.fromarray(colours[..., 0].astype(np.uint16) * 257), "PNG"),
    ):
        mime, bytes_sent = sent(picture)
        assert mime == "image/png"
        theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(bytes_sent)))
        assert theirs.mode == "RGB"
        assert not theirs.has_transparency_data
        assert np.array_equal(np.asarray(theirs), np.asarray(decode(picture)))
