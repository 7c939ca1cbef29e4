"""Records by number: equal to the stream, whatever is asked for, and never all in memory."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fakevlm.data import records
from fakevlm.data.records import Record, read_records, write_records
from fakevlm.data.shards import Records, columns_of, take, without_images
from fakevlm.errors import UserError

WALK = """
import json, resource, sys
from pathlib import Path
from fakevlm.data.records import Record, write_records
from fakevlm.data.shards import Records

import numpy as np
count, folder = int(sys.argv[1]), Path(sys.argv[2])
rng = np.random.default_rng(0)
made = (Record(f"{n}.png", rng.bytes(300_000), n % 2, "s", f"{n}") for n in range(count))
write_records(made, folder)
found = Records(folder, in_memory=8 << 20)
assert sum(len(record.image) for record in found) == count * 300_000
assert all(found[int(n)].id == f"{n}.png" for n in rng.permutation(count))
assert [record.id for record in found.without_images()] == [f"{n}.png" for n in range(count)]
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
"""


def some(count: int, size: int = 1000) -> list[Record]:
    return [
        Record(
            f"x/{n}.png",
            bytes([n % 256]) * (size + n),
            n % 2,
            "ff++",
            f"i{n % 5}",
            category=None if n % 3 else "doc",
            question="And the nose?" if n % 4 == 1 else None,
            references=[f"It is {n}.", "Or not."][: n % 3],
        )
        for n in range(count)
    ]


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Record], Path]:
    """30 records in 4 shards, each of several row groups."""
    monkeypatch.setattr(records, "GROUP_BYTES", 3000)
    rows = some(30)
    write_records(rows, tmp_path, shard_rows=8)
    groups = [pq.read_metadata(file).num_row_groups for file in sorted(tmp_path.iterdir())]
    assert groups == [3, 3, 3, 2]
    return rows, tmp_path


@pytest.mark.parametrize("in_memory", [0, 5000, 1 << 20])
def test_by_number_as_in_the_stream(shelf: tuple[list[Record], Path], in_memory: int) -> None:
    rows, folder = shelf
    found = Records(folder, in_memory)
    assert len(found) == 30
    assert list(found) == rows == list(read_records(folder))
    order = np.random.default_rng(0).permutation(30)
    assert [found[n] for n in order] == [rows[n] for n in order]
    assert [found[n] for n in (-1, -30, 7, 8)] == [rows[n] for n in (-1, -30, 7, 8)]
    for part in (slice(5, 19), slice(None, None, -4), slice(-3, None), slice(40, 50), slice(9, 9)):
        assert found[part] == rows[part]
    for n in (30, -31):
        with pytest.raises(IndexError):
            found[n]


def test_taken_records_are_records(shelf: tuple[list[Record], Path]) -> None:
    rows, folder = shelf
    chosen = [20, 3, 3, 29, 4]
    for held in (rows, Records(folder)):
        taken = take(held, chosen)
        assert list(taken) == [rows[n] for n in chosen]
        assert list(take(taken, [1, 0])) == [rows[3], rows[20]]
        assert columns_of(taken, ["id"])["id"].tolist() == [rows[n].id for n in chosen]
    assert len(take(Records(folder), [])) == len(list(take(Records(folder), []))) == 0


def test_without_images(shelf: tuple[list[Record], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    rows, folder = shelf
    names = ["id", "label", "category", "question", "sha256"]
    read = []
    whole = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda *a, **k: read.append(k["columns"]) or whole(*a, **k)
    )
    known = list(without_images(Records(folder)))
    assert [r.references for r in known] == [r.references for r in rows]
    assert [r.sha256 for r in known] == [r.sha256 for r in rows]
    assert {r.image for r in known} == {b""}
    assert all("image" not in columns for columns in read)
    assert columns_of(Records(folder), names).equals(columns_of(rows, names))
    assert list(without_images(rows)) == rows


def test_a_row_group_is_read_once_while_it_is_kept(
    shelf: tuple[list[Record], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, folder = shelf
    read = []
    whole = pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *a, **k: read.append(1) or whole(*a, **k))
    small, large = Records(folder, 0), Records(folder)
    for found, times in ((large, 11), (small, 22)):
        read.clear()
        for _ in range(2):
            assert [found[n] for n in range(30)] == rows
        assert len(read) == times


def test_pickled_and_none_at_all(shelf: tuple[list[Record], Path], tmp_path: Path) -> None:
    rows, folder = shelf
    found = Records(folder)
    assert found[3] == rows[3]
    sent = pickle.dumps(take(found, [7, 3]))
    assert len(sent) < 5000, "places, not images"
    assert list(pickle.loads(sent)) == [rows[7], rows[3]]
    write_records([], tmp_path / "empty")
    assert list(Records(tmp_path / "empty")) == []
    with pytest.raises(UserError, match="no record shards"):
        Records(tmp_path / "nowhere")


def test_datasets_reads_the_shards(shelf: tuple[list[Record], Path], tmp_path: Path) -> None:
    import datasets

    import tinyllava

    rows = tinyllava.records(5)
    write_records(rows, tmp_path / "shards", shard_rows=2)
    files = sorted(str(file) for file in (tmp_path / "shards").iterdir())
    found = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path / "cache"))
    assert isinstance(found.features["image"], datasets.Image)
    assert [row["id"] for row in found] == [r.id for r in rows]
    assert [row["image"].convert("RGB").tobytes() for row in found] == [r.pil().tobytes() for r in rows]


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    def peak(count: int) -> float:
        command = [sys.executable, "-c", WALK, str(count), str(tmp_path / str(count))]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    few, many = peak(200), peak(800)  # 60 and 240 MB of images
    assert many < few + 40
