"""One schema for every image of the project, stored as parquet shards that `datasets` reads.

A record is an image (its encoded bytes, never decoded and re-encoded), its label, where it came from and what is
said about it. `label` follows the released FakeClue: **1 = real, 0 = fake**.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fakevlm.errors import UserError

FAKE, REAL = 0, 1
CATEGORIES = ("animal", "human", "object", "scene", "satellite", "doc", "deepfake")
QUESTION = "Does the image look real/fake?"  # the paper's prompt (section 4.3); the release prints "looks"
FAKECLUE_QUESTION = "Does the image looks real/fake?"  # as the released JSON spells it

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])),
        pa.field("label", pa.int8(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("generator", pa.string()),
        pa.field("item", pa.string(), nullable=False),
        pa.field("split", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("question", pa.string()),
        pa.field("references", pa.list_(pa.string())),
    ],
    # `datasets` reads the image column as an Image feature without being told.
    metadata={
        "huggingface": json.dumps(
            {
                "info": {
                    "features": {
                        **{k: {"dtype": "string", "_type": "Value"} for k in ("id",)},
                        "image": {"_type": "Image"},
                        "label": {"dtype": "int8", "_type": "Value"},
                        **{
                            k: {"dtype": "string", "_type": "Value"}
                            for k in ("category", "source", "generator", "item", "split")
                        },
                        **{k: {"dtype": "int32", "_type": "Value"} for k in ("width", "height")},
                        **{k: {"dtype": "string", "_type": "Value"} for k in ("sha256", "question")},
                        "references": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"},
                    }
                }
            }
        )
    },
)


@dataclass(slots=True)
class Record:
    """One image (or, in DD-VQA, one question about an image).

    Attributes:
        id: unique; the image's path relative to the image root, as in FakeClue's JSON (`genimage/fake/416_adm_45.PNG`).
            Where several rows share an image (DD-VQA's questions) `#<n>` is appended.
        image: the encoded file (JPEG, PNG, …), byte for byte.
        label: 1 real, 0 fake.
        category: one of `CATEGORIES` (benchmarks may add their own, e.g. LOKI's `medicine`), None until known.
        source: the corpus (`genimage`, `ff++`, `chameleon`, `satellite`, `doc`, `loki`, …).
        generator: what made a fake (`adm`, `Deepfakes`, …), None for real images.
        item: what must not straddle a split: the video of a frame, the source photograph of an image.
        split: the corpus's own split (`train`, `val`, `test`), None where it has none.
        question: the question asked; None means the project's standard question.
        references: reference answers or explanations written by others (humans in LOKI and DD-VQA).
    """

    id: str
    image: bytes
    label: int
    source: str
    item: str
    category: str | None = None
    generator: str | None = None
    split: str | None = None
    width: int = 0
    height: int = 0
    sha256: str = ""
    question: str | None = None
    references: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.sha256:
            self.sha256 = hashlib.sha256(self.image).hexdigest()

    @property
    def path(self) -> str:
        """The image's path relative to the image root."""
        return self.id.split("#")[0]

    def pil(self) -> Image.Image:
        """The decoded image, RGB."""
        return Image.open(io.BytesIO(self.image)).convert("RGB")


def _row(record: Record) -> dict[str, Any]:
    row = asdict(record)
    row["image"] = {"bytes": record.image, "path": record.path}
    return row


def _record(row: dict[str, Any]) -> Record:
    image = row.pop("image", None)
    return Record(image=image["bytes"] if image else b"", **row)


def write_records(
    records: Iterable[Record], folder: Path, shard_rows: int = 2000, shard_bytes: int = 128 << 20
) -> int:
    """Writes records as `part-00000.parquet`, … in `folder` (made, emptied of old parts); returns how many.

    A shard ends at `shard_rows` records or `shard_bytes` of images, whichever comes first. Memory stays at one shard however
    many records come and however large their images are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("part-*.parquet"):
        old.unlink()
    total, shard, size, rows = 0, 0, 0, []

    def flush() -> None:
        nonlocal shard, size, rows
        table = pa.Table.from_pylist(rows, schema=SCHEMA)
        # Image bytes are already compressed: dictionary and codec would only cost time.
        pq.write_table(table, folder / f"part-{shard:05d}.parquet", compression="none", use_dictionary=False)
        shard, size, rows = shard + 1, 0, []

    for record in records:
        rows.append(_row(record))
        total, size = total + 1, size + len(record.image)
        if len(rows) >= shard_rows or size >= shard_bytes:
            flush()
    if rows or shard == 0:
        flush()
    return total


def _parts(folder: Path) -> list[Path]:
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise UserError(
            f"no record shards (part-*.parquet) in {folder}", "run the stage that makes them: `dvc repro`"
        )
    return parts


def read_records(folder: Path) -> Iterator[Record]:
    """Streams the records of a folder written by `write_records`, in order."""
    for part in _parts(folder):
        for batch in pq.ParquetFile(part).iter_batches(batch_size=256):
            for row in batch.to_pylist():
                yield _record(row)


def read_frame(folder: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """The records' columns, without the images, as a pandas DataFrame."""
    columns = columns or [name for name in SCHEMA.names if name != "image"]
    return pa.concat_tables([pq.read_table(p, columns=columns) for p in _parts(folder)]).to_pandas()


def to_fakeclue_row(record: Record, answer: str) -> dict[str, Any]:
    """A row of FakeClue's released JSON."""
    return {
        "image": record.path,
        "label": record.label,
        "cate": record.category,
        "width": record.width,
        "height": record.height,
        "conversations": [
            {"from": "human", "value": f"<image>{FAKECLUE_QUESTION}"},
            {"from": "gpt", "value": answer},
        ],
    }
