"""What took long to make, kept until its stage has ended: a collection that was killed does not make it again."""

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

Files = list[tuple[str, bytes]]


def stamp(file: Path) -> list[int] | None:
    """Size and time of a file, None where there is none: part of the key of what is made from it."""
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def source(modules: Sequence[ModuleType]) -> str:
    """Hash of modules' code: part of the key of what it makes, for a folder of work in progress outlives a change of it."""
    return hashlib.sha256(b"".join(Path(module.__file__).read_bytes() for module in modules)).hexdigest()


class Kept:
    """Lists of named files by key.

    One zip archive each, without compression, whole or not there at all: so a kill at any time does no harm. May be used by
    several threads.

    Args:
        folder: of the archives; made when the first is put. None: nothing is kept.
        key: what decides all of them, as JSON has it.
    """

    def __init__(self, folder: Path | None = None, key: Any = None) -> None:
        self._folder, self._key = folder, key

    def _archive(self, key: Any) -> Path:
        digest = hashlib.sha256(json.dumps([self._key, key], sort_keys=True).encode()).hexdigest()
        return self._folder / digest[:2] / f"{digest[2:32]}.zip"

    def get(self, key: Any) -> Files | None:
        """What was put under a key (anything JSON holds), None if nothing, or if it cannot be read any more."""
        if self._folder is None:
            return None
        try:
            with zipfile.ZipFile(self._archive(key)) as archive:
                return [(name, archive.read(name)) for name in archive.namelist()]
        except (OSError, zipfile.BadZipFile):
            return None

    def put(self, key: Any, files: Files) -> None:
        """Keeps files of different names under a key."""
        if self._folder is None:
            return
        whole = self._archive(key)
        whole.parent.mkdir(parents=True, exist_ok=True)
        part = whole.with_suffix(".part")
        with zipfile.ZipFile(part, "w") as archive:
            for name, data in files:
                archive.writestr(zipfile.ZipInfo(name), data)
        os.replace(part, whole)
