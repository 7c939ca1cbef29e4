"""Unpack a corpus's archive (zip, tar, tar.gz, …) safely: `fakevlm unpack FILE FOLDER`.

`zipfile` and `tarfile` (with `filter="data"`) do the work, in a hidden folder beside the wanted one, which is
renamed when all files are there. So a folder with its final name is complete, and an interrupted run
continues with the files that are missing.

Refused: absolute paths and `..`, links that lead upwards, devices, names that occur twice, more bytes than
allowed or than the disk has, and a compression ratio that no corpus has (a "zip bomb").
"""

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NoReturn

from fakevlm.errors import UserError

# GenImage, the largest corpus, has 0.5 TB. Images hardly shrink and JSON does about tenfold.
MAX_BYTES, MAX_RATIO = 2_000_000_000_000, 100
NO_DANGER = 10_000_000  # bytes below which the ratio is not checked: a small text may shrink by any factor
ZIPS, TARS = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)

CheckSize = Callable[[int], None]  # raises UserError when so many unpacked bytes are too many


class _Refused(Exception):
    """Why an archive is not unpacked."""


def _refuse(why: str) -> NoReturn:
    raise _Refused(why)


def _checked_path(name: str) -> PurePosixPath:
    """Return the path of an entry or of a link's target; refuse one that is not inside the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(c in name for c in "\\\0"):
        _refuse(f"holds the entry {name!r}, which leads out of the folder")
    if path.parts and ":" in path.parts[0]:
        _refuse(f"holds the entry {name!r}, which names a drive")
    return path


def _unpacked(target: Path, size: int) -> bool:
    """Whether an earlier run wrote this file: an interrupted one is shorter."""
    return target.is_file() and not target.is_symlink() and target.stat().st_size == size


def _unpack_zip(archive: Path, folder: Path, check_size: CheckSize) -> int:
    """Check the whole table of contents, then unpack."""
    files: dict[PurePosixPath, zipfile.ZipInfo] = {}
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            name = _checked_path(info.filename)
            if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(f"holds {info.filename!r}, which is a link or a device")
            if info.flag_bits & 0x1:
                raise UserError(f"{archive} is encrypted", "unpack it by hand with its password")
            if not info.is_dir() and files.setdefault(name, info) is not info:
                _refuse(f"holds {info.filename!r} twice")
        total = sum(
            info.file_size for info in files.values()
        )  # zipfile never writes more than the headers say
        check_size(total)
        done = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        if total - done > (free := shutil.disk_usage(folder).free):
            raise UserError(
                f"{archive} unpacks to {total:,} bytes, of which {done:,} are there; {free:,} are free in "
                f"{folder.parent}",
                "make room, or name a folder on another disk",
            )
        for name, info in files.items():
            if not _unpacked(folder / name, info.file_size):
                opened.extract(info, folder)
    return len(files)


def _unpack_tar(archive: Path, folder: Path, check_size: CheckSize) -> int:
    names: set[PurePosixPath] = set()
    total = 0
    with tarfile.open(archive, errorlevel=2) as opened:
        while (member := opened.next()) is not None:
            opened.members.clear()  # tarfile would keep a million of them
            name = _checked_path(member.name)
            if name in names:
                _refuse(f"holds {member.name!r} twice")
            if any((folder / parent).is_symlink() for parent in name.parents):
                _refuse(f"holds {member.name!r}, below a link")
            if not member.isdir():
                names.add(name)
            target = folder / name
            if member.issym() or member.islnk():
                source = folder / _checked_path(member.linkname)
                if member.islnk() and (source.is_symlink() or not source.is_file()):
                    _refuse(f"holds {member.name!r}, a hard link to {member.linkname!r}, no file before it")
                target.unlink(missing_ok=True)
            total += member.size  # tarfile never writes more than the header says
            check_size(total)
            if not (member.isreg() and _unpacked(target, member.size)):
                try:
                    opened.extract(member, folder, filter="data")
                except (tarfile.FilterError, tarfile.ExtractError) as error:
                    _refuse(f"holds the entry {member.name!r}: {error}")
    return len(names)


def _size_check(archive: Path, max_bytes: int, max_ratio: float) -> CheckSize:
    by_ratio = max(archive.stat().st_size * max_ratio, NO_DANGER)

    def check(total: int) -> None:
        if total > max_bytes:
            raise UserError(
                f"{archive}: refused, it unpacks to more than {max_bytes:,} bytes",
                "raise --max-bytes if it may",
            )
        if total > by_ratio:
            raise UserError(
                f"{archive}: refused, it unpacks to more than {max_ratio:g} times its size",
                "raise --max-ratio if it may",
            )

    return check


def _check_kind(archive: Path) -> bool:
    """Return whether the archive is a zip; raise `UserError` if it is not there, or neither zip nor tar."""
    if not archive.is_file():
        raise UserError(f"no archive {archive}", "name a file that is there")
    suffix = archive.suffix.lower()
    if (suffix.startswith(".z") and suffix[2:].isdigit()) or archive.with_suffix(".z01").exists():
        last = archive.with_suffix(".zip").name
        raise UserError(
            f"{archive} is one piece of a multi-part zip ({archive.stem}.z01, …, {last})",
            f"with all pieces in one folder join them, `zip -s 0 {last} --out whole.zip`, "
            "and unpack whole.zip",
        )
    if not archive.name.lower().endswith((*ZIPS, *TARS)):
        raise UserError(f"{archive}: not an archive known here", f"one of: {', '.join((*ZIPS, *TARS))}")
    return archive.name.lower().endswith(ZIPS)


def unpack(archive: Path, folder: Path, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO) -> int:
    """Unpack an archive into a new folder and return the number of files; a second call continues.

    Args:
        folder: must not exist, or be empty; may be a link to a folder.
        max_bytes: limit of the bytes written.
        max_ratio: limit of the bytes written, in multiples of the archive's size.

    Raises:
        UserError: the folder exists, the archive is missing, broken, of an unknown kind, a piece of several,
            or refused.
    """
    is_zip = _check_kind(archive)
    folder = folder.resolve()  # the hidden folder lies on the disk that a link leads to
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is there already and no folder", "name another folder, or remove it")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is there already and not empty", "name another folder, or remove this one")
    # Named after the archive and its size: another archive never continues what this one left behind.
    staging = folder.with_name(f".{folder.name}.{archive.name}.{archive.stat().st_size}.part")
    staging.mkdir(parents=True, exist_ok=True)
    try:
        files = (_unpack_zip if is_zip else _unpack_tar)(
            archive, staging, _size_check(archive, max_bytes, max_ratio)
        )
    except _Refused as error:
        raise UserError(
            f"{archive}: refused, it {error}", "fetch it again from the corpus's own page"
        ) from error
    except BROKEN as error:
        raise UserError(
            f"{archive} is damaged ({type(error).__name__}: {error})",
            "fetch it again; what was unpacked so far is kept and used",
        ) from error
    except OSError as error:  # no room, no rights, a name that is both file and folder
        raise UserError(
            f"{archive}: unpacking stopped ({error})", "cure that and run it again; it goes on from there"
        ) from error
    if folder.is_dir():
        folder.rmdir()
    staging.rename(folder)
    return files
