"""What the tests of served annotators share: an entry of params.yaml, images that say how the server shall behave, a run."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fakevlm.annotation.aggregate import Annotation, Candidates
from fakevlm.annotation.aggregate_llm import LLMAggregator
from fakevlm.annotation.annotators import make_annotators
from fakevlm.annotation.prompts import label_prompt
from fakevlm.config.params import Endpoint, ServedAggregator
from fakevlm.inference.driver import Found, Task, annotate_all
from fakevlm.inference.journal import Journal
from misbehaving import image

PROMPT = label_prompt("animal", 0)


def _values(*urls: str) -> dict[str, Any]:
    return {
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


def entry(*urls: str, **changes: Any) -> Endpoint:
    return Endpoint(**{**_values(*urls), **changes})


def aggregator_entry(*urls: str, **changes: Any) -> ServedAggregator:
    return ServedAggregator(
        **{**_values(*urls), "name": "Qwen2.5", "with_image": False, "attempts": 3, **changes}
    )


def clause(statement: str, *annotators: Any, critical: Any = False) -> dict[str, Any]:
    return {"statement": statement, "annotators": list(annotators), "critical": critical}


def reply(verdict: str, **families: Any) -> str:
    """An aggregator's answer; families not given are empty."""
    return json.dumps({"verdict": verdict, "texture": [], "geometry": [], "lighting": [], **families})


def tasks(behaviours: list[str]) -> list[Task]:
    return [
        Task(f"{n}.jpg", f"{n}.jpg", image(behaviour, name=str(n)), PROMPT)
        for n, behaviour in enumerate(behaviours)
    ]


def ask(journal: Path, wanted: list[Task], *entries: Endpoint, concurrency: int = 8) -> Found:
    annotators = make_annotators(entries, {}, seed=17)
    with Journal(journal) as book:
        return annotate_all(wanted, annotators, book, concurrency, total=len(wanted))


def aggregate(
    journal: Path, images: list[Candidates], spec: ServedAggregator, seen: Sequence[Task] = ()
) -> list[Annotation]:
    with Journal(journal) as book:
        return list(LLMAggregator(spec, 2, 17, book, seen, concurrency=8).aggregate(images))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def kill_after_lines(child: subprocess.Popen, journal: Path, lines: int) -> None:
    """Kills (-9) a process once it has written so many lines of its journal."""
    try:
        deadline = time.monotonic() + 90
        while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
            assert child.poll() is None, "the process ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
