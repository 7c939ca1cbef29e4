"""Records by number: a folder of shards as a sequence of which any part can be read, and none is held.

Whatever does more than walk through records once (training, the benchmarks, the study) takes a
`Sequence[Record]` and meets its images batch by batch. What it must know of all records it asks for without
images (`columns_of`, `without_images`).
"""

import copy
import operator
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakevlm.data.records import SCHEMA, Record, read_frame, shards, to_record

IN_MEMORY = 128 << 20  # bytes of images that a process may keep, here as encoded in their files
OPEN_FILES = 16  # each with its footer, about 1 MB
WITHOUT_IMAGE = tuple(name for name in SCHEMA.names if name != "image")


class _Latest:
    """What was made last, until it weighs more than `most`; at least one."""

    def __init__(self, most: int, weigh: Callable[[Any], int]) -> None:
        self._most, self._weigh = most, weigh
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._weight = 0

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = self._kept[key] = make()
        self._weight += self._weigh(made)
        while self._weight > self._most and len(self._kept) > 1:
            self._weight -= self._weigh(self._kept.popitem(last=False)[1])
        return made


class Records(Sequence[Record]):
    """The records of a folder written by `records.write_records`, read when they are asked for.

    An index or an iteration reads row groups (about 1 MB each), with nothing mapped into memory; a slice is a
    list. The row groups read last are kept up to `in_memory` bytes, so small folders are read once. Can be
    pickled, and used after a fork.

    Args:
        folder: of the shards.
        in_memory: bytes of row groups to keep.

    Raises:
        UserError: there are no shards.
    """

    def __init__(self, folder: Path, in_memory: int = IN_MEMORY) -> None:
        self.folder, self._in_memory, self._shards = folder, in_memory, shards(folder)
        rows = [_group_rows(file) for file in self._shards]
        # Of each row group: its first record, its shard, its number there.
        self._starts = np.concatenate([[0], np.cumsum(np.concatenate(rows))])
        self._shard = np.repeat(np.arange(len(rows)), [len(each) for each in rows])
        self._number = np.concatenate([np.arange(len(each)) for each in rows])
        self._rows = np.arange(self._starts[-1])
        self._forget()

    def _forget(self) -> None:
        self._files = _Latest(OPEN_FILES, lambda file: 1)
        self._groups = _Latest(self._in_memory, lambda table: table.nbytes)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_files", "_groups")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return list(self._read(self._rows[at]))
        row = self._rows[operator.index(at)]
        return next(self._read(np.array([row])))

    def __iter__(self) -> Iterator[Record]:
        return self._read(self._rows)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Records":
        """The records with these numbers, in this order, as a sequence that reads them when asked."""
        taken = copy.copy(self)  # what is kept of files is shared
        taken._rows = self._rows[np.asarray(rows, dtype=np.int64)]
        return taken

    def without_images(self) -> Iterator[Record]:
        """All records, their `image` empty."""
        return self._read(self._rows, WITHOUT_IMAGE)

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        """Some columns of all records."""
        table = read_frame(self.folder, list(columns))
        if len(table) == len(self) and (np.diff(self._rows) == 1).all():
            return table
        return table.iloc[self._rows].reset_index(drop=True)

    def _read(self, rows: np.ndarray, columns: Sequence[str] | None = None) -> Iterator[Record]:
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        cuts = [0, *(np.flatnonzero(np.diff(groups)) + 1).tolist(), len(rows)]
        for start, end in pairwise(cuts):
            if start == end:
                return
            group = int(groups[start])
            here = rows[start:end] - self._starts[group]
            # Images are kept; without them a row group is read in passing.
            table = (
                self._groups.get(group, lambda n=group: self._group(n))
                if columns is None
                else self._group(group, columns)
            )
            for row in table.take(pa.array(here)).to_pylist():
                yield to_record(row)

    def _group(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        shard = int(self._shard[number])
        file = self._files.get(shard, lambda: pq.ParquetFile(self._shards[shard]))
        # Without threads, so that a DataLoader's forked workers can read too.
        return file.read_row_group(
            int(self._number[number]), columns=columns and list(columns), use_threads=False
        )


def _group_rows(file: Path) -> np.ndarray:
    footer = pq.read_metadata(file)
    return np.array([footer.row_group(n).num_rows for n in range(footer.num_row_groups)], dtype=np.int64)


def take(records: Sequence[Record], rows: Sequence[int] | np.ndarray) -> Sequence[Record]:
    """The records with these numbers, in this order; not read yet where they lie on disk."""
    return records.take(rows) if hasattr(records, "take") else [records[int(n)] for n in rows]


def without_images(records: Sequence[Record]) -> Iterator[Record]:
    """The records for what stands beside their images, which are not read where they lie on disk."""
    return records.without_images() if isinstance(records, Records) else iter(records)


def columns_of(records: Sequence[Record], columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of n records, without their images: n rows."""
    if hasattr(records, "frame"):
        return records.frame(columns)
    values = {name: [getattr(record, name) for record in records] for name in columns}
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    return pa.table(values, schema=schema).to_pandas()
