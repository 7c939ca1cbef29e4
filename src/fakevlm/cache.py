"""The one cache: values that take long to make, or cost money, by key in a SQLite file.

A key is the SHA-256 of everything that decides the value: the model's commit or digest, settings, the image's
hash, the question, and the code that computes the answer (`code_version`). So a killed stage goes on where it
stopped. Work in progress lies in `paths.work()`, which the stage runner removes once its stage has succeeded.
Answers of servers, which cost money, and predictions of evaluated methods stay (`kept`).
"""

import ast
import contextlib
import functools
import hashlib
import importlib.util
import io
import json
import sqlite3
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.progress import say

_WAIT = 60.0  # seconds for another process that writes
_PARSING = threading.Lock()  # Python 3.11's parser fails where several threads are in it
_JSON = ".json"  # ends the name of a column that is stored as JSON


def key(*parts: Any) -> str:
    """Return the key of a value that these parts (as JSON has them) decide."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Cache(contextlib.AbstractContextManager):
    """Values by key in a SQLite file, safe against `kill -9`, for several threads and processes at once.

    The file is made with its folder if missing; without one (None) the cache is in memory.

    Raises:
        UserError: the file is damaged or no cache, or cannot be read or written; also while it is used.
    """

    def __init__(self, file: Path | None) -> None:
        self.file, self._lock = file, threading.Lock()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        with self._errors():
            self._db = sqlite3.connect(
                file or ":memory:", timeout=_WAIT, isolation_level=None, check_same_thread=False
            )
            self._use_wal()
            self._db.execute("PRAGMA synchronous=NORMAL")  # a killed process loses nothing
            self._db.execute("CREATE TABLE IF NOT EXISTS cache (key BLOB PRIMARY KEY, value BLOB NOT NULL)")
            with contextlib.suppress(sqlite3.OperationalError):  # there, unless by an earlier version
                self._db.execute("ALTER TABLE cache ADD COLUMN crc INTEGER")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of SQLite into the user's."""
        try:
            yield
        except (sqlite3.DatabaseError, OverflowError) as error:
            what, cure = "cannot be read or written", "is the disk full, or has this user no rights there?"
            if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                what = "is damaged or no cache"
                cure = "restore a copy, or remove it with -wal and -shm beside it"
            raise UserError(f"{self.file} {what}: {error}", cure) from error

    def _use_wal(self) -> None:
        """Write ahead. SQLite itself does not wait here while another process opens the new file too."""
        until = time.monotonic() + _WAIT
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def get(self, key: str) -> bytes | None:
        """Return the value of a key, or None."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one; a value that was damaged on the disk is none."""
        query, values = "SELECT value, crc FROM cache WHERE key = ?", {}
        with self._lock, self._errors():
            for key in keys:
                for value, crc in self._db.execute(query, [bytes.fromhex(key)]):
                    if crc in (None, zlib.crc32(value)):
                        values[key] = value
                    else:
                        say(f"{self.file}: a value is damaged, and is computed or asked for again")
        return values

    def put(self, key: str, value: bytes) -> None:
        """Store a value; see `put_many`."""
        self.put_many({key: value})

    def put_many(self, values: Mapping[str, bytes]) -> None:
        """Store values, all or none, before it returns. A key that has a value gets the new one."""
        rows = [(bytes.fromhex(key), value, zlib.crc32(value)) for key, value in values.items()]
        with self._lock, self._errors(), self._db:  # which commits, or rolls back
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO cache VALUES (?, ?, ?)", rows)

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._db.close()


def work(*names: str) -> Cache:
    """Return the cache of the running stage, which goes with its work in progress."""
    return Cache(paths.work().joinpath(*names or ("cache",)).with_suffix(".sqlite"))


def kept(name: str, make: bool = True) -> Cache:
    """Return a cache that stays: `answers` of all servers, `predictions` of the methods evaluated here.

    It belongs to the checkout, also for workspaces of `dvc exp run --temp`, which lie in the checkout's .dvc.
    A dry run does not `make` a missing file.
    """
    root = paths.root()
    checkout = next((folder.parent for folder in root.parents if folder.name == ".dvc"), root)
    file = checkout / "runs" / f"{name}.sqlite"
    return Cache(file if make or file.exists() else None)


answers = functools.partial(kept, "answers")


def pack(columns: Mapping[str, np.ndarray]) -> bytes:
    """Return named arrays as bytes. Arrays of objects hold what JSON holds."""
    arrays = {}
    for name, values in columns.items():
        if values.dtype.hasobject:
            name, values = name + _JSON, np.frombuffer(json.dumps(values.tolist()).encode(), np.uint8)
        arrays[name] = values
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays that `pack` was given, in their order."""
    columns = {}
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        for name, values in arrays.items():
            if name.endswith(_JSON):
                name, items = name.removesuffix(_JSON), json.loads(values.tobytes())
                values = np.empty(len(items), object)
                values[:] = items
            columns[name] = values
    return columns


def model_version(name: str | Path) -> str:
    """Return what identifies a model's weights: a digest of its folder, or its commit on the hub.

    Args:
        name: a folder, a repository of the hub (`owner/name`), or a timm model (without `/`).

    Raises:
        UserError: there is no such model.
    """
    folder, repository = paths.resolve(name), str(name)
    if folder.is_dir():  # names and contents of its files, its card left out
        files = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".md")
        parts = "".join(f"{file.name}\0{file_digest(file)}\0" for file in files)
        return hashlib.sha256(parts.encode()).hexdigest()[:32]
    from huggingface_hub import hf_hub_download

    if "/" not in repository:
        from timm.models import get_pretrained_cfg

        repository = getattr(get_pretrained_cfg(repository), "hf_hub_id", None) or repository
    try:
        file = hf_hub_download(repository, "config.json")
    except (OSError, ValueError) as error:
        cure = "name a folder in Hugging Face format or a model of the hub"
        raise UserError(f"no model could be found under {str(name)!r}: {error}", cure) from error
    return Path(file).parent.name  # …/snapshots/<commit>/config.json


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digests(folder: Path, part: slice = slice(None)) -> dict[str, str]:
    """Return the SHA-256 of a `part` of the files in a folder and below (all), by their paths in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())[part]
    return {str(file.relative_to(folder)): file_digest(file) for file in files}


def damage(folder: Path, mark: Path) -> str | None:
    """Return the first file of a folder that is not as `mark`, the JSON of its `digests`, says, or None."""
    name = mark.name
    try:
        for name, digest in json.loads(mark.read_text(encoding="utf-8")).items():
            if file_digest(folder / name) != digest:
                return name
    except (OSError, ValueError, AttributeError):  # missing, cut
        return name
    return None


@functools.cache
def code_version(*names: str) -> str:
    """Return a hash of what modules (`fakevlm.inference.generate`) and whole packages compute.

    Comments, docstrings and what `raise` says do not count: an edited error message makes no value stale.
    """
    digest = hashlib.sha256()
    for name in names:
        origin = Path(importlib.util.find_spec(name).origin)
        package = origin.name == "__init__.py"
        for file in sorted(origin.parent.rglob("*.py")) if package else [origin]:
            where = f"{name}/{file.relative_to(origin.parent)}" if package else name
            with _PARSING:
                tree = _Computing().visit(ast.parse(file.read_bytes()))
            digest.update(f"{where}\0{ast.dump(tree)}\0".encode())
    return digest.hexdigest()


class _Computing(ast.NodeTransformer):
    """Drops what no value depends on: docstrings, and what is raised."""

    def visit_Raise(self, node: ast.Raise) -> ast.Raise:
        return ast.Raise()

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if text else self.generic_visit(node)
