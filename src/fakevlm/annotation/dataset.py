"""The files of the stage `annotate`: FakeClue as shards and as the release's JSON, and all captions.

Everything is written and read piece by piece: the texts of a million images are never in memory at once.
"""

import json
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fakevlm.annotation.splits import SPLITS
from fakevlm.data.records import FAKE, REAL, Record, RecordWriter, to_fakeclue_row

CANDIDATES = pa.schema([(name, pa.string()) for name in ("id", "annotator", "outcome", "text")])
_GROUP = 5_000  # captions in a row group, the most that are held in memory


@dataclass(frozen=True)
class FakeClue:
    """The results of the stage, as tables without texts.

    Attributes:
        images: one row an image of FakeClue, in the order of collection: id, label, category, source,
            generator, item, split, sha256; `annotators`, how many captioned it (outcome ok); `families`, how
            many the answer names.
        outcomes: number of requests by annotator (rows) and outcome (columns); empty if nobody was asked.
        quality: see `quality.ClueQuality`; empty without ground truth.
        agreement: see `quality.Agreement`.
        metrics: the counts and main numbers, as in metrics.json.
    """

    images: pd.DataFrame
    outcomes: pd.DataFrame
    quality: pd.DataFrame
    agreement: pd.DataFrame
    metrics: dict


class Writer:
    """Write images and captions as they come. A context manager.

    Args:
        out: the folder for `fakeclue/<split>/`, `data_json/<split>.json` and `candidates.parquet`.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._shards, self._json, self._empty = {}, {}, dict.fromkeys(SPLITS, True)
        self._captions: list[tuple[str, str, str, str]] = []

    def __enter__(self) -> "Writer":
        (self._out / "data_json").mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            for split in SPLITS:
                self._shards[split] = stack.enter_context(RecordWriter(self._out / "fakeclue" / split))
                file = self._out / "data_json" / f"{split}.json"
                self._json[split] = stack.enter_context(file.open("w", encoding="utf-8"))
                self._json[split].write("[")
            parquet = pq.ParquetWriter(self._out / "candidates.parquet", CANDIDATES)
            self._parquet = stack.enter_context(parquet)
            stack.callback(self._finish)
            self._open = stack.pop_all()
        return self

    def add(self, record: Record, category: str, split: str, answer: str) -> None:
        """Append an image with its answer."""
        record = replace(record, category=category, split=split, references=[answer])
        self._shards[split].write(record)
        # One element of `json.dumps(rows, indent=1)`.
        row = json.dumps(to_fakeclue_row(record, answer), indent=1, ensure_ascii=False)
        self._json[split].write(("\n " if self._empty[split] else ",\n ") + row.replace("\n", "\n "))
        self._empty[split] = False

    def add_caption(self, image: str, annotator: str, outcome: str, text: str) -> None:
        """Append a caption, or why there is none."""
        self._captions.append((image, annotator, outcome, text))
        if len(self._captions) == _GROUP:
            self._flush()

    def _flush(self) -> None:
        columns = [pa.array(column, pa.string()) for column in zip(*self._captions, strict=True)]
        self._parquet.write_table(pa.table(columns, schema=CANDIDATES))
        self._captions.clear()

    def _finish(self) -> None:
        if self._captions:
            self._flush()
        for split, file in self._json.items():
            file.write("]\n" if self._empty[split] else "\n]\n")

    def __exit__(self, *failure: object) -> None:
        self._open.__exit__(*failure)


def captions_of(file: Path, ids: Collection[str]) -> pd.DataFrame:
    """Return the rows of `candidates.parquet` about some images; memory does not grow with the file."""
    wanted, tables = pa.array(sorted(ids), pa.string()), [CANDIDATES.empty_table()]
    parquet = pq.ParquetFile(file)
    for n in range(parquet.num_row_groups):
        rows = pc.is_in(parquet.read_row_group(n, ["id"])["id"], wanted)
        if pc.any(rows).as_py():
            tables.append(parquet.read_row_group(n, CANDIDATES.names).filter(rows).cast(CANDIDATES))
    return pa.concat_tables(tables).to_pandas()


def counts(images: pd.DataFrame) -> dict:
    """Return how many images FakeClue has by split, fake and real."""
    return {
        "images": {split: int((images["split"] == split).sum()) for split in SPLITS},
        "fake": int((images["label"] == FAKE).sum()),
        "real": int((images["label"] == REAL).sum()),
    }
