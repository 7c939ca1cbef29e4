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

GOOD = {"a/1.png": b"one" * 50, "a/b/2.png": b"two" * 70, "3.json": b"{}"}


def make_zip(file: Path, entries: dict[str, bytes], mode: int = 0, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr, info.compress_type = mode << 16, method
            archive.writestr(info, data)
    return file


def make_tar(file: Path, entries: list[tarfile.TarInfo | tuple[str, bytes]], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return file


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def content(folder: Path) -> dict[str, bytes]:
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tar.gz", "x.tar.xz", "x.tgz"])
def test_good_archives_arrive_whole(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    if name.endswith(".zip"):
        make_zip(file, {"a/": b"", **GOOD})
    else:
        pack = {"tar": "w", "gz": "w:gz", "xz": "w:xz", "tgz": "w:gz"}[name.split(".")[-1]]
        make_tar(file, [special("a", tarfile.DIRTYPE), *GOOD.items()], pack)
    assert unpack(file, tmp_path / "new/place") == 3
    assert content(tmp_path / "new/place") == GOOD
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["place"], "nothing temporary is left"


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a\\..\\..\\evil", "C:/evil"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_out_of_the_folder_are_refused(tmp_path: Path, name: str, kind: str) -> None:
    entries = {"good": b"x", name: b"x"}
    file = tmp_path / f"x.{kind}"
    make_zip(file, entries) if kind == "zip" else make_tar(file, list(entries.items()))
    with pytest.raises(UserError, match="refused, it"):
        unpack(file, tmp_path / "in/place")
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "in/place").exists(), "a refused archive leaves no finished folder"


@pytest.mark.parametrize("mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o666, stat.S_IFIFO | 0o666])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UserError, match="link or a device"):
        unpack(make_zip(tmp_path / "x.zip", {"a": b"/etc/passwd"}, mode), tmp_path / "out")


@pytest.mark.parametrize(
    "entries",
    [
        [special("a", tarfile.SYMTYPE, "/etc")],
        [special("a/b", tarfile.SYMTYPE, "../../x")],
        [special("p/q", tarfile.SYMTYPE, ".."), special("t", tarfile.SYMTYPE, "p/q/../x")],
        [("b/x", b"1"), special("a", tarfile.SYMTYPE, "b"), ("a/c", b"written through a link")],
        [special("a", tarfile.LNKTYPE, "../x")],
        [special("a", tarfile.LNKTYPE, "nothing before it")],
        [special("a", tarfile.CHRTYPE)],
        [special("a", tarfile.FIFOTYPE)],
        [("a", b"1"), ("a", b"2")],
    ],
)
def test_hostile_tars_are_refused(tmp_path: Path, entries: list) -> None:
    file = make_tar(tmp_path / "x.tar", entries)
    with pytest.raises(UserError, match="refused, it"):
        unpack(file, tmp_path / "in/out")
    assert not (tmp_path / "in/out").exists()
    assert not (tmp_path / "x").exists()


def test_links_inside_a_tar_are_kept(tmp_path: Path) -> None:
    entries = [("a/1", b"one"), special("a/2", tarfile.LNKTYPE, "a/1"), special("b", tarfile.SYMTYPE, "a/1")]
    unpack(make_tar(tmp_path / "x.tar", entries), tmp_path / "out")
    assert content(tmp_path / "out") == {"a/1": b"one", "a/2": b"one", "b": b"one"}


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_bombs_are_refused(tmp_path: Path, kind: str) -> None:
    data = bytes(archives.NO_DANGER + 2_000_000)
    if kind == "zip":
        file = make_zip(tmp_path / "x.zip", {"a": data}, method=zipfile.ZIP_DEFLATED)
    else:
        file = make_tar(tmp_path / "x.tar.gz", [("a", data)], "w:gz")
    with pytest.raises(UserError, match=r"more than 100 times its size\n.*--max-ratio"):
        unpack(file, tmp_path / "out")
    with pytest.raises(UserError, match="more than 1,000 bytes"):
        unpack(file, tmp_path / "out", max_bytes=1000)
    assert unpack(file, tmp_path / "out", max_ratio=1e5) == 1


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_interrupted_run_goes_on(tmp_path: Path, kind: str) -> None:
    """Damage near the end stops the first run; what it had unpacked is not written again."""
    file, out = tmp_path / f"x.{kind}", tmp_path / "out"
    noise = np.random.default_rng(0).bytes(200_000)
    entries = {**GOOD, "last.bin": noise}
    make_zip(file, entries) if kind == "zip" else make_tar(file, list(entries.items()), "w:gz")
    good = file.read_bytes()
    start = good.index(noise) + 150_000 if kind == "zip" else len(good) // 2
    damage = 500 if kind == "zip" else len(good) - start
    file.write_bytes(good[:start] + bytes(damage) + good[start + damage :])
    with pytest.raises(UserError, match="is damaged"):
        unpack(file, out)
    assert not out.exists()
    (first,) = tmp_path.rglob("1.png")
    written = first.stat().st_ino, first.stat().st_mtime_ns
    file.write_bytes(good)
    assert unpack(file, out) == 4
    assert content(out) == entries
    assert ((out / "a/1.png").stat().st_ino, (out / "a/1.png").stat().st_mtime_ns) == written


def test_a_piece_of_a_multi_part_zip_says_how_to_join(tmp_path: Path) -> None:
    for name in ("imagenet_ai_0508_adm.zip", "imagenet_ai_0508_adm.z01"):
        (tmp_path / name).write_bytes(b"PK")
    for name in ("imagenet_ai_0508_adm.zip", "imagenet_ai_0508_adm.z01"):
        with pytest.raises(UserError, match=r"`zip -s 0 imagenet_ai_0508_adm\.zip --out whole\.zip`"):
            unpack(tmp_path / name, tmp_path / "out")


def test_damaged_unknown_and_misplaced_archives_are_named(tmp_path: Path) -> None:
    file = make_zip(tmp_path / "x.zip", GOOD)
    make_zip(tmp_path / "both.zip", {"a": b"file", "a/b": b"and folder"})
    secret = bytearray(make_zip(tmp_path / "secret.zip", {"a": b"x"}).read_bytes())
    secret[secret.index(b"PK\x01\x02") + 8] |= 1  # the table of contents says that it is encrypted
    contents = {"cut.zip": file.read_bytes()[:-40], "cut.tar.gz": b"\x1f\x8b\x08nothing"}
    for name, data in (contents | {"x.rar": b"Rar!", "secret.zip": secret}).items():
        (tmp_path / name).write_bytes(data)
    for name, problem in {
        "cut.zip": "is damaged",
        "cut.tar.gz": "is damaged",
        "x.rar": "unknown kind of archive",
        "nowhere.zip": "no archive",
        "secret.zip": "is encrypted",
        "both.zip": "unpacking stopped",
    }.items():
        with pytest.raises(UserError, match=problem) as error:
            unpack(tmp_path / name, tmp_path / "out")
        assert name in error.value.what
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    with pytest.raises(UserError, match="already and not empty"):
        unpack(file, tmp_path / "full")


def test_a_folder_may_be_a_link_to_another_disk_but_no_file(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", GOOD)
    (tmp_path / "disk").mkdir()
    (tmp_path / "corpus").symlink_to(tmp_path / "disk")
    assert unpack(archive, tmp_path / "corpus") == 3
    assert content(tmp_path / "disk") == GOOD
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="no folder"):
        unpack(archive, tmp_path / "file")
