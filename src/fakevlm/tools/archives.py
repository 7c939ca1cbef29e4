"""Unpack a corpus's archive (zip, tar, tar.gz, …) safely: `fakevlm unpack FILE FOLDER`.

All is done in a hidden folder beside the wanted one, which is renamed when every file is there: a folder with
its final name is complete, and an interrupted run goes on. Refused are paths and links out of the folder,
devices, a name twice, and too many bytes (a "zip bomb").
"""

import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

from fakevlm.data.corpora.files import unknown_packing
from fakevlm.errors import UserError

# GenImage, the largest corpus, has 0.5 TB. Images hardly shrink and JSON does about tenfold.
MAX_BYTES, MAX_RATIO = 2_000_000_000_000, 100
NO_DANGER = 10_000_000  # bytes below which the ratio is not checked: a small text may shrink by any factor
SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
BROKEN = (zipfile.BadZipFile, gzip.BadGzipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)

Entry = tuple[PurePosixPath, int, Callable[[], object]]  # path and size of a file, and what writes it


class _Refused(Exception):
    """Why an archive is not unpacked, and what to do about it."""

    def __init__(self, why: str, cure: str = "fetch it again from the corpus's own page") -> None:
        self.why, self.cure = why, cure


def _checked(name: str) -> PurePosixPath:
    """Return the path of an entry or of a link's target; refuse one that is not inside the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(c in name for c in "\\\0"):
        raise _Refused(f"holds the entry {name!r}, which leads out of the folder")
    if path.parts and ":" in path.parts[0]:
        raise _Refused(f"holds the entry {name!r}, which names a drive")
    return path


def _zip_entries(archive: Path, folder: Path) -> Iterator[Entry]:
    with zipfile.ZipFile(archive) as opened:
        files = [info for info in opened.infolist() if not info.is_dir()]
        total = sum(info.file_size for info in files)  # zipfile never writes more than the headers say
        done = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if total - done > (free := shutil.disk_usage(folder).free):
            raise OSError(f"it needs {total - done:,} more bytes, and {free:,} are free in {folder.parent}")
        for info in files:
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
                raise _Refused(f"holds {info.filename!r}, which is a link or a device")
            if info.flag_bits & 0x1:
                raise UserError(f"{archive} is encrypted", "unpack it by hand with its password")
            if method := unknown_packing(info):
                what = f"{archive} is packed by {method}, which Python does not know"
                raise UserError(what, "unpack it by hand, for example with 7-Zip: `7z x`")
            yield _checked(info.filename), info.file_size, lambda info=info: opened.extract(info, folder)


class _Header(tarfile.TarInfo):
    """A header in a tar. `tarfile` takes a broken or missing one for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Header":
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if archive.offset == 0 or isinstance(error, tarfile.EOFHeaderError):  # a block of zeros
                raise
            raise EOFError(f"{error} where a file or the end should be") from error


def _tar_entries(archive: Path, folder: Path) -> Iterator[Entry]:
    with tarfile.open(archive, errorlevel=2, tarinfo=_Header) as opened:
        while (member := opened.next()) is not None:
            opened.members.clear()  # tarfile would keep a million of them
            name = _checked(member.name)
            if any((folder / parent).is_symlink() for parent in name.parents):
                raise _Refused(f"holds {member.name!r}, below a link")
            if member.issym() or member.islnk():
                target = folder / _checked(member.linkname)
                if member.islnk() and (target.is_symlink() or not target.is_file()):
                    raise _Refused(f"holds {member.name!r}, a hard link to no file before it")
            if not member.isdir():
                size = member.size if member.isreg() else -1  # links are made anew
                yield name, size, lambda member=member: opened.extract(member, folder, filter="data")
        while rest := opened.fileobj.read(1 << 20):  # with it the checksum of what was packed is read
            if rest.count(0) < len(rest):
                raise EOFError("more follows its end")


def _unpack(archive: Path, folder: Path, max_bytes: int, max_ratio: float) -> int:
    """Write the files that are not there yet; return the number of all."""
    is_zip = archive.name.lower().endswith(".zip")
    max_packed = max(archive.stat().st_size * max_ratio, NO_DANGER)
    names, total = set(), 0
    for name, size, write in (_zip_entries if is_zip else _tar_entries)(archive, folder):
        if name in names:
            raise _Refused(f"holds {str(name)!r} twice")
        names.add(name)
        total += max(size, 0)
        if total > max_bytes:
            raise _Refused(f"unpacks to more than {max_bytes:,} bytes", "raise --max-bytes if it may")
        if total > max_packed:
            why = f"unpacks to more than {max_ratio:g} times its size"
            raise _Refused(why, "raise --max-ratio if it may")
        file = folder / name
        if not file.is_symlink() and file.is_file() and file.stat().st_size == size:
            continue  # from an earlier run; an interrupted file is shorter
        if size < 0:
            file.unlink(missing_ok=True)
        try:
            write()
        except (tarfile.FilterError, tarfile.ExtractError) as error:
            raise _Refused(f"holds the entry {str(name)!r}: {error}") from error
    return len(names)


def _check_kind(archive: Path) -> None:
    if not archive.is_file():
        raise UserError(f"no archive {archive}", "name a file that is there")
    suffix = archive.suffix.lower()
    if (suffix.startswith(".z") and suffix[2:].isdigit()) or archive.with_suffix(".z01").exists():
        last = archive.with_suffix(".zip").name
        what = f"{archive} is one piece of a multi-part zip ({archive.stem}.z01, …, {last})"
        join = f"with all pieces in one folder join them, `zip -s 0 {last} --out whole.zip`"
        raise UserError(what, f"{join}, and unpack whole.zip")
    if not archive.name.lower().endswith(SUFFIXES):
        raise UserError(f"{archive}: unknown kind of archive", f"one of: {', '.join(SUFFIXES)}")


def unpack(archive: Path, folder: Path, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO) -> int:
    """Unpack an archive into a new or empty folder; return the number of files. A second call continues.

    The limits are of the bytes written, `max_ratio` in multiples of the archive's size. Raises `UserError` if
    the folder has content, or the archive is missing, broken, of an unknown kind, a piece, or refused.
    """
    _check_kind(archive)
    folder = folder.resolve()  # the hidden folder is on the disk that a link leads to
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is there already and no folder", "name another folder, or remove it")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is there already and not empty", "name another folder, or remove this one")
    # Named after the archive and its size: another archive never continues what this one left behind.
    staging = folder.with_name(f".{folder.name}.{archive.name}.{archive.stat().st_size}.part")
    staging.mkdir(parents=True, exist_ok=True)
    try:
        files = _unpack(archive, staging, max_bytes, max_ratio)
    except _Refused as error:
        raise UserError(f"{archive}: refused, it {error.why}", error.cure) from error
    except BROKEN as error:
        cure = "fetch it again; what was unpacked so far is kept and used"
        raise UserError(f"{archive} is damaged ({type(error).__name__}: {error})", cure) from error
    except OSError as error:  # no room, no rights, a name that is both file and folder
        cure = "cure that and run it again; it goes on from there"
        raise UserError(f"{archive}: unpacking stopped ({error})", cure) from error
    if folder.is_dir():
        folder.rmdir()
    staging.rename(folder)
    return files
