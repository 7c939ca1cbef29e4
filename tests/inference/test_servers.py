"""Models behind servers, against a server that misbehaves: every image ends with exactly one outcome."""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import io
import json
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageOps
from tqdm import tqdm

from clusters import ports
from fakevlm.data.records import decode, encode
from fakevlm.errors import UserError
from fakevlm.inference.ask import Outcome, Request
from fakevlm.inference.servers import Client, Pool, Replica, _Failure, _retry_after, data_url
from jsonserver import completion
from misbehaving import raw, requests, serving
from served import PROMPT, answered, ask, entry, images, statuses

pytestmark = pytest.mark.usefixtures("quick_servers")

ANSWERS = yaml.safe_load(Path(__file__).with_name("answers.yaml").read_text(encoding="utf-8"))
WAXY = "The fur is waxy."
EXPECTED = {behaviour: end for end, behaviours in ANSWERS["ends"].items() for behaviour in behaviours.split()}
TEXTS = {"ok": "is waxy.", "length": "The fur is wa", "400": "the image is too small", "hang": "within 0.8 s"}


def digest(request: Request) -> str:
    return hashlib.sha256(request.image).hexdigest()


@pytest.mark.slow
def test_every_image_ends_with_one_outcome_and_a_rerun_asks_only_what_failed(url, log, tmp_path) -> None:
    wanted, file, spec = images(list(EXPECTED)), tmp_path / "answers", entry(url, timeout=0.8)
    outcomes = ask(file, wanted, spec)
    assert dict(zip(EXPECTED, statuses(outcomes), strict=True)) == EXPECTED
    texts = dict(zip(EXPECTED, (each.text for each in outcomes), strict=True))
    assert {behaviour: text for behaviour, text in TEXTS.items() if text not in texts[behaviour]} == {}
    asked = [r["image"] for r in requests(log)]
    failed = {digest(w) for w, each in zip(wanted, outcomes, strict=True) if each.status == "error"}
    for behaviour, request in zip(EXPECTED, wanted, strict=True):
        if "*" not in behaviour:  # an answer is not asked again, a failure `retries` times
            assert asked.count(digest(request)) == (4 if digest(request) in failed else 1), behaviour
    assert ask(file, wanted, spec) == outcomes
    assert {r["image"] for r in requests(log)[len(asked) :]} == failed


def test_images_alone_go_as_data_with_prompt_sampling_and_key(url, log, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("VLM_KEY", "sk-secret-of-ours")
    netrc, wanted, file = tmp_path / "netrc", images(["ok"]), tmp_path / "answers"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    ask(file, wanted, entry(f"{url}/", api_key_env="VLM_KEY", seed=3))
    (_, refused) = ask(None, [*wanted, Request("a", "a", b"GIF? no", PROMPT)], entry(url))
    assert (refused.status, "not an image" in refused.text) == ("rejected", True)
    with_key, without = requests(log)
    sent = {"kind": "data:image/jpeg;base64", "image": digest(wanted[0]), "prompt": [PROMPT.text]}
    sent |= {"key": "Bearer sk-secret-of-ours"}
    assert with_key | sent == with_key
    sampling = {"max_tokens": 50, "temperature": 0.0, "seed": 3}
    assert with_key["asked"] == {"model": "Qwen/Qwen2-VL-72B-Instruct", **sampling}
    assert without["asked"]["seed"] == 17, "the profile's"
    assert without["key"] is None, "a key of another service is nobody's business"
    assert b"sk-" not in file.read_bytes()


def test_what_servers_of_many_makers_send_is_read(url: str) -> None:
    rows = [(completion(WAXY) | {"usage": usage}, "ok", WAXY) for usage in ANSWERS["usage"]]
    for status, reasons in ANSWERS["finish_reason"].items():
        text = "half an answer" if status == "error" else WAXY
        rows += [(completion(WAXY, reason), status, text) for reason in reasons]
    rows += [(completion(m.pop("content"), **m), *expected) for m, *expected in ANSWERS["messages"]]
    rows += [*ANSWERS["bodies"], (json.dumps(completion(WAXY)).encode()[:-9], "error", '{"id"')]
    rows.append((b"\xef\xbb\xbf" + json.dumps(completion(WAXY)).encode(), "ok", WAXY))
    rows += [(b"[" * 9999, "error", "[[["), (gzip.compress(bytes(9 << 20)), "error", "more than 8 MB")]
    outcomes = ask(None, images([raw(body) for body, *_ in rows]), entry(url, retries=0))
    both = zip(rows, outcomes, strict=True)
    assert [(row, each) for row, each in both if each.status != row[1] or row[2] not in each.text] == []
    assert not any("It is real" in each.text for each in outcomes if each.status != "error")


def test_a_key_that_comes_back_is_written_nowhere(url, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("VLM_KEY", key := "sk-secret/of-ours")
    escaped = json.dumps(completion(key)).replace("/", r"\/").encode()
    behaviours = [raw(completion(f"Your key is {key}.")), raw(escaped), raw(completion(None, refusal=key))]
    behaviours += [raw({"error": {"message": "x" * 490 + key}}, 400), raw(key.encode(), 500), raw({"a": key})]
    outcomes = ask(tmp_path / "answers", images(behaviours), entry(url, api_key_env="VLM_KEY", retries=3))
    assert statuses(outcomes) == ["ok", "ok", "refused", "rejected", "error", "error"]
    assert outcomes[0].text == "Your key is …."
    written = [str(outcomes), capsys.readouterr().err, (tmp_path / "answers").read_bytes().decode("latin-1")]
    assert [text for text in written if "secret" in text] == []
    monkeypatch.setenv("VLM_KEY", "fur")  # as local servers have it: no secret, but a word of answers
    assert ask(None, images(["ok"]), entry(url, api_key_env="VLM_KEY"))[0].text.startswith("The fur")


@pytest.mark.parametrize(("variables", "message"), ANSWERS["environment"])
def test_what_the_environment_holds_is_used_or_named(url, monkeypatch, variables, message) -> None:
    for variable, value in {"VLM_KEY": "sk-secret-of-ours", **variables}.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=message) if message else contextlib.nullcontext():
        assert statuses(ask(None, images(["ok"]), entry(url, api_key_env="VLM_KEY"))) == ["ok"]


@pytest.mark.parametrize(("status", "body", "cure"), ANSWERS["stops"])
def test_a_users_mistake_stops_the_run_and_is_not_kept(
    url, log, tmp_path, monkeypatch, status, body, cure
) -> None:
    monkeypatch.setenv("VLM_KEY", "sk-secret-of-ours")
    file, wanted = tmp_path / "answers", images([raw(body, status)] * 100)
    with pytest.raises(UserError, match=f"answers {status}") as caught:
        ask(file, wanted, entry(url, api_key_env="VLM_KEY"), concurrency=4)
    assert cure in str(caught.value)
    assert "secret" not in str(caught.value)
    assert len(requests(log)) <= 4
    assert answered(file) == 0


def test_when_all_is_rejected_the_run_stops(url: str) -> None:
    with pytest.raises(UserError, match="too small"):
        ask(None, images(["400"] * 150), entry(url))
    outcomes = ask(None, images(["ok"] + ["400"] * 150), entry(url), concurrency=1)
    assert statuses(outcomes) == ["ok"] + ["rejected"] * 150, "some images are answered: go on"


def test_progress_tells_rate_cost_and_what_remains(url: str, tmp_path: Path, capsys, monkeypatch) -> None:
    at_once = {"mininterval": 0, "delay": 0}
    monkeypatch.setattr("fakevlm.progress.tqdm", lambda **options: tqdm(**options | at_once))
    spec = entry(url, retries=1, price_input=1.0, price_output=50.0)
    printed = []
    for _ in range(2):
        ask(tmp_path / "answers", images(["ok"] * 20 + ["500"]), spec, concurrency=1)
        printed.append(capsys.readouterr().err)
    line = r"annotate Qwen2-VL: .* 10/21 \[\d+:\d+<\d+:\d+, .*img.*, cost 0.0[2-5], 300\+40 tokens each"
    assert re.search(line, printed[0])
    assert "1 failed, to be asked again by the next run" in printed[0].splitlines()[-1]
    assert "20 from the cache, 1 failed" in printed[1].splitlines()[-1]


class Disturbed(Client):
    """Does something when it is asked about the twentieth image, with requests under way."""

    def __init__(self, spec: Any, disturb: Callable[[], object]) -> None:
        super().__init__(spec, 1)
        self.disturb = disturb

    async def annotate(self, request: Request) -> Outcome:
        if request.id == "20.jpg":
            self.disturb()
        return await super().annotate(request)


@pytest.mark.parametrize("first", ["works", "is dead", "dies on the way"])
def test_two_replicas_share_the_work_whatever_becomes_of_the_first(tmp_path: Path, first: str) -> None:
    logs, mortal = (tmp_path / "a", tmp_path / "b"), contextlib.ExitStack()
    with mortal, serving(logs[1], latency=0.02) as b:
        a = mortal.enter_context(serving(logs[0], latency=0.02))
        if first == "is dead":
            mortal.close()
        disturb = mortal.close if first == "dies on the way" else str
        assert statuses(ask(None, images(["ok"] * 60), Disturbed(entry(a, b), disturb))) == ["ok"] * 60
    shares = [len(requests(log)) for log in logs]
    assert sum(shares) >= 60
    assert (shares[0] == 0) == (first == "is dead")
    assert first != "works" or (sum(shares) == 60 and min(shares) >= 20)


def test_a_replica_that_asks_to_wait_rests_and_the_other_works_on(tmp_path: Path) -> None:
    logs = tmp_path / "a", tmp_path / "b"
    with serving(logs[0], latency=0.02) as a, serving(logs[1], latency=0.05, good=True) as b:
        outcomes = ask(None, images(["429after*1"] + ["ok"] * 40), entry(a, b), concurrency=1)
    assert set(statuses(outcomes)) == {"ok"}
    first, second = requests(logs[0]), requests(logs[1])
    assert first[0]["due"] == "429after", "of two that are free the first is taken"
    assert first[1]["time"] - first[0]["time"] >= 1.0
    assert sum(r["time"] < first[1]["time"] for r in second) >= 5, "the other works on meanwhile"


def test_models_may_be_served_one_after_another(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("fakevlm.inference.servers._NONE_YET", 0.2)
    wanted, (port,), file = images(["ok"] * 30), ports(1), tmp_path / "answers"
    away = entry(f"http://127.0.0.1:{port}/v1", name="InternVL2", model="internvl")
    with serving(tmp_path / "a", latency=0.15) as url:
        message = r"annotator InternVL2: no server can be reached at (.|\n)*start the servers"
        with pytest.raises(UserError, match=message):
            ask(file, wanted, entry(url), away, concurrency=2)
        assert len(requests(tmp_path / "a")) == 30, "whoever is there finishes"
    messages = capsys.readouterr().err
    assert f"annotator InternVL2: http://127.0.0.1:{port}/v1 cannot be reached; all requests wait" in messages
    assert "the run goes on without it, with Qwen2-VL" in messages
    with serving(tmp_path / "b", port=port):
        assert statuses(ask(file, wanted, entry(url), away)) == ["ok"] * 60


def killed(file: Path, heir: Path | None = None) -> list[str]:
    """Ask about 60 images; their server is killed at the twentieth, and one with a log may replace it."""
    (port,), servers = ports(1), contextlib.ExitStack()
    later = threading.Timer(0.5, lambda: servers.enter_context(serving(heir, latency=0.02, port=port)))

    def disturb() -> None:
        servers.close()
        if heir:
            later.start()

    with servers:
        url = servers.enter_context(serving(None, latency=0.02, port=port))
        return statuses(ask(file, images(["ok"] * 60), Disturbed(entry(url, retries=1), disturb)))


def test_a_server_that_is_started_anew_is_waited_for(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("fakevlm.inference.servers._NONE_YET", 0.0)  # of one that was there it is another
    assert killed(tmp_path / "answers", tmp_path / "heir") == ["ok"] * 60
    assert 40 <= len(requests(tmp_path / "heir")) < 60
    messages = capsys.readouterr().err
    away = messages.count("cannot be reached; all requests wait, 30 s at most")
    assert 1 <= away == messages.count("can be reached again") <= 3, "told at a change, not at each request"


def test_a_server_that_does_not_come_back_stops_the_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fakevlm.inference.servers._NONE_ANY_MORE", 0.5)
    with pytest.raises(UserError, match="no server can be reached at"):
        killed(tmp_path / "answers")
    assert 10 <= answered(tmp_path / "answers") <= 20, "what waited is asked by the next run"


def test_a_server_that_only_fails_is_named_and_stops_the_run(url, log, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("fakevlm.inference.servers._NONE_ANY_MORE", 1.0)
    with pytest.raises(UserError, match=r"nothing but failures.*out of memory"):
        ask(tmp_path / "answers", images(["500"] * 400), entry(url))
    messages = capsys.readouterr().err
    assert messages.count("fails again and again") == 1
    assert "one request at a time" in messages
    assert len({r["image"] for r in requests(log)}) < 100, "the others are asked by the next run"
    assert answered(tmp_path / "answers") == 0


def test_a_server_that_dies_of_each_request_and_is_started_anew_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr("fakevlm.inference.servers._NONE_ANY_MORE", 900.0)

    async def go() -> None:
        seconds, pool = 0.0, Pool([Replica("dying"), Replica("untried")], "model")
        pool._reached, pool.now = True, lambda: seconds
        while seconds < 7200.0:
            seconds += 60.0  # three minutes to load, its port shut; then it takes a request and dies
            pool.failed(pool.replicas[0], _Failure("away", unreachable=seconds % 240.0 > 0))
        assert pool.patience() > 0, "a long request may be under way at the other"
        pool.replicas.pop()
        assert pool.patience() <= 0, "a quarter of an hour after it was first found away"

    asyncio.run(go())


def sent(picture: bytes) -> tuple[str, bytes]:
    head, _, body = data_url(picture).partition(";base64,")
    return head.removeprefix("data:"), base64.b64decode(body)


def test_an_image_is_sent_byte_for_byte_under_its_type() -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera's name"
    small, grey = Image.new("RGB", (8, 8), (90, 0, 9)), Image.new("L", (8, 8), 90)
    files = [(kind, encode(each, kind)) for kind in ("PNG", "JPEG", "WEBP", "GIF") for each in (small, grey)]
    # Two pictures in a file, as some cameras write them.
    double = encode(small, "MPO", save_all=True, append_images=[grey.convert("RGB")], exif=exif)
    for kind, picture in [*files, ("JPEG", encode(small, "JPEG", exif=exif)), ("JPEG", double)]:
        assert sent(picture) == (f"image/{kind.lower()}", picture)


def test_a_server_sees_the_pixels_that_a_model_here_sees() -> None:
    """A server itself would turn the first upright, lay others over white, and make the last one white."""
    colours = np.random.default_rng(0).integers(0, 256, (6, 9, 4), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    flat, clear = Image.fromarray(colours[..., :3]), Image.fromarray(colours)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    for picture in (
        encode(flat, "JPEG", exif=exif),
        encode(flat, "PNG", exif=exif),
        encode(flat, "JPEG", xmp=xmp),
        encode(flat, "PNG", transparency=(0, 0, 0)),
        encode(flat.quantize(8), "PNG", transparency=3),
        encode(clear, "PNG"),
        encode(clear, "WEBP", lossless=True),
        encode(clear.convert("LA"), "PNG"),
        encode(Image.fromarray(colours[..., 0].astype(np.uint16) * 257), "PNG"),
    ):
        mime, bytes_sent = sent(picture)
        assert mime == "image/png"
        theirs = ImageOps.exif_transpose(Image.open(io.BytesIO(bytes_sent)))
        assert (theirs.mode, theirs.has_transparency_data) == ("RGB", False)
        assert np.array_equal(np.asarray(theirs), np.asarray(decode(picture)))


def test_retry_after_in_all_its_forms() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=590), usegmt=True)
    for text, seconds in ("7", 7), (soon, pytest.approx(320, abs=280)), ("1e9", 600), ("soon", 0), ("-3", 0):
        assert _retry_after({"retry-after": text}) == seconds
    assert _retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
