"""Unpacks a corpus's archive (zip, tar, tar.gz, …) without trusting it: `fakevlm unpack FILE FOLDER`.

Everything goes to a hidden folder beside the wanted one, each file under a temporary name first, and that folder is renamed
when all of it is there. So a folder with its final name is whole, and an interrupted run goes on with the files it lacks.

Refused: absolute paths and `..`, links that lead upwards, devices, names that occur twice, more bytes than allowed or than the disk
has, and a compression ratio that no corpus has (a "zip bomb"). Owners and permissions that an archive asks for are ignored.
"""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn

from fakevlm.errors import UserError

# GenImage, the largest corpus, has 0.5 TB. Images hardly shrink and JSON does about tenfold.
MAX_BYTES, MAX_RATIO = 2_000_000_000_000, 100
NO_DANGER = 10_000_000  # bytes below which no ratio matters: a small text may shrink by any factor
CHUNK = 1 << 20
ZIPS, TARS = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


def _refuse(archive: Path, why: str, cure: str = "fetch it again from the corpus's own page") -> NoReturn:
    raise UserError(f"{archive}: refused, it {why}", cure)


@dataclass
class Budget:
    """How much may be written. Counted while writing, since the sizes in an archive's headers may lie."""

    archive: Path
    max_bytes: int
    max_ratio: float
    spent: int = 0

    def spend(self, n: int) -> None:
        """Counts n bytes.

        Raises:
            UserError: that is more than allowed.
        """
        self.spent += n
        if self.spent > self.max_bytes:
            _refuse(
                self.archive, f"unpacks to more than {self.max_bytes:,} bytes", "raise --max-bytes if it may"
            )
        if self.spent > max(self.archive.stat().st_size * self.max_ratio, NO_DANGER):
            _refuse(
                self.archive,
                f"unpacks to more than {self.max_ratio:g} times its size",
                "raise --max-ratio if it may",
            )


def safe_name(archive: Path, name: str) -> PurePosixPath:
    """The path of an entry, relative to the folder and inside it.

    Raises:
        UserError: it is absolute or holds `..`, a drive, a backslash or a NUL.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(c in name for c in "\\\0"):
        _refuse(archive, f"holds the entry {name!r}, which leads out of the folder")
    if path.parts and ":" in path.parts[0]:
        _refuse(archive, f"holds the entry {name!r}, which names a drive")
    return path


def _place(archive: Path, folder: Path, name: PurePosixPath) -> Path:
    """Where an entry goes; nothing is written through a link that came from the archive itself."""
    place = folder
    for part in name.parts[:-1]:
        place = place / part
        if place.is_symlink():
            _refuse(archive, f"holds {str(name)!r}, below a link")
    return folder.joinpath(*name.parts)


def _write(source: IO[bytes], target: Path, size: int, budget: Budget) -> None:
    """Copies one file under a temporary name, then renames it; one of the right size is there from a run before."""
    if target.is_file() and not target.is_symlink() and target.stat().st_size == size:
        budget.spend(size)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(".part")  # one file is written at a time
    with partial.open("wb") as out:
        while chunk := source.read(CHUNK):
            budget.spend(len(chunk))
            out.write(chunk)
    os.replace(partial, target)


def _need_single_zip(archive: Path) -> None:
    """Raises `UserError` for a piece of a multi-part zip, as GenImage's generators come."""
    suffix = archive.suffix.lower()
    if (suffix.startswith(".z") and suffix[2:].isdigit()) or archive.with_suffix(".z01").exists():
        last = archive.with_suffix(".zip").name
        raise UserError(
            f"{archive} is one piece of a multi-part zip ({archive.stem}.z01, …, {last})",
            f"with all pieces in one folder join them, `zip -s 0 {last} --out whole.zip`, and unpack whole.zip",
        )


def _zip_entries(archive: Path, opened: zipfile.ZipFile, budget: Budget) -> list[zipfile.ZipInfo]:
    """A zip's files, once its whole table of contents has been checked: nothing is written before."""
    files, total = {}, 0
    for info in opened.infolist():
        name = safe_name(archive, info.filename)
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            _refuse(archive, f"holds {info.filename!r}, which is a link or a device")
        if info.flag_bits & 0x1:
            raise UserError(f"{archive} is encrypted", "unpack it by hand with its password")
        if info.is_dir():
            continue
        if files.setdefault(name, info) is not info:
            _refuse(archive, f"holds {info.filename!r} twice")
        total += info.file_size
    Budget(archive, budget.max_bytes, budget.max_ratio).spend(total)
    return list(files.values())


def _unpack_zip(archive: Path, folder: Path, budget: Budget) -> int:
    with zipfile.ZipFile(archive) as opened:
        entries = _zip_entries(archive, opened, budget)
        there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        free, total = shutil.disk_usage(folder).free, sum(info.file_size for info in entries)
        if total - there > free:
            raise UserError(
                f"{archive} unpacks to {total:,} bytes, of which {there:,} are there; {free:,} are free in {folder.parent}",
                "make room, or name a folder on another disk",
            )
        for info in entries:
            with opened.open(info) as source:
                target = _place(archive, folder, PurePosixPath(info.filename))
                _write(source, target, info.file_size, budget)
    return len(entries)


def _link(archive: Path, folder: Path, member: tarfile.TarInfo, target: Path) -> None:
    """A link that only leads downwards from where it lies, so that no chain of such links leads out."""
    aim = safe_name(archive, member.linkname)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if member.issym():
        target.symlink_to(str(aim))
        return
    source = _place(archive, folder, aim)
    if source.is_symlink() or not source.is_file():
        _refuse(archive, f"holds {member.name!r}, a hard link to {str(aim)!r}, which is not a file before it")
    os.link(source, target)


def _unpack_tar(archive: Path, folder: Path, budget: Budget) -> int:
    standard = getattr(tarfile, "data_filter", None)  # Python's own checks: from 3.11.4 on
    seen: set[PurePosixPath] = set()
    with tarfile.open(archive) as opened:
        while (member := opened.next()) is not None:
            opened.members.clear()  # tarfile would keep a million of them
            name = safe_name(archive, member.name)
            if standard is not None:
                try:
                    standard(member, str(folder))
                except tarfile.FilterError as error:
                    _refuse(archive, f"holds the entry {member.name!r}: {error}")
            target = _place(archive, folder, name)
            if member.isdir():
                if target.is_symlink():
                    _refuse(archive, f"holds {member.name!r} as a link and as a folder")
                target.mkdir(parents=True, exist_ok=True)
                continue
            if name in seen:
                _refuse(archive, f"holds {member.name!r} twice")
            seen.add(name)
            if member.issym() or member.islnk():
                _link(archive, folder, member, target)
            elif member.isreg():
                source = opened.extractfile(member)
                assert source is not None, "a regular file has content"
                _write(source, target, member.size, budget)
            else:
                _refuse(archive, f"holds {member.name!r}, which is a device")
    return len(seen)


def unpack(archive: Path, folder: Path, max_bytes: int = MAX_BYTES, max_ratio: float = MAX_RATIO) -> int:
    """Unpacks an archive into a new folder; returns how many files. Run again after an interruption, it goes on.

    Args:
        folder: where to; must not exist, or be empty.
        max_bytes: the most that may be written.
        max_ratio: the most that may be written, in multiples of the archive's size.

    Raises:
        UserError: the folder is there, the archive is missing, broken, of an unknown kind, a piece of several, or refused.
    """
    kind = next(
        (k for k, ends in (("zip", ZIPS), ("tar", TARS)) if archive.name.lower().endswith(ends)), None
    )
    if not archive.is_file():
        raise UserError(f"no archive {archive}", "name a file that is there")
    _need_single_zip(archive)
    if kind is None:
        raise UserError(f"{archive}: not an archive known here", f"one of: {', '.join((*ZIPS, *TARS))}")
    folder = (
        folder.resolve()
    )  # what is unpacked lies beside it for a while: where a link leads to, there is the room
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is there already and no folder", "name another folder, or remove it")
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is there already and not empty", "name another folder, or remove this one")
    # The archive's name and size: another one never goes on with what this one left behind.
    staging = folder.with_name(f".{folder.name}.{archive.name}.{archive.stat().st_size}.part")
    staging.mkdir(parents=True, exist_ok=True)
    budget = Budget(archive, max_bytes, max_ratio)
    try:
        files = (_unpack_zip if kind == "zip" else _unpack_tar)(archive, staging, budget)
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
