"""Shards of records: their sizes, what is read of them, and what is remembered on disk while they are made."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fakevlm import records
from fakevlm.corpora.ondisk import DiskDict
from fakevlm.errors import UserError
from fakevlm.records import Record, read_headers, read_records, write_records


def some(count: int, size: int = 100) -> list[Record]:
    return [
        Record(
            f"x/{n}.png", bytes([n % 256]) * size, n % 2, "ff++" if n % 3 else "loki", f"i{n}", split=split
        )
        for n, split in zip(range(count), ("train", "test", None) * count, strict=False)
    ]


def rows_by_part(folder: Path) -> list[int]:
    return [pq.read_metadata(part).num_rows for part in sorted(folder.glob("part-*.parquet"))]


def test_a_shard_ends_by_rows_or_by_bytes(tmp_path: Path) -> None:
    rows = some(10)
    assert write_records(iter(rows), tmp_path / "rows", shard_rows=4) == 10
    assert rows_by_part(tmp_path / "rows") == [4, 4, 2]
    assert write_records(iter(rows), tmp_path / "bytes", shard_rows=4, shard_bytes=250) == 10
    assert rows_by_part(tmp_path / "bytes") == [3, 3, 3, 1]
    for folder in ("rows", "bytes"):
        assert list(read_records(tmp_path / folder)) == rows
    assert write_records([], tmp_path / "rows") == 0
    assert rows_by_part(tmp_path / "rows") == [0], "old parts are gone, and the schema is there"
    assert list(read_records(tmp_path / "rows")) == []


def test_large_images_are_read_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    batches = pq.ParquetFile.iter_batches

    def counted(self, batch_size: int, **options):
        sizes.append(batch_size)
        return batches(self, batch_size, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counted)
    monkeypatch.setattr(records, "BATCH_BYTES", 100_000)
    for size in (10, 30_000, 500_000):
        write_records(some(5, size), tmp_path)
        assert list(read_records(tmp_path)) == some(5, size)
    assert sizes[1:] == [3, 1]
    assert 1 < sizes[0] <= 256


def test_only_records_with_given_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some(12)
    write_records(rows, tmp_path, shard_rows=2)
    chosen = list(read_records(tmp_path, {"source": "ff++", "split": "test"}))
    assert chosen == [r for r in rows if r.source == "ff++" and r.split == "test"]
    assert 0 < len(chosen) < 12
    opened = []
    batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *a, **k: opened.append(1) or batches(*a, **k))
    assert list(read_records(tmp_path, {"source": "elsewhere"})) == []
    assert opened == [], "no image is read of a shard that has none of them"


def test_headers_are_read_without_images(tmp_path: Path) -> None:
    rows = some(5)
    write_records(rows, tmp_path, shard_rows=2)
    assert list(read_headers(tmp_path, ["id", "split"])) == [(r.id, r.split) for r in rows]
    with pytest.raises(UserError, match="no record shards"):
        list(read_headers(tmp_path / "nowhere", ["id"]))


def test_what_lies_on_disk_is_remembered_once() -> None:
    known = DiskDict()
    assert known.add("a", "1")
    assert known.add(b"a", "2"), "a text and its bytes are two keys"
    assert known.add(7, "3")
    assert not known.add("a", "4")
    assert [known.get(key) for key in ("a", b"a", 7, "7", "b")] == ["1", "2", "3", None, None]
    assert all(known.add(f"k{n}", str(n)) for n in range(2000))
    assert known.get("k1234") == "1234"
