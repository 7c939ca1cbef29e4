"""One schema for every image of the project, stored as parquet shards that `datasets` reads.

A record is an image (its encoded bytes, never decoded and re-encoded), its label, where it came from and what
is said about it. `label` follows the released FakeClue: **1 = real, 0 = fake**.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from fakevlm.errors import UserError

FAKE, REAL = 0, 1
CATEGORIES = ("animal", "human", "object", "scene", "satellite", "doc", "deepfake")
QUESTION = "Does the image look real/fake?"  # the paper's prompt (section 4.3); the release prints "looks"
FAKECLUE_QUESTION = "Does the image looks real/fake?"  # as the released JSON spells it

GROUP_BYTES = 1 << 20  # of images in a row group, about: what is read to get at one record

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


# Phone cameras take 200 megapixels. Pillow warns above this number and refuses above twice as many.
Image.MAX_IMAGE_PIXELS = 250_000_000


def rgb(image: Image.Image) -> Image.Image:
    """An opened image of whatever mode as RGB; of 16 bits a channel the upper eight.

    Raises:
        ValueError: its pixels are floating-point numbers, of no known range.
    """
    if image.mode.startswith("I"):  # Pillow's own conversion makes all white that is above 255
        return Image.fromarray((np.clip(np.asarray(image), 0, 0xFFFF) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels of no known range")
    return image.convert("RGB")


def decode(image: bytes) -> Image.Image:
    """An encoded image (JPEG, PNG, …) as RGB."""
    return rgb(Image.open(io.BytesIO(image)))


@dataclass(slots=True)
class Record:
    """One image (or, in DD-VQA, one question about an image).

    Attributes:
        id: unique; the image's path relative to the image root, as in FakeClue's JSON
            (`genimage/fake/416_adm_45.PNG`). Where several rows share an image (DD-VQA's questions) `#<n>` is
            appended.
        image: the encoded file (JPEG, PNG, …), byte for byte.
        label: 1 real, 0 fake.
        category: one of `CATEGORIES` (benchmarks may add their own, e.g. LOKI's `medicine`), None until
            known.
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
        return decode(self.image)

    def encoded(self) -> bytes:
        """The image as an encoded file: what servers are sent."""
        return self.image


def _row(record: Record) -> dict[str, Any]:
    row = asdict(record)
    row["image"] = {"bytes": record.image, "path": record.path}
    return row


def to_record(row: dict[str, Any]) -> Record:
    """The record of a row of a shard; without an image where the row has none."""
    image = row.pop("image", None)
    return Record(image=image["bytes"] if image else b"", **row)


class RecordWriter:
    """Writes records as `part-00000.parquet`, … in a folder (made, emptied of old parts); a context manager.

    Within a shard, records lie in row groups of about `GROUP_BYTES` of images: these are what is held in
    memory here, and what is read to get at one record (`shards.Records`).

    Args:
        folder: of the shards.
        shard_rows, shard_bytes: a shard ends with so many rows or so many bytes of images, whichever comes
            first. A million images of 400 kB are 3,200 files, few enough for DVC to look at in seconds.

    Attributes:
        total: how many records were written.
    """

    def __init__(self, folder: Path, shard_rows: int = 2000, shard_bytes: int = 128 << 20) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("part-*.parquet"):
            old.unlink()
        self._folder, self._most_rows, self._most_bytes = folder, shard_rows, shard_bytes
        self._file: pq.ParquetWriter | None = None
        self._shards = self._rows = self._bytes = self._group_bytes = self.total = 0
        self._group: list[dict[str, Any]] = []

    def write(self, record: Record) -> None:
        """Appends a record."""
        self._group.append(_row(record))
        size = len(record.image)
        self.total, self._rows = self.total + 1, self._rows + 1
        self._bytes, self._group_bytes = self._bytes + size, self._group_bytes + size
        if self._rows >= self._most_rows or self._bytes >= self._most_bytes:
            self._end_shard()
        elif self._group_bytes >= GROUP_BYTES:
            self._end_group()

    def _end_group(self) -> None:
        if self._file is None:
            # Image bytes are already compressed: dictionary and codec would only cost time; nobody asks for
            # statistics.
            options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
            self._file = pq.ParquetWriter(
                self._folder / f"part-{self._shards:05d}.parquet", SCHEMA, **options
            )
        self._file.write_table(pa.Table.from_pylist(self._group, schema=SCHEMA))
        self._group, self._group_bytes = [], 0

    def _end_shard(self) -> None:
        if self._group or self._file is None:
            self._end_group()
        self._file.close()
        self._file, self._shards, self._rows, self._bytes = None, self._shards + 1, 0, 0

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, *failure: object) -> None:
        if self._rows or self._shards == 0:  # without any record, one empty shard tells the schema
            self._end_shard()


def write_records(
    records: Iterable[Record], folder: Path, shard_rows: int = 2000, shard_bytes: int = 128 << 20
) -> int:
    """Writes records into a folder of shards (see `RecordWriter`), a few MB at a time; returns how many."""
    with RecordWriter(folder, shard_rows, shard_bytes) as writer:
        for record in records:
            writer.write(record)
    return writer.total


def shards(folder: Path) -> list[Path]:
    """The files of a folder of records, in order.

    Raises:
        UserError: there are none.
    """
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise UserError(
            f"no record shards (part-*.parquet) in {folder}", "run the stage that makes them: `dvc repro`"
        )
    return parts


def read_records(folder: Path, where: Mapping[str, str] | None = None) -> Iterator[Record]:
    """Streams the records of a folder written by `write_records`, in order, about a MB of images at a time.

    Args:
        where: only records with these values, by column; the images of other shards are not read.
    """
    for part in shards(folder):
        file = pq.ParquetFile(part)
        if where and not _chosen(file.read(columns=list(where)), where).true_count:
            continue
        for group in range(file.num_row_groups):  # `iter_batches` would fetch the whole shard in advance
            table = file.read_row_group(group, use_threads=False)
            if where:
                table = table.filter(_chosen(table, where))
            for row in table.to_pylist():
                yield to_record(row)


def _chosen(table: pa.Table, where: Mapping[str, str]) -> pa.BooleanArray:
    mask = reduce(pc.and_, (pc.equal(table[name], value) for name, value in where.items()))
    mask = pc.fill_null(mask, False)
    return mask.combine_chunks()


def read_frame(folder: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """The records' columns, without the images, as a pandas DataFrame."""
    columns = columns or [name for name in SCHEMA.names if name != "image"]
    table = pa.concat_tables([pq.ParquetFile(p).read(columns) for p in shards(folder)])
    # Column by column: each is given up when its copy is made.
    return table.to_pandas(split_blocks=True, self_destruct=True)


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
