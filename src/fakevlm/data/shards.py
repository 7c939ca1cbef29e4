"""Records by number: a folder of shards as a sequence that is read batch by batch, never at once."""

import copy
import operator
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakevlm.data.records import SCHEMA, WITHOUT_IMAGE, Record, read_frame, shards, to_record
from fakevlm.errors import UserError

IN_MEMORY = 128 << 20  # bytes of images that a process may keep, here as encoded in their files
FOOTERS = 16  # of shards, kept: about 1 MB each


class Records(Sequence[Record]):
    """The records of a folder written by `records.write_records`, read when they are indexed or iterated.

    The row groups (about 1 MB each) read last are kept, about `in_memory` bytes of them and at least one, so
    small folders are read once. A slice is a list. Can be pickled, used after a fork, and read by several
    threads at once.
    """

    def __init__(self, folder: Path, in_memory: int = IN_MEMORY) -> None:
        self.folder, self._shards = folder, shards(folder)
        places, rows, sizes = [], [], []  # of each row group: its shard and number there, its rows and bytes
        for shard, footer in enumerate(map(pq.read_metadata, self._shards)):
            for number in range(footer.num_row_groups):
                group = footer.row_group(number)
                places.append((shard, number))
                rows.append(group.num_rows)
                sizes.append(group.total_byte_size)
        self._places, self._starts = np.array(places), np.cumsum([0, *rows])
        self._rows = np.arange(self._starts[-1])
        self._cached_groups = max(1, in_memory * len(sizes) // max(1, sum(sizes)))

    @cached_property
    def _footer(self) -> Any:
        return lru_cache(FOOTERS)(lambda shard: pq.read_metadata(self._shards[shard]))

    @cached_property
    def _group(self) -> Any:
        return lru_cache(self._cached_groups)(self._read_group)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_footer", "_group")}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return list(self._read(self._rows[at]))
        return next(self._read(self._rows[[operator.index(at)]]))

    def __iter__(self) -> Iterator[Record]:
        return self._read(self._rows)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Records":
        """Return the records with these numbers, in this order, as a sequence that is read when needed."""
        taken = copy.copy(self)
        taken._rows = self._rows[np.asarray(rows, dtype=np.int64)]
        return taken

    def _read(self, rows: np.ndarray, columns: list[str] | None = None) -> Iterator[Record]:
        """Yield the records of these rows; row groups with images are kept, others are not."""
        groups = np.searchsorted(self._starts, rows, side="right") - 1
        # Neighbours in a group are read as a slice, which takes half the time of pyarrow's `take`.
        apart = np.diff(rows, prepend=-2, append=-2) != 1
        cuts = np.flatnonzero(apart | (np.diff(groups, prepend=-1, append=-1) != 0))
        for start, end in pairwise(cuts):
            group = int(groups[start])
            table = self._read_group(group, columns) if columns else self._group(group)
            for row in table.slice(rows[start] - self._starts[group], end - start).to_pylist():
                yield to_record(row)

    def _read_group(self, group: int, columns: list[str] | None = None) -> pa.Table:
        shard, number = self._places[group].tolist()
        # The file is opened anew, since two threads must not read from one ParquetFile; and it is read
        # without threads of its own, so that a DataLoader's forked workers can read too.
        with pq.ParquetFile(self._shards[shard], metadata=self._footer(shard)) as file:
            return file.read_row_group(number, columns=columns, use_threads=False)


def take(records: Sequence[Record], rows: Sequence[int] | np.ndarray) -> Sequence[Record]:
    """Return the records with these numbers, in this order; those on disk are not read yet."""
    return records.take(rows) if isinstance(records, Records) else [records[int(n)] for n in rows]


def without_images(records: Sequence[Record]) -> Iterator[Record]:
    """Yield the records; those on disk have an empty `image`, which is not read."""
    return records._read(records._rows, WITHOUT_IMAGE) if isinstance(records, Records) else iter(records)


def columns_of(records: Sequence[Record], columns: Sequence[str]) -> pd.DataFrame:
    """Return some columns of n records, without their images: n rows."""
    if isinstance(records, Records):
        table, rows = read_frame(records.folder, list(columns)), records._rows
        whole = len(table) == len(rows) and (np.diff(rows) == 1).all()
        return table if whole else table.iloc[rows].reset_index(drop=True)
    values = {name: [getattr(record, name) for record in records] for name in columns}
    schema = pa.schema([SCHEMA.field(name) for name in columns])
    return pa.table(values, schema=schema).to_pandas()


def fetch(folder: Path, ids: Iterable[str]) -> dict[str, Record]:
    """Return a folder's records with these ids. Raises `UserError` if one is missing. Others are not read."""
    wanted, records = set(ids), Records(folder)
    rows = np.flatnonzero(columns_of(records, ["id"])["id"].isin(wanted))
    by_id = {record.id: record for record in records.take(rows)}
    if missing := sorted(wanted - set(by_id)):
        what = f"{folder} lacks the record {missing[0]}"
        raise UserError(what, "the stages are out of step: run `dvc repro`")
    return by_id
