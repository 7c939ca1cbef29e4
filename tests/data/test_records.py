"""Records in shards: their sizes, access by number, and how much of them is read and held."""

import json
import pickle
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fakevlm.data import records
from fakevlm.data.corpora.files import BadImage, decoded
from fakevlm.data.records import Record, decode, encode, read_records, write_records
from fakevlm.data.shards import Records, columns_of, take, without_images
from fakevlm.detect import read_record
from fakevlm.errors import UserError

WALK = """
import json, resource, sys
from pathlib import Path
from fakevlm.data.records import Record, write_records
from fakevlm.data.shards import Records, without_images

import numpy as np
count, folder = int(sys.argv[1]), Path(sys.argv[2])
rng = np.random.default_rng(0)
write_records((Record(f"{n}.png", rng.bytes(300_000), n % 2, "s") for n in range(count)), folder)
stored = Records(folder, in_memory=8 << 20)
assert sum(len(record.image) for record in stored) == count * 300_000
assert all(stored[int(n)].id == f"{n}.png" for n in rng.permutation(count))
assert [record.id for record in without_images(stored)] == [f"{n}.png" for n in range(count)]
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""


def some(count: int, size: int = 100) -> list[Record]:
    rows = [Record(f"x/{n}.png", bytes([n % 256]) * size, n % 2, "ff++", f"i{n % 5}") for n in range(count)]
    for n, row in enumerate(rows):
        row.category, row.question = (None if n % 3 else "doc"), ("And the nose?" if n % 4 == 1 else None)
        row.references = [f"It is {n}.", "Or not."][: n % 3]
    return rows


def sizes(folder: Path) -> list[int]:
    return [pq.read_metadata(part).num_rows for part in sorted(folder.glob("part-*.parquet"))]


@pytest.fixture
def group_reads(monkeypatch: pytest.MonkeyPatch) -> list[list[str] | None]:
    """The columns of every row group that is read."""
    reads, read = [], pq.ParquetFile.read_row_group

    def noted(self, group: int, columns: list[str] | None = None, **options):
        reads.append(columns)
        return read(self, group, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    return reads


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Record], Path]:
    """30 records in 4 shards, of 3, 3, 3 and 2 row groups."""
    monkeypatch.setattr(records, "GROUP_BYTES", 3000)
    rows = some(30, 1000)
    write_records(rows, tmp_path, shard_rows=8)
    return rows, tmp_path


def test_a_shard_ends_by_rows_or_by_bytes(tmp_path: Path) -> None:
    rows = some(10)
    assert write_records(iter(rows), tmp_path / "rows", shard_rows=4) == 10
    assert sizes(tmp_path / "rows") == [4, 4, 2]
    assert write_records(iter(rows), tmp_path / "bytes", shard_rows=4, shard_bytes=250) == 10
    assert sizes(tmp_path / "bytes") == [3, 3, 3, 1]
    for folder in ("rows", "bytes"):
        assert list(read_records(tmp_path / folder)) == rows
    assert write_records([], tmp_path / "rows") == 0
    assert sizes(tmp_path / "rows") == [0], "old parts are gone, and the schema is there"
    assert list(read_records(tmp_path / "rows")) == list(Records(tmp_path / "rows")) == []


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no record shards .*nowhere"):
        Records(tmp_path / "nowhere")


@pytest.mark.parametrize(("in_memory", "reads"), [(0, 22), (5000, 22), (1 << 20, 11)])
def test_by_number_as_in_the_stream(stored, group_reads, in_memory, reads) -> None:
    rows, folder = stored
    by_number = Records(folder, in_memory)
    assert len(by_number) == 30
    for _ in range(2):
        assert [by_number[n] for n in range(30)] == rows
    assert len(group_reads) == reads, "a row group is read once while it is kept"
    assert list(by_number) == list(read_records(folder)) == rows
    numbers = [*np.random.default_rng(0).permutation(30), -1, -30]
    assert [by_number[n] for n in numbers] == [rows[n] for n in numbers]
    for part in (slice(5, 19), slice(None, None, -4), slice(-3, None), slice(40, 50)):
        assert by_number[part] == rows[part]
    with pytest.raises(IndexError):
        by_number[30]


def test_several_threads_read_the_same_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "GROUP_BYTES", 30_000)
    rows = some(300, 10_000)
    write_records(rows, tmp_path)
    shared = Records(tmp_path, in_memory=0)
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda n: shared[n] == rows[n], [*range(0, 300, 7)] * 40))


def test_taken_records_are_records(stored: tuple[list[Record], Path]) -> None:
    rows, folder = stored
    chosen = [20, 3, 3, 29, 4]
    for sequence in (rows, Records(folder)):
        taken = take(sequence, chosen)
        assert list(taken) == [rows[n] for n in chosen]
        assert list(take(taken, [1, 0])) == [rows[3], rows[20]]
        assert columns_of(taken, ["id"])["id"].tolist() == [rows[n].id for n in chosen]
        assert len(take(sequence, [])) == len(list(take(sequence, []))) == 0
    pickled = pickle.dumps(take(Records(folder), [7, 3]))
    assert len(pickled) < 5000, "places, not images"
    assert list(pickle.loads(pickled)) == [rows[7], rows[3]]


def test_without_images(stored: tuple[list[Record], Path], group_reads: list) -> None:
    rows, folder = stored
    bare = list(without_images(Records(folder)))
    assert [(r.references, r.sha256, r.image) for r in bare] == [(r.references, r.sha256, b"") for r in rows]
    assert all("image" not in columns for columns in group_reads)
    names = ["id", "label", "category", "question", "sha256"]
    assert columns_of(Records(folder), names).equals(columns_of(rows, names))
    assert list(without_images(rows)) == rows


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    def peak(count: int) -> float:
        command = [sys.executable, "-c", WALK, str(count), str(tmp_path / str(count))]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    few, many = peak(100), peak(400)  # 30 and 120 MB of images
    assert many < few + 40


def test_a_number_sign_in_a_files_name_is_no_number_of_a_question() -> None:
    ids = {"x/cat #1.jpg": "x/cat #1.jpg", "s#1/0.png": "s#1/0.png", "ff++/000.png#12": "ff++/000.png"}
    assert {key: Record(key, b"", 1, "x").path for key in ids} == ids


@pytest.mark.parametrize("write", ["add_text", "add_itxt"])
def test_megabytes_of_text_beside_the_pixels_do_not_spoil_them(write: str) -> None:
    text = PngInfo()  # as ComfyUI writes its workflow
    getattr(text, write)("workflow", "x" * 3_000_000, zip=True)
    assert decode(encode(Image.new("RGB", (9, 5)), "PNG", pnginfo=text)).size == (9, 5)


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # held on its side
    (tmp_path / "side.jpg").write_bytes(side := encode(Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert read_record(tmp_path / "side.jpg").pil().size == decode(side).size == (20, 40)


def test_sixteen_bits_a_pixel_are_read_by_their_upper_eight_and_pixels_of_no_known_range_not() -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    for kind in ("PNG", "TIFF"):
        read = decode(encode(Image.fromarray(grey * 257), kind))
        assert np.array_equal(np.asarray(read), np.stack([grey] * 3, -1))
    for mode in "F", "I":
        with pytest.raises(BadImage, match="no known range"):
            decoded(Record("a.tif", encode(Image.new(mode, (8, 8), 1), "TIFF"), 1, "x"))
    header = bytearray(encode(Image.new("1", (16, 16)), "PNG"))
    header[16:24] = struct.pack(">II", 16_000, 16_000)  # claims 256 megapixels, more than any camera takes
    header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
    with pytest.raises(BadImage, match="too many pixels"):
        decoded(Record("a.png", bytes(header), 1, "x"))
    with pytest.raises(BadImage, match="not a known image format"):  # Pillow would start Ghostscript
        decoded(Record("a.jpg", encode(Image.new("RGB", (8, 8)), "EPS"), 1, "x"))
