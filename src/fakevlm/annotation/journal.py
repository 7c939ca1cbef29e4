"""The journal of requests: what was asked and answered, append-only, so that a killed run repeats nothing.

One JSON object a line: `{"key": …, "status": …, "text": …, "id": …, "model": …}`. A line is written in one call and is
whole or, after a kill in mid-write, torn: a torn last line is cut off when the journal is opened, and its request asked
again. `kill -9` loses nothing that was written; a power cut at most the lines since the last fsync.
"""

import fcntl
import json
import os
import time
from pathlib import Path
from types import TracebackType

from fakevlm.annotation.protocol import Outcome, Request
from fakevlm.errors import UserError

_SYNC_LINES, _SYNC_SECONDS = 256, 2.0


def _parse(file: Path, content: bytes) -> dict[str, Outcome]:
    answers = {}
    for n, line in enumerate(content.splitlines(), 1):
        try:
            row = json.loads(line)
            outcome = Outcome(row["status"], row["text"])
            key = row["key"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{file}, line {n}: not a journal line ({error!r})",
                "delete that line; its request will be asked again",
            ) from error
        if outcome.is_answer:
            answers[key] = outcome
    return answers


def read_answers(file: Path) -> dict[str, Outcome]:
    """The answers by request key in a journal that is not opened for writing, perhaps while another run writes it.

    Raises:
        UserError: a line is not the journal's.
    """
    content = file.read_bytes() if file.is_file() else b""
    return _parse(file, content[: content.rfind(b"\n") + 1])


class Journal:
    """Answers by request key, kept in a file. Use as a context manager.

    Args:
        file: the journal; made with its folder if missing.

    Raises:
        UserError: another process is writing to it, or a line before the last is not the journal's.
    """

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.file = file
        self._fd = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._fd)
            raise UserError(f"{file} is in use by another run", "wait for it, or stop it") from error
        try:
            self._answers = self._load()
        except BaseException:
            os.close(self._fd)
            raise
        self._unsynced, self._synced_at = 0, time.monotonic()

    def _load(self) -> dict[str, Outcome]:
        content = self.file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(self._fd, whole)
        return _parse(self.file, content[:whole])

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, request: Request) -> Outcome | None:
        """The answer to a request asked before, or None. Errors were no answers."""
        return self._answers.get(request.key)

    def put(self, request: Request, outcome: Outcome) -> None:
        """Keeps an outcome: on disk before this returns, fsynced every few hundred lines or two seconds."""
        row = {
            "key": request.key,
            "status": outcome.status,
            "text": outcome.text,
            "id": request.id,
            "model": request.model,
        }
        line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
        while line:  # a short write is possible on a full disk or a signal
            line = line[os.write(self._fd, line) :]
        if outcome.is_answer:
            self._answers[request.key] = outcome
        self._unsynced += 1
        if self._unsynced >= _SYNC_LINES or time.monotonic() - self._synced_at > _SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Puts everything written so far on the disk itself."""
        os.fsync(self._fd)
        self._unsynced, self._synced_at = 0, time.monotonic()

    def close(self) -> None:
        if self._fd >= 0:
            self.sync()
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
