"""The door to a server: what is sent and what is not, through which way, and what comes of the ways it can fail."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from fakevlm.inference.endpoint import EndpointAnnotator
from fakevlm.inference.protocol import Request
from fakevlm.inference.transport import Door, Refused, Unanswered
from misbehaving import image, mark, requests, serving
from served import PROMPT, entry, free_port

pytestmark = pytest.mark.usefixtures("quick_servers")


def post(url: str, text: str = "hello", key: str = "", timeout: float = 5.0) -> bytes:
    body = json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}).encode()

    async def go() -> bytes:
        door = Door(url, key, timeout)
        try:
            return await door.post("/chat/completions", body)
        finally:
            await door.close()

    return asyncio.run(go())


def test_a_large_body_arrives_whole(tmp_path: Path) -> None:
    text = "ä" * 700_000
    with serving(tmp_path / "log") as url:
        post(url, text)
        post(f"{url}/", text[:10])
    assert [r["prompt"] for r in requests(tmp_path / "log")] == [[text], [text[:10]]]


def test_passwords_of_a_netrc_are_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with serving(tmp_path / "log") as url:
        post(url)
        post(url, key="ours")
    assert [r["key"] for r in requests(tmp_path / "log")] == [None, "Bearer ours"]


def test_a_proxy_is_used_unless_the_host_is_excepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "proxy") as proxy, serving(tmp_path / "direct") as url:
        monkeypatch.setenv("http_proxy", proxy.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.delenv("NO_PROXY")
        post("http://model.invalid/v1")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        post(url)
    assert len(requests(tmp_path / "proxy")) == len(requests(tmp_path / "direct")) == 1


@pytest.mark.parametrize(
    ("due", "said"),
    [
        ("cut", "Payload"),
        ("reset", "Client"),
        ("hang", "no answer within 0.5 s"),
        ("drip", "no answer|Payload"),
    ],
)
def test_half_an_answer_is_none(tmp_path: Path, due: str, said: str) -> None:
    with serving(tmp_path / "log") as url, pytest.raises(Unanswered, match=said) as caught:
        post(url, mark(due), timeout=0.5)
    assert not caught.value.unreachable


@pytest.mark.parametrize("host", ["127.0.0.1", "nobody.invalid"])
def test_nobody_there_is_told_apart(host: str) -> None:
    with pytest.raises(Unanswered) as caught:
        post(f"http://{host}:{free_port()}/v1")
    assert caught.value.unreachable


@pytest.mark.parametrize(
    ("content", "message", "code"),
    [
        (b'{"error": {"message": "too long", "code": "context"}}', "too long", "context"),
        (b'{"object": "error", "message": "too long", "code": 400}', "too long", 400),
        (b'{"detail": "Not Found"}', "Not Found", None),
        (b'{"error": "too long"}', "too long", None),
        (b'{"error": {}}', '{"error": {}}', None),
        (b"[1]", "[1]", None),
        (b"too large\xff", "too large\ufffd", None),
        (b"", "no reason given", None),
    ],
)
def test_what_a_server_says_is_found(content: bytes, message: str, code: object) -> None:
    refused = Refused(400, content, {})
    assert (refused.message, refused.code) == (message, code)


def test_the_body_is_the_json_it_would_be_with_the_image_put_in_first() -> None:
    annotator = EndpointAnnotator(entry("http://127.0.0.1:1/v1"), 1)
    for text in ('say "data:" and "data:"', "ü \u2028 \ud800"):
        request = Request("a", "a", image(name="x"), replace(PROMPT, text=text), "m", "r", {"seed": 1})
        body = json.loads(annotator._body(request))
        picture, words = body["messages"][0]["content"]
        assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,")
        assert words["text"] == text
        assert body["seed"] == 1
