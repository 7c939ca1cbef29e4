"""Unpacking archives: good ones arrive whole, hostile ones write nothing outside the folder."""

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fakevlm.errors import UserError
from fakevlm.tools import archives
from fakevlm.tools.archives import unpack
from smallworld import content

GOOD = {"a/1.png": b"one" * 50, "a/b/2.png": b"two" * 70, "3.json": b"{}"}


def make(file: Path, entries: dict[str, bytes | tarfile.TarInfo], mode: int = 0) -> Path:
    """Write an archive of the kind that its name says; in a tar also links and devices."""
    if file.suffix == ".zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                info = zipfile.ZipInfo(name)
                info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
                archive.writestr(info, data)
        return file
    packing = {".tar": "w", ".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz"}[file.suffix]
    with tarfile.open(file, packing) as archive:
        for name, data in entries.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo()
            info.name = name.rstrip("*")  # so that a name may occur twice
            info.size = 0 if info is data else len(data)
            archive.addfile(info, None if info is data else io.BytesIO(data))
    return file


def special(kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz", "x.tgz"])
def test_good_archives_arrive_whole(tmp_path: Path, name: str) -> None:
    folder = {"a/": b""} if name.endswith(".zip") else {"a": special(tarfile.DIRTYPE)}
    assert unpack(make(tmp_path / name, folder | GOOD), tmp_path / "new/place") == 3
    assert content(tmp_path / "new/place") == GOOD
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["place"], "nothing temporary is left"


OUTSIDE = ["../evil", "a/../../evil", "/evil", "a\\..\\..\\evil", "C:/evil"]
MODES = [stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o666, stat.S_IFIFO | 0o666]  # of an entry in a zip
TARS = [
    {"a": special(tarfile.SYMTYPE, "/etc")},
    {"a/b": special(tarfile.SYMTYPE, "../../x")},
    {"p/q": special(tarfile.SYMTYPE, ".."), "t": special(tarfile.SYMTYPE, "p/q/../x")},
    {"b/x": b"1", "a": special(tarfile.SYMTYPE, "b"), "a/evil": b"written through a link"},
    {"a": special(tarfile.LNKTYPE, "../x")},
    {"a": special(tarfile.LNKTYPE, "nothing before it")},
    {"a": special(tarfile.CHRTYPE)},
    {"a": special(tarfile.FIFOTYPE)},
    {"a": b"1", "a*": b"2"},
]
HOSTILE = [(kind, {"good": b"x", name: b"x"}, 0) for name in OUTSIDE for kind in ("zip", "tar")]
HOSTILE += [("zip", {"a": b"/etc/passwd"}, mode) for mode in MODES]
HOSTILE += [("tar", entries, 0) for entries in TARS]


@pytest.mark.parametrize(("kind", "entries", "mode"), HOSTILE)
def test_hostile_archives_are_refused(tmp_path: Path, kind: str, entries: dict, mode: int) -> None:
    with pytest.raises(UserError, match="refused, it"):
        unpack(make(tmp_path / f"x.{kind}", entries, mode), tmp_path / "in/place")
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "in/place").exists(), "a refused archive leaves no finished folder"
    assert not (tmp_path / "x").exists()


def test_links_inside_a_tar_are_kept(tmp_path: Path) -> None:
    links = {"a/2": special(tarfile.LNKTYPE, "a/1"), "b": special(tarfile.SYMTYPE, "a/1")}
    unpack(make(tmp_path / "x.tar", {"a/1": b"one"} | links), tmp_path / "out")
    assert content(tmp_path / "out") == {"a/1": b"one", "a/2": b"one", "b": b"one"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_refused(tmp_path: Path, kind: str) -> None:
    file = make(tmp_path / f"x.{kind}", {"a": bytes(archives.NO_DANGER + 2_000_000)})
    with pytest.raises(UserError, match=r"more than 100 times its size\n.*--max-ratio"):
        unpack(file, tmp_path / "out")
    with pytest.raises(UserError, match="more than 1,000 bytes"):
        unpack(file, tmp_path / "out", max_bytes=1000)
    assert unpack(file, tmp_path / "out", max_ratio=1e5) == 1


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_interrupted_run_goes_on(tmp_path: Path, kind: str) -> None:
    """Damage near the end stops the first run; what it had unpacked is not written again."""
    out, entries = tmp_path / "out", {**GOOD, "last.bin": np.random.default_rng(0).bytes(200_000)}
    file = make(tmp_path / f"x.{kind}", entries)
    good = file.read_bytes()
    half = len(good) // 2
    damage = 500 if kind == "zip" else len(good) - half
    file.write_bytes(good[:half] + bytes(damage) + good[half + damage :])
    with pytest.raises(UserError, match="is damaged"):
        unpack(file, out)
    assert not out.exists()
    (first,) = tmp_path.rglob("1.png")
    written = first.stat().st_ino, first.stat().st_mtime_ns
    file.write_bytes(good)
    assert unpack(file, out) == 4
    assert content(out) == entries
    assert ((out / "a/1.png").stat().st_ino, (out / "a/1.png").stat().st_mtime_ns) == written


DAMAGED = {"cut.zip": "is damaged", "cut.tar.gz": "is damaged", "x.rar": "unknown kind of archive"}
DAMAGED |= {"nowhere.zip": "no archive", "secret.zip": "is encrypted", "both.zip": "unpacking stopped"}
DAMAGED |= {"odd.zip": "packed by deflate64", "crc.tar.gz": "is damaged", "cut.tar.xz": "is damaged"}
DAMAGED |= dict.fromkeys(["between.tar", "header.tar", "zeros.tar", "flipped.tar"], "is damaged")
DAMAGED |= dict.fromkeys(["adm.zip", "adm.z01"], r"`zip -s 0 adm\.zip --out whole\.zip`")


@pytest.mark.parametrize(("name", "problem"), DAMAGED.items())
def test_damaged_unknown_and_split_archives_are_named(tmp_path: Path, name: str, problem: str) -> None:
    good = make(tmp_path / "good.zip", GOOD).read_bytes()
    secret = bytearray(good)
    secret[secret.index(b"PK\x01\x02") + 8] |= 1  # the table of contents says that it is encrypted
    make(tmp_path / "both.zip", {"a": b"file", "a/b": b"and folder"})
    odd = bytearray(good)
    odd[8] = odd[odd.index(b"PK\x01\x02") + 10] = 9
    tar, gz, xz = (make(tmp_path / f"good.{kind}", GOOD).read_bytes() for kind in ("tar", "tar.gz", "tar.xz"))
    zeros = tar[:1024] + bytes(1024) + tar[2048:]  # a file takes 1,024 bytes here
    tars = {"between.tar": tar[:1024], "header.tar": tar[:1300], "zeros.tar": zeros, "cut.tar.xz": xz[:-12]}
    tars |= {"flipped.tar": tar[:1030] + b"?" + tar[1031:], "crc.tar.gz": gz[:-8]}
    for file, data in (tars | {"odd.zip": odd}).items():
        (tmp_path / file).write_bytes(data)
    contents = {"cut.zip": good[:-40], "cut.tar.gz": b"\x1f\x8b\x08nothing", "x.rar": b"Rar!"}
    for file, data in (contents | {"secret.zip": secret, "adm.zip": b"PK", "adm.z01": b"PK"}).items():
        (tmp_path / file).write_bytes(data)
    with pytest.raises(UserError, match=problem) as error:
        unpack(tmp_path / name, tmp_path / "out")
    assert name in error.value.what


def test_a_folder_may_be_a_link_to_another_disk_but_not_full_and_no_file(tmp_path: Path) -> None:
    archive = make(tmp_path / "a.zip", GOOD)
    (tmp_path / "disk").mkdir()
    (tmp_path / "corpus").symlink_to(tmp_path / "disk")
    assert unpack(archive, tmp_path / "corpus") == 3
    assert content(tmp_path / "disk") == GOOD
    with pytest.raises(UserError, match="already and not empty"):
        unpack(archive, tmp_path / "disk")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no folder"):
        unpack(archive, tmp_path / "file")
