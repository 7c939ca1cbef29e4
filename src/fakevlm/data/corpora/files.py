"""What the readers share: finding folders and images, reading JSON, and naming what cannot be read."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from PIL import Image

from fakevlm.data.records import Record, decode
from fakevlm.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
Drawn = Callable[[str], bool]  # whether a record is drawn, by its id


class BadImage(ValueError):
    """An image that does not decode; the message is the reason."""


class Unusable(NamedTuple):
    """A missing or unreadable part of a corpus: a row of quarantine.csv."""

    corpus: str
    path: str
    reason: str


class Source(NamedTuple):
    """A public corpus: its name in messages, and how to get it."""

    name: str
    get: str

    def error(self, problem: str) -> UserError:
        """Return the error to raise about this corpus."""
        return UserError(f"{self.name}: {problem}", self.get)

    def folder(self, path: Path) -> Path:
        """Return the folder. Raises `UserError` if it is missing, with the way to get the corpus."""
        if not path.is_dir():
            cure = f"{self.get}; or leave the corpus out with null in params.yaml"
            raise UserError(f"{self.name}: no folder {path}", cure)
        return path

    def json(self, path: Path, kind: type[list] | type[dict] = list) -> Any:
        """Return the content, a `kind`, of a JSON file in UTF-8, UTF-16 or UTF-32, or raise a `UserError`."""
        try:
            content = json.loads(path.read_bytes())
        except OSError as error:
            raise self.error(f"no file {path}") from error
        except ValueError as error:
            raise self.error(f"{path} is not readable JSON ({error})") from error
        if not isinstance(content, kind):
            raise self.error(f"{path} holds no {kind.__name__}, as it should")
        return content


_LISTED = yaml.safe_load(Path(__file__).with_name("sources.yaml").read_text(encoding="utf-8"))
SOURCES = {key: Source(**entry) for key, entry in _LISTED.items()}


def load(file: Path, id: str, drawn: Drawn | None, **fields: Any) -> Iterator[Record]:
    """Yield the record of an image file if it is drawn; otherwise nothing, and the file is not read."""
    if drawn is None or drawn(id):
        yield Record(id=id, image=file.read_bytes(), **fields)


def file_stamp(file: Path) -> list[int] | None:
    """Return size and time of a file, None if there is none: part of a cache key."""
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def appledouble(name: str) -> bool:
    """Whether a file is macOS's companion of another one (`._000.mp4`): the same suffix, but no image."""
    return name.startswith("._")


def images(folder: Path) -> list[Path]:
    """Return the image files of a folder and its subfolders, by path; none if there is no folder."""
    return sorted(_images(folder))


def count_images(*folders: Path) -> int:
    """Return the number of image files in folders and below them; missing folders hold none."""
    return sum(1 for folder in folders for _ in _images(folder))


def _images(folder: Path) -> Iterator[Path]:
    """Yield the image files of a folder and its subfolders; links are followed, each folder once."""

    def fail(error: OSError) -> None:
        if not folder.exists():
            return
        what = f"{error.filename} cannot be listed: {error.strerror}"
        raise UserError(what, "give yourself the right to read it, or mount it") from error

    visited = set()
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # a link back up would have no end
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        for file in (Path(place, name) for name in names if not appledouble(name)):
            if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file():
                yield file


def decoded(record: Record) -> Image.Image:
    """Return the record's image as RGB and set its width and height. Raises `BadImage` if it is broken."""
    if not record.image:
        raise BadImage("empty file")
    try:
        image = decode(record.image)
        record.width, record.height = image.size
        return image
    except Image.DecompressionBombError as error:
        raise BadImage(f"too many pixels: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a broken file can raise anything
        # Pillow's words for an unknown format hold the address of a buffer, which differs from run to run.
        unknown = "cannot identify" in str(error)
        raise BadImage("not a known image format" if unknown else str(error) or repr(error)) from error
