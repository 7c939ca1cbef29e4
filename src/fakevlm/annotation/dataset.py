"""What the stage `annotate` leaves behind, whoever wrote the texts: FakeClue as shards of records and as the release's JSON.

Everything is written image by image: texts of a million images are in no memory at once.
"""

import json
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TextIO

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fakevlm.annotation.splits import SPLITS
from fakevlm.data.records import FAKE, REAL, Record, RecordWriter, to_fakeclue_row

CANDIDATES = pa.schema([(name, pa.string()) for name in ("id", "annotator", "outcome", "text")])
_GROUP = 5_000  # captions in a row group: what is in memory at a time


@dataclass(frozen=True)
class FakeClue:
    """What the stage made, as tables for the notebook. Texts are on disk alone.

    Attributes:
        images: one row an image in FakeClue, in the order they were collected: id, label, category, source, generator, item, split,
            sha256; `annotators`, how many annotators captioned it (outcome ok); `families`, how many the answer names.
        outcomes: how many requests of each annotator (rows) ended in which way (columns); empty if nobody was asked.
        quality: see `quality.ClueQuality`; empty where no truth is known.
        agreement: see `quality.Agreement`.
        metrics: the counts and main numbers, as in metrics.json.
    """

    images: pd.DataFrame
    outcomes: pd.DataFrame
    quality: pd.DataFrame
    agreement: pd.DataFrame
    metrics: dict


class Writer:
    """Writes the splits as shards of records and as FakeClue's JSON; records as they come. A context manager.

    Args:
        out: `fakeclue/<split>/` and `data_json/<split>.json` are made in it.
    """

    def __init__(self, out: Path) -> None:
        self._out = out

    def __enter__(self) -> "Writer":
        (self._out / "data_json").mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self._shards = {
                split: stack.enter_context(RecordWriter(self._out / "fakeclue" / split)) for split in SPLITS
            }
            self._json = {
                split: stack.enter_context(_List(self._out / "data_json" / f"{split}.json"))
                for split in SPLITS
            }
            self._open = stack.pop_all()
        return self

    def add(self, record: Record, category: str, split: str, answer: str) -> None:
        """Appends an image with its answer."""
        record = replace(record, category=category, split=split, references=[answer])
        self._shards[split].write(record)
        self._json[split].add(to_fakeclue_row(record, answer))

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)


class _List:
    """A JSON file with a list, item by item; the bytes of `json.dumps(…, indent=1)`."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> "_List":
        self._text: TextIO = self._file.open("w", encoding="utf-8")
        self._text.write("[")
        self._any = False
        return self

    def add(self, item: dict) -> None:
        lines = json.dumps(item, indent=1, ensure_ascii=False).replace("\n", "\n ")
        self._text.write((",\n " if self._any else "\n ") + lines)
        self._any = True

    def __exit__(self, *failure: object) -> None:
        self._text.write("\n]\n" if self._any else "]\n")
        self._text.close()


class CandidateWriter:
    """Writes `candidates.parquet` row by row. A context manager."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._parquet = pq.ParquetWriter(file, CANDIDATES)
        self._rows: list[tuple[str, ...]] = []

    def __enter__(self) -> "CandidateWriter":
        return self

    def add(self, *row: str) -> None:
        """Appends id, annotator, outcome, text."""
        self._rows.append(row)
        if len(self._rows) == _GROUP:
            self._end_group()

    def _end_group(self) -> None:
        columns = [pa.array(column, pa.string()) for column in zip(*self._rows, strict=True)]
        self._parquet.write_table(pa.table(columns, schema=CANDIDATES))
        self._rows.clear()

    def __exit__(self, *failure: object) -> None:
        if self._rows:
            self._end_group()
        self._parquet.close()


def candidates_about(file: Path, ids: Collection[str]) -> pd.DataFrame:
    """The rows of `candidates.parquet` about some images; read group by group, so that memory does not grow with the file."""
    wanted, found = pa.array(sorted(ids), pa.string()), [CANDIDATES.empty_table()]
    parquet = pq.ParquetFile(file)
    for n in range(parquet.num_row_groups):
        chosen = pc.is_in(parquet.read_row_group(n, ["id"])["id"], wanted)
        if pc.any(chosen).as_py():
            found.append(parquet.read_row_group(n, CANDIDATES.names).filter(chosen).cast(CANDIDATES))
    return pa.concat_tables(found).to_pandas()


def numbers(chosen: pd.DataFrame) -> dict:
    """How many images FakeClue has: by split, fake, real."""
    return {
        "images": {split: int((chosen["split"] == split).sum()) for split in SPLITS},
        "fake": int((chosen["label"] == FAKE).sum()),
        "real": int((chosen["label"] == REAL).sum()),
    }
