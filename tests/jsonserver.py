"""A stand-in server that answers JSON with JSON, in a thread; the frame of a completion."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

Reply = dict[str, Any] | tuple[int, dict[str, Any]]  # the body; where it is not 200, the status and the body


def completion(text: str | None, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    """Return the body of a chat completion with one choice."""
    message |= {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": finish, "message": message}
    usage = {"prompt_tokens": 300, "completion_tokens": 40, "total_tokens": 340}
    head = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    return {**head, "choices": [choice], "usage": usage}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1000  # connections opened at once; the default of 5 makes clients wait for seconds


@contextmanager
def serving(answer: Callable[[str, dict[str, Any]], Reply]) -> Iterator[str]:
    """Serve what `answer` says to a request's path and body; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            reply = answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            status, reply = reply if isinstance(reply, tuple) else (200, reply)
            data = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(ConnectionError):  # who asked may be gone
                self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with _Server(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
