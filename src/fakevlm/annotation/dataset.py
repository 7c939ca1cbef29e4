"""The files of the stage `annotate`: FakeClue as shards and as the release's JSON, and all captions.

Everything is written piece by piece: the texts of a million images are never in memory at once.
"""

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakevlm.annotation.prompts import LABELS
from fakevlm.annotation.splits import SPLITS
from fakevlm.data.records import FAKE, REAL, Record, RecordWriter, to_fakeclue_row
from fakevlm.data.shards import Records
from fakevlm.errors import UserError

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
        quality: see `quality.clue_quality`; empty without ground truth.
        agreement: see `quality.agreement`.
        metrics: the counts and main numbers, as in metrics.json.
    """

    images: pd.DataFrame
    outcomes: pd.DataFrame
    quality: pd.DataFrame
    agreement: pd.DataFrame
    metrics: dict


class Writer(ExitStack):
    """Write images and captions as they come. A context manager.

    Args:
        out: the folder for `fakeclue/<split>/`, `data_json/<split>.json` and `candidates.parquet`.
    """

    def __init__(self, out: Path) -> None:
        super().__init__()
        (out / "data_json").mkdir(parents=True, exist_ok=True)
        self._parquet = self.enter_context(pq.ParquetWriter(out / "candidates.parquet", CANDIDATES))
        self._captions: list[tuple[str, str, str, str]] = []
        self._shards, self._json = {}, {}
        for split in SPLITS:
            file = out / "data_json" / f"{split}.json"
            self._shards[split] = self.enter_context(RecordWriter(out / "fakeclue" / split))
            self._json[split] = self.enter_context(file.open("w", encoding="utf-8"))
        self.callback(self._finish)

    def add(self, record: Record, category: str, split: str, answer: str) -> None:
        """Append an image with its answer."""
        shards, file = self._shards[split], self._json[split]
        record = replace(record, category=category, split=split, references=[answer])
        # One element of `json.dumps(rows, indent=1)`.
        row = json.dumps(to_fakeclue_row(record, answer), indent=1, ensure_ascii=False)
        file.write((",\n " if shards.total else "[\n ") + row.replace("\n", "\n "))
        shards.write(record)

    def add_caption(self, image: str, annotator: str, outcome: str, text: str) -> None:
        """Append a caption, or why there is none."""
        self._captions.append((image, annotator, outcome, text))
        if len(self._captions) == _GROUP:
            self._write_captions()

    def _write_captions(self) -> None:
        columns = [pa.array(column, pa.string()) for column in zip(*self._captions, strict=True)]
        self._parquet.write_table(pa.table(columns, schema=CANDIDATES))
        self._captions.clear()

    def _finish(self) -> None:
        if self._captions:
            self._write_captions()
        for split, file in self._json.items():
            file.write("\n]\n" if self._shards[split].total else "[]\n")


def counts(images: pd.DataFrame) -> dict:
    """Return how many images FakeClue has by split, fake and real."""
    return {
        "images": {split: int((images["split"] == split).sum()) for split in SPLITS},
        "fake": int((images["label"] == FAKE).sum()),
        "real": int((images["label"] == REAL).sum()),
    }


def pick(fakeclue: FakeClue, folder: Path, label: int = FAKE) -> tuple[Record, dict[str, str]] | None:
    """Return a training image that all annotators captioned, and its captions by annotator (paper Fig. 2).

    Its answer names two families of artifacts or more, where there is such an image. Among these the least
    hash decides, so that the example is typical, good or bad. None if nobody was asked (profile `released`).

    Args:
        fakeclue: the results of the stage.
        folder: the stage's output.
        label: 0 for a fake, 1 for a real image.

    Raises:
        UserError: no such image was captioned by all annotators.
    """
    if fakeclue.outcomes.empty:
        return None
    wanted = {"split": "train", "label": label, "annotators": len(fakeclue.outcomes)}
    images = fakeclue.images[(fakeclue.images[list(wanted)] == list(wanted.values())).all(axis=1)]
    if images.empty:
        raise UserError(
            f"no {LABELS[label]} image of the training split was captioned by every annotator",
            "look at candidates.parquet; run the stage again: requests that ended in errors are repeated",
        )
    several = images["families"] >= 2
    chosen = (images[several] if several.any() else images).sort_values("sha256").iloc[0]
    train = Records(folder / "fakeclue" / "train")
    record = train[train.frame(["id"])["id"].eq(chosen["id"]).argmax()]
    captions = pd.read_parquet(folder / "candidates.parquet", filters=[("id", "==", record.id)])
    return record, captions.set_index("annotator")["text"].to_dict()
