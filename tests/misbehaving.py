"""A server of OpenAI's chat completions that misbehaves as each image tells it to. Standard library only.

What it is to do stands behind the image's own bytes (`image("500*2", "429")`: two errors, one 429, then a
proper answer; without a number, for ever), or in the text of a request without an image (`mark`).
"""

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import re
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jsonserver import completion

MARK = b"#behave:"
_IN_TEXT = re.compile(r"#behave:([^#]*)#\w*")


def image(*behaviours: str, name: str = "") -> bytes:
    """A JPEG of its own for each name and list of behaviours."""
    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (32, 32), (10, 20, 30)).save(out, "JPEG")
    return out.getvalue() + name.encode() + MARK + ",".join(behaviours).encode()


def mark(*behaviours: str, name: str = "") -> str:
    """The same for a text: to be put anywhere in it."""
    return f"{MARK.decode()}{','.join(behaviours)}#{name}"


def raw(body: object, status: int = 200) -> str:
    """The behaviour of answering with this: bytes, or what becomes JSON."""
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"raw={status}={base64.urlsafe_b64encode(body).decode()}"


def say(text: str, finish: str = "stop") -> str:
    """The behaviour of answering with this text, ended like this."""
    return raw(completion(text, finish))


@contextmanager
def serving(
    log: Path | None, latency: float = 0.0, capacity: int = 0, good: bool = False, port: int = 0
) -> Iterator[str]:
    """A server process, with so many seconds and requests at a time (0: any number); yields its address."""
    settings = json.dumps([log and str(log), latency, capacity, good, port])
    with subprocess.Popen([sys.executable, __file__, settings], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def requests(log: Path) -> list[dict]:
    """What a server was asked."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def _due(behaviours: str, attempt: int) -> str:
    for behaviour in filter(None, behaviours.split(",")):
        kind, _, times = behaviour.partition("*")
        if not times or attempt < int(times):
            return kind
        attempt -= int(times)
    return "ok"


def _error(message: str, code: str | None = None) -> bytes:
    return json.dumps({"error": {"message": message, "type": "invalid", "code": code}}).encode()


COMPLETIONS = {
    "fake": completion("This is a fake image. The fur is waxy."),
    "real": completion("This is a real image. The fur looks natural."),
    "no": completion("No, it is too smooth."),
    "cutfake": completion("This is a fake image. The fur is wa", "length"),
    "empty": completion("  \n"),
    "length": completion("The fur is wa", "length"),
    "refusal": completion(None, refusal="I will not judge people."),
    "half": completion("The fur", "abort"),
}
OTHERS = {
    "400": (400, _error("the image is too small")),
    "404": (404, _error("no such model")),
    "429": (429, _error("slow down")),
    "429after": (429, _error("slow down")),
    "500": (500, _error("out of memory")),
    "503": (503, b"<html>Service Unavailable</html>"),
}


class Server:
    def __init__(self, log: Path | None, latency: float, capacity: int, good: bool) -> None:
        self.log = log.open("a", buffering=1) if log else None
        self.latency, self.good = latency, good
        self.slots = asyncio.Semaphore(capacity) if capacity else contextlib.nullcontext()
        self.attempts: Counter[str] = Counter()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.request(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serves one request; whether the connection lives on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head.split("\r\n")[1:])}
        data = await reader.readexactly(int(headers["content-length"]))
        due, digest, forced = "ok", "it", False
        if self.log or not self.good:  # for benchmarks the machine's cores are the client's
            body = json.loads(data)
            forced = "response_format" in body
            parts = body["messages"][0]["content"]
            text = [p["text"] for p in parts if p["type"] == "text"]
            if url := next((p["image_url"]["url"] for p in parts if p["type"] == "image_url"), None):
                kind, _, data = url.partition(",")
                pixels = base64.b64decode(data)
                wanted, digest = pixels.partition(MARK)[2].decode(), hashlib.sha256(pixels).hexdigest()
            else:  # the mark, not the text, tells which question it is: the same may be put in other words
                kind, match = "", _IN_TEXT.search(text[0])
                wanted, digest = (match[1], match[0]) if match else ("", text[0])
            due = "ok" if self.good else _due(wanted, self.attempts[digest])
            self.attempts[digest] += 1
            if self.log:
                options = {k: v for k, v in body.items() if k != "messages"}
                row = {"time": time.time(), "image": digest, "kind": kind, "due": due, "prompt": text}
                row |= {"key": headers.get("authorization"), "asked": options}
                self.log.write(json.dumps(row) + "\n")
        async with self.slots:
            await asyncio.sleep(3600 if due == "hang" else self.latency)
        return await self.answer(writer, due, digest, forced)

    async def answer(self, writer: asyncio.StreamWriter, due: str, digest: str, forced: bool) -> bool:
        if due == "reset":  # no polite end of the connection
            writer.get_extra_info("socket").setsockopt(1, 13, struct.pack("ii", 1, 0))
            return False
        says = COMPLETIONS.get(due) or completion(f"The fur of {digest[:8]} is waxy.")
        if forced and due in ("fake", "real"):
            says = completion(json.dumps({"verdict": due}))
        status, body = OTHERS.get(due) or (200, json.dumps(says).encode())
        if due.startswith("raw="):
            _, status, encoded = due.split("=", 2)
            status, body = int(status), base64.urlsafe_b64decode(encoded)
        kind = b"text/html" if body.startswith(b"<") else b"application/json"
        head = b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n" % (status, kind, len(body))
        head += b"Retry-After: 1\r\n" if due == "429after" else b""
        head += b"Location: /v1/elsewhere\r\n" if status == 307 else b""
        head += b"Content-Encoding: gzip\r\n" if body.startswith(b"\x1f\x8b") else b""
        writer.write(head + b"\r\n")
        if due not in ("cut", "drip"):
            writer.write(body)
            return True
        for n in range(len(body) // 2):
            writer.write(body[n : n + 1])
            if due == "drip":
                await writer.drain()
                await asyncio.sleep(0.05)
        return False


async def _main(log: str | None, latency: float, capacity: int, good: bool, port: int) -> None:
    server = Server(log and Path(log), latency, capacity, good)
    listening = await asyncio.start_server(server.connection, "127.0.0.1", port, limit=1 << 20, backlog=1000)
    print(listening.sockets[0].getsockname()[1], flush=True)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(*json.loads(sys.argv[1])))
