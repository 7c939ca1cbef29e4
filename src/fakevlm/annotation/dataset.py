"""What the stage `annotate` leaves behind, whoever wrote the texts: FakeClue as shards of records and as the release's JSON."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa

from fakevlm.annotation.splits import SPLITS
from fakevlm.records import FAKE, REAL, Record, read_records, to_fakeclue_row, write_records

CANDIDATES = pa.schema([(name, pa.string()) for name in ("id", "annotator", "outcome", "text")])


@dataclass(frozen=True)
class FakeClue:
    """What the stage made, as tables for the notebook.

    Attributes:
        images: one row an image in FakeClue: id, label, category, source, generator, item, split, answer.
        candidates: id, annotator, outcome, text.
        quality: see `quality.clue_quality`; empty where no truth is known.
        agreement: see `quality.agreement`.
        metrics: the counts and main numbers, as in metrics.json.
    """

    images: pd.DataFrame
    candidates: pd.DataFrame
    quality: pd.DataFrame
    agreement: pd.DataFrame
    metrics: dict


def write(chosen: pd.DataFrame, records: Path, out: Path) -> None:
    """Writes the splits as shards of records and as FakeClue's JSON; records in the order they were collected.

    Args:
        chosen: by id: category, split, answer; records that are not in it are left out.
        records: folder of the collected records; streamed once a split.
        out: `fakeclue/<split>/` and `data_json/<split>.json` are made in it.
    """
    rows = chosen[["category", "split", "answer"]].to_dict("index")
    (out / "data_json").mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        listed: list[dict] = []

        def annotated(split: str = split, listed: list[dict] = listed) -> Iterator[Record]:
            for record in read_records(records):
                row: Mapping | None = rows.get(record.id)
                if row is not None and row["split"] == split:
                    record = replace(
                        record, category=row["category"], split=split, references=[row["answer"]]
                    )
                    listed.append(to_fakeclue_row(record, row["answer"]))
                    yield record

        write_records(annotated(), out / "fakeclue" / split)
        text = json.dumps(listed, indent=1, ensure_ascii=False)
        (out / "data_json" / f"{split}.json").write_text(text + "\n", encoding="utf-8")


def numbers(chosen: pd.DataFrame) -> dict:
    """How many images FakeClue has: by split, fake, real."""
    return {
        "images": {split: int((chosen["split"] == split).sum()) for split in SPLITS},
        "fake": int((chosen["label"] == FAKE).sum()),
        "real": int((chosen["label"] == REAL).sum()),
    }
