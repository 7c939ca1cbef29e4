"""The journal of requests: what was asked and answered, append-only, so that a killed run repeats nothing.

One JSON object a line: `{"key": …, "status": …, "text": …, "id": …, "model": …}`. A line is written in one
call and is whole or, after a kill in mid-write, torn: a torn last line is cut off when the journal is opened,
and its request asked again. `kill -9` loses nothing that was written; a power cut at most the lines since the
last fsync.

The file is the truth and may be larger than memory: where each answer stands in it is kept in an index that
is made anew whenever the file is opened, and texts are read back from their places.
"""

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from fakevlm.errors import UserError
from fakevlm.inference.protocol import Outcome, Request

_SYNC_LINES, _SYNC_SECONDS = 256, 2.0
_CACHE_KB = 64 << 10  # of the index, in memory; what is beyond goes to a file without a name


class Index:
    """A number for each key, keys by the million: a private database that goes when this does."""

    def __init__(self) -> None:
        # In Jupyter the driver works in a thread of its own; never two at a time.
        self._rows = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_CACHE_KB}"):
            self._rows.execute(f"PRAGMA {pragma}")
        self._rows.execute("CREATE TABLE i (key BLOB PRIMARY KEY, value INTEGER) WITHOUT ROWID")
        self._rows.execute("BEGIN")  # never committed: nobody else shall see it

    def __setitem__(self, key: str, value: int) -> None:
        self._rows.execute("INSERT OR REPLACE INTO i VALUES (?, ?)", (bytes.fromhex(key), value))

    def get(self, key: str) -> int | None:
        """The number of a key (hexadecimal), or None."""
        row = self._rows.execute("SELECT value FROM i WHERE key = ?", (bytes.fromhex(key),)).fetchone()
        return row and row[0]

    def __iter__(self) -> Iterator[str]:
        for (key,) in self._rows.execute("SELECT key FROM i"):
            yield key.hex()

    def __len__(self) -> int:
        return self._rows.execute("SELECT count(*) FROM i").fetchone()[0]

    def close(self) -> None:
        self._rows.close()


def outcome_at(file: BinaryIO, position: int) -> Outcome:
    """The outcome whose line begins at this byte of a journal."""
    file.seek(position)
    row = json.loads(file.readline())
    return Outcome(row["status"], row["text"])


def _indexed(file: Path) -> tuple[Index, int]:
    """Where each answer of a journal stands, and where its last whole line ends.

    Raises:
        UserError: a line is not the journal's.
    """
    index, position = Index(), 0
    try:
        with file.open("rb") as lines:
            for n, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    row = json.loads(line)
                    outcome = Outcome(row["status"], row["text"])
                    if outcome.is_answer:
                        index[row["key"]] = position
                except (ValueError, KeyError, TypeError) as error:
                    raise UserError(
                        f"{file}, line {n}: not a journal line ({error!r})",
                        "delete that line; its request will be asked again",
                    ) from error
                position += len(line)
    except BaseException:
        index.close()
        raise
    return index, position


class Answers(Mapping[str, Outcome]):
    """The answers by request key in a journal's file, read from it one by one; see `read_answers`."""

    def __init__(self, file: Path) -> None:
        self._index, _ = _indexed(file)
        self._lines = file.open("rb")

    def __getitem__(self, key: str) -> Outcome:
        position = self._index.get(key)
        if position is None:
            raise KeyError(key)
        return outcome_at(self._lines, position)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __del__(self) -> None:
        if hasattr(self, "_lines"):
            self._lines.close()
            self._index.close()


def read_answers(file: Path) -> Mapping[str, Outcome]:
    """The answers by request key in a journal that is not opened for writing, perhaps while another run writes it.

    Raises:
        UserError: a line is not the journal's.
    """
    return Answers(file) if file.is_file() else {}


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
            self._index, self._end = _indexed(file)
        except BaseException:
            os.close(self._fd)
            raise
        os.ftruncate(self._fd, self._end)  # a torn last line
        self._lines = file.open("rb")
        self._unsynced, self._synced_at = 0, time.monotonic()

    def __len__(self) -> int:
        return len(self._index)

    def find(self, request: Request) -> int | None:
        """Where the answer to a request asked before stands (see `outcome_at`), or None. Errors were no answers."""
        return self._index.get(request.key)

    def get(self, request: Request) -> Outcome | None:
        """The answer to a request asked before, or None."""
        position = self.find(request)
        return None if position is None else outcome_at(self._lines, position)

    def put(self, request: Request, outcome: Outcome) -> int:
        """Keeps an outcome: on disk before this returns, fsynced every few hundred lines or two seconds.

        Returns:
            Where it stands, also if it is an error.

        Raises:
            OSError: it could not be written (a full disk); nothing of it is left.
        """
        row = {
            "key": request.key,
            "status": outcome.status,
            "text": outcome.text,
            "id": request.id,
            "model": request.model,
        }
        line, position = (json.dumps(row, ensure_ascii=False) + "\n").encode(errors="replace"), self._end
        try:
            while line:  # a short write is possible on a full disk or a signal
                written = os.write(self._fd, line)
                line, self._end = line[written:], self._end + written
        except OSError:
            # Other requests may still end: their lines must not stand behind a torn one, which no later run
            # could read.
            os.ftruncate(self._fd, position)
            self._end = position
            raise
        if outcome.is_answer:
            self._index[request.key] = position
        self._unsynced += 1
        if self._unsynced >= _SYNC_LINES or time.monotonic() - self._synced_at > _SYNC_SECONDS:
            self.sync()
        return position

    def sync(self) -> None:
        """Puts everything written so far on the disk itself."""
        os.fsync(self._fd)
        self._unsynced, self._synced_at = 0, time.monotonic()

    def close(self) -> None:
        if self._fd >= 0:
            self.sync()
            self._lines.close()
            self._index.close()
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
