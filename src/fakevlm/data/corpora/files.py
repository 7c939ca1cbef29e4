"""What the readers share: finding folders and images, reading JSON, and naming what cannot be read."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipInfo

import yaml
from PIL import Image

from fakevlm.data.records import Record, decode
from fakevlm.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff"})
# What systems and editors leave beside data: hidden files, thumbnails, trash.
_NO_DATA = re.compile(
    r"\..*|@eaDir|__MACOSX|#recycle|\$RECYCLE\.BIN|System Volume Information|lost\+found"
    r"|Thumbs\.db|desktop\.ini"
)
_PACKING = {9: "deflate64", 93: "zstd", 95: "xz", 98: "ppmd"}  # that Python's zipfile does not know
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

    def text(self, path: Path) -> str:
        """Return the text of a file in UTF-8, UTF-16 or UTF-32. Raises `UserError` if that fails."""
        if not path.is_file():  # a pipe would be waited for
            raise self.error(f"no file {path}")
        data = path.read_bytes()
        try:
            return data.decode(json.detect_encoding(data))
        except UnicodeDecodeError as error:
            what = f"{self.name}: {path} is not text in UTF-8, UTF-16 or UTF-32 ({error})"
            raise UserError(what, "convert it, if it is Latin-1 by `iconv -f latin1 -t utf-8`") from error

    def json(self, path: Path, kind: type[list] | type[dict] = list) -> Any:
        """Return the content, a `kind`, of a JSON file. Raises `UserError`, also for a key given twice."""
        try:
            content = json.loads(self.text(path), object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise self.error(f"{path} is not readable JSON ({error})") from error
        if not isinstance(content, kind):
            raise self.error(f"{path} holds no {kind.__name__}, as it should")
        return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises `ValueError` if a key stands in it twice."""
    if len(content := dict(pairs)) < len(pairs):
        raise ValueError(f"key twice: {Counter(key for key, _ in pairs).most_common(1)[0][0]!r}")
    return content


def inside(name: object) -> bool:
    """Return whether a name that a corpus's list gives is a path of a file in the corpus's own folder."""
    if not isinstance(name, str) or not name or len(name) > 1000 or re.search(r"[\\\0]", name):
        return False
    parts = PurePosixPath(name).parts
    too_long = any(len(part.encode(errors="replace")) > 255 for part in parts)
    return not too_long and {"/", "//", ".."}.isdisjoint(parts)


def unknown_packing(entry: ZipInfo) -> str | None:
    """Return the method by which an entry of a zip is packed if Python cannot unpack it, else None."""
    if (method := entry.compress_type) in (ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2, ZIP_LZMA):
        return None
    return _PACKING.get(method, f"method {method}")


_LISTED = yaml.safe_load(Path(__file__).with_name("sources.yaml").read_text(encoding="utf-8"))
SOURCES = {key: Source(**entry) for key, entry in _LISTED.items()}


def file_stamp(file: Path) -> list[int] | None:
    """Return size and time of a file, None if there is none: part of a cache key."""
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def listing(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the paths in a folder that match, sorted, without what is no data (`_NO_DATA`)."""
    paths = sorted(folder.glob(pattern))
    return [path for path in paths if not any(map(_NO_DATA.fullmatch, path.relative_to(folder).parts))]


def images(folder: Path) -> list[Path]:
    """Return the image files of a folder and its subfolders, by path; none if there is no folder."""
    return sorted(file for file in walk(folder) if not_read(file) is None)


def not_read(file: Path) -> str | None:
    """Return why a file is not read as an image, by its kind and suffix; None if it is."""
    if not file.is_file():
        return "a pipe or a device" if file.exists() else "a link to nothing"
    if file.suffix.lower() in IMAGE_SUFFIXES:
        return None
    return f"suffix {file.suffix}" if file.suffix else "no suffix"


def walk(folder: Path, visited: set[str] | None = None) -> Iterator[Path]:
    """Yield the files of a folder and its subfolders, without what is no data; links are followed.

    A folder is visited once, and not at all if it is among the `visited` (real paths), which are added to.
    """

    def fail(error: OSError) -> None:
        if not folder.exists():
            return
        what = f"{error.filename} cannot be listed: {error.strerror}"
        raise UserError(what, "give yourself the right to read it, or mount it") from error

    visited = set() if visited is None else visited
    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # a link back up would have no end
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not _NO_DATA.fullmatch(name))
        yield from (Path(place, name) for name in sorted(names) if not _NO_DATA.fullmatch(name))


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
