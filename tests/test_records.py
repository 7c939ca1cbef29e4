"""Shards of records: their sizes, and how much of them is read."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fakevlm.data import records
from fakevlm.data.corpora.files import BadImage, decoded
from fakevlm.data.records import Record, decode, read_records, write_records
from fakevlm.errors import UserError


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
    read = pq.ParquetFile.read_row_group

    def counted(self, group: int, **options):
        sizes.append(self.metadata.row_group(group).num_rows)
        return read(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    monkeypatch.setattr(records, "GROUP_BYTES", 100_000)
    for size, groups in ((10, [5]), (40_000, [3, 2]), (500_000, [1] * 5)):
        write_records(some(5, size), tmp_path)
        sizes.clear()
        assert list(read_records(tmp_path)) == some(5, size)
        assert sizes == groups


def test_only_records_with_given_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = some(12)
    write_records(rows, tmp_path, shard_rows=2)
    chosen = list(read_records(tmp_path, {"source": "ff++", "split": "test"}))
    assert chosen == [r for r in rows if r.source == "ff++" and r.split == "test"]
    assert 0 < len(chosen) < 12
    opened = []
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: opened.append(1))
    assert list(read_records(tmp_path, {"source": "elsewhere"})) == []
    assert opened == [], "no image is read of a shard that has none of them"


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no record shards"):
        list(read_records(tmp_path / "nowhere"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_a_pixel_are_read_by_their_upper_eight(kind: str) -> None:
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16)
    coded = io.BytesIO()
    Image.fromarray(grey * 257).save(coded, kind)
    assert np.array_equal(np.asarray(decode(coded.getvalue())), np.stack([grey] * 3, -1))


def test_pixels_of_no_known_range_are_set_aside() -> None:
    coded = io.BytesIO()
    Image.new("F", (8, 8), 0.5).save(coded, "TIFF")
    with pytest.raises(BadImage, match="no known range"):
        decoded(Record("a.tif", coded.getvalue(), 1, "x", "a"))
