"""A served annotator against a real server: `transformers serve` with a tiny random Qwen2-VL."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakevlm.inference.completion import Completion
from fakevlm.inference.driver import annotate_all
from fakevlm.inference.endpoint import EndpointAnnotator
from fakevlm.inference.journal import Journal
from served import entry, free_port, tasks

pytestmark = pytest.mark.usefixtures("quick_servers")

SERVE = "import sys; from transformers.cli.transformers import main; sys.argv[:1] = ['transformers', 'serve']; main()"


@pytest.mark.slow
def test_a_real_server_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tinyqwen

    model, port, log = str(tinyqwen.build(tmp_path / "qwen")), free_port(), (tmp_path / "log").open("w")
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
        # Why `evaluate.servers` wants vLLM or SGLang: this server gives no log-probabilities.
        asked = {"model": model, "messages": [{"role": "user", "content": "fake?"}], "logprobs": True}
        answer = asyncio.run(_answer(EndpointAnnotator(spec, seed=17), asked))
        assert answer.choices[0].logprobs is None
    finally:
        server.kill()
        server.wait()
        log.close()


async def _answer(annotator: EndpointAnnotator, asked: dict) -> Completion:
    try:
        outcome, answer = await annotator.ask(json.dumps(asked).encode())
        assert answer is not None, outcome
        return answer
    finally:
        await annotator.close()
