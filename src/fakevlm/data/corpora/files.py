"""What all readers share: finding folders and images, reading JSON, and setting aside what cannot be read."""

import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from fakevlm.data.records import Record, rgb
from fakevlm.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


class BadImage(ValueError):
    """An image that does not decode; the message is the reason."""


@dataclass
class Quarantine:
    """What was found but could not be used: counted and listed, never fatal.

    Attributes:
        rows: (corpus, path, reason).
    """

    _rows: dict[tuple[str, str, str], None] = field(default_factory=dict)

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        return list(self._rows)

    def add(self, corpus: str, path: str, reason: str) -> None:
        """Notes one thing set aside; the same thing met again is not counted twice."""
        self._rows.setdefault((corpus, path, " ".join(reason.split())))

    def take(self, others: "Quarantine") -> None:
        """Notes all that another one holds."""
        self._rows.update(others._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=["corpus", "path", "reason"])


def file_stamp(file: Path) -> list[int] | None:
    """Return size and time of a file, None if there is none: part of a cache key."""
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def need_folder(path: Path, corpus: str, where: str) -> Path:
    """The folder, if it is there.

    Raises:
        UserError: it is not; says which corpus wants it and where that comes from.
    """
    if not path.is_dir():
        raise UserError(
            f"{corpus}: no folder {path}", f"{where}; or leave the corpus out with null in params.yaml"
        )
    return path


def need_json(path: Path, corpus: str, where: str, kind: type[list] | type[dict] = list) -> Any:
    """Return the content of a JSON file in UTF-8, UTF-16 or UTF-32, with or without byte order mark.

    Raises:
        UserError: the file is missing or not JSON, or holds something else than a `kind`.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{corpus}: no file {path}", where) from error
    try:
        found = json.loads(raw)
    except ValueError as error:
        raise UserError(f"{corpus}: {path} is not readable JSON ({error})", where) from error
    if not isinstance(found, kind):
        raise UserError(f"{corpus}: {path} holds no {kind.__name__}, as it should", where)
    return found


def appledouble(name: str) -> bool:
    """Whether a file is macOS's companion of another one (`._000.mp4`): the same suffix, but no image."""
    return name.startswith("._")


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not appledouble(name)


def images(folder: Path) -> Iterator[Path]:
    """The image files of one folder (not of its subfolders), by name."""
    yield from (folder / name for name in _listed(folder)[0] if _is_image(name))


def images_below(folder: Path) -> Iterator[Path]:
    """The image files of a folder and its subfolders, by path."""
    yield from sorted(place / name for place, names in _below(folder) for name in names if _is_image(name))


def count_images(*folders: Path) -> int:
    """Return the number of image files in folders and below them; missing folders hold none."""
    return sum(
        _is_image(name)
        for folder in folders
        if folder.is_dir()
        for _, names in _below(folder)
        for name in names
    )


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of a folder's files and of its folders, sorted.

    Raises:
        UserError: the folder cannot be listed.
    """
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file():
                    files.append(entry.name)
                elif entry.is_dir():
                    folders.append(entry.name)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be listed: {error.strerror}", "give yourself the right to read it, or mount it"
        ) from error
    return sorted(files), sorted(folders)


def _below(folder: Path, seen: set[str] | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and all below it, with the names of their files; links are followed."""
    seen = set() if seen is None else seen
    if (real := os.path.realpath(folder)) in seen:  # a link back up would have no end
        return
    seen.add(real)
    files, folders = _listed(folder)
    yield folder, files
    for name in folders:
        yield from _below(folder / name, seen)


def decoded(record: Record) -> Image.Image:
    """The record's image as RGB, decoded to be sure that it can be; the record gets its width and height.

    Raises:
        BadImage: empty, not an image, truncated, or of pixels of no known range.
    """
    if not record.image:
        raise BadImage("empty file")
    try:
        with Image.open(io.BytesIO(record.image)) as image:
            image.load()
            record.width, record.height = image.size
            return rgb(image)
    except Image.DecompressionBombError as error:
        raise BadImage(f"too many pixels: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a broken file can raise anything: each format has a reader of its own
        # Pillow's own words for an unknown format hold the address of a buffer, which differs from run to
        # run.
        unknown = "cannot identify" in str(error)
        raise BadImage("not a known image format" if unknown else str(error) or repr(error)) from error
