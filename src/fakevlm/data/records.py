"""One schema for every image, in shards that `datasets` reads. Labels are FakeClue's: **1 real, 0 fake**."""

import contextlib
import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakevlm.errors import UserError

FAKE, REAL = 0, 1
CATEGORIES = ("animal", "human", "object", "scene", "satellite", "doc", "deepfake")
QUESTION = "Does the image look real/fake?"  # the paper's prompt (section 4.3); the release prints "looks"
FAKECLUE_QUESTION = "Does the image looks real/fake?"  # as the released JSON spells it

GROUP_BYTES = 1 << 20  # of images in a row group, about: what is read to get at one record

_TYPES = {"id": pa.string(), "image": pa.struct({"bytes": pa.binary(), "path": pa.string()})}
_TYPES |= {"label": pa.int8()}
_TYPES |= dict.fromkeys(("category", "source", "generator", "group", "split"), pa.string())
_TYPES |= {"width": pa.int32(), "height": pa.int32(), "sha256": pa.string(), "question": pa.string()}
_TYPES |= {"references": pa.list_(pa.string())}
_REQUIRED = {"id", "label", "source", "group", "sha256"}
# With these metadata `datasets` reads the image column as an Image feature.
_FEATURES = {name: {"dtype": str(kind), "_type": "Value"} for name, kind in _TYPES.items()}
_FEATURES |= {"image": {"_type": "Image"}}
_FEATURES |= {"references": {"feature": {"dtype": "string", "_type": "Value"}, "_type": "List"}}
SCHEMA = pa.schema(
    [pa.field(name, kind, name not in _REQUIRED) for name, kind in _TYPES.items()],
    metadata={"huggingface": json.dumps({"info": {"features": _FEATURES}})},
)
WITHOUT_IMAGE = [name for name in SCHEMA.names if name != "image"]

with contextlib.suppress(ImportError):  # benchmarks/gpu.py has no images, and runs without Pillow
    from PIL import Image, ImageOps, PngImagePlugin

    # Phone cameras take 200 megapixels, 600 MB as RGB. A file that claims more than 250 is taken for one made
    # to fill the memory: Pillow warns above its limit, and refuses twice as many.
    Image.MAX_IMAGE_PIXELS = 125_000_000
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    # ComfyUI writes its workflow, megabytes of text, into its PNGs. More than this unpacked is refused.
    PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = 64 << 20, 512 << 20


# What cameras and generators write. Pillow knows more, and starts Ghostscript for an EPS named .jpg.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")


def open_image(source: bytes | Path) -> "Image.Image":
    """Open an image file, or its bytes. Its pixels are not read yet; see `rgb`."""
    return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)


def rgb(image: "Image.Image") -> "Image.Image":
    """Return an opened image of any mode as upright RGB; of 16 bits a channel the upper eight.

    Cameras note the rotation beside the pixels. Raises `ValueError` if the pixels are floating-point or
    32-bit numbers, of no known range.
    """
    if image.mode == "F" or (image.mode, image.format) == ("I", "TIFF"):
        raise ValueError("floating-point or 32-bit pixels of no known range")
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # Pillow's own conversion makes all white that is above 255
        return Image.fromarray((np.clip(np.asarray(image), 0, 0xFFFF) >> 8).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def decode(image: bytes) -> "Image.Image":
    """Return an encoded image (JPEG, PNG, …) as upright RGB."""
    return rgb(open_image(image))


def encode(image: "Image.Image", form: str, **options: Any) -> bytes:
    """Return an image as a file of a form (`PNG`, `JPEG`); options are those of Pillow's writer."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@dataclass(slots=True)
class Record:
    """One image (or, in DD-VQA, one question about an image)."""

    id: str  # unique: `path`, with `#<n>` appended where several rows (questions) share an image
    image: bytes  # the encoded file (JPEG, PNG, …), byte for byte
    label: int  # 1 real, 0 fake
    source: str  # the corpus (`genimage`, `ff++`, `chameleon`, `satellite`, `doc`, `loki`, …)
    group: str = ""  # what a split must keep together (the video of a frame); by default the image alone
    category: str | None = None  # of `CATEGORIES` or a benchmark's own; None until known
    generator: str | None = None  # of a fake (`adm`, `Deepfakes`, …), None for real images
    split: str | None = None  # the corpus's own (`train`, `val`, `test`), None where it has none
    width: int = 0
    height: int = 0
    sha256: str = ""
    question: str | None = None  # None means the project's standard question
    references: list[str] = field(default_factory=list)  # answers or explanations written by others

    def __post_init__(self) -> None:
        self.group = self.group or self.id
        self.sha256 = self.sha256 or hashlib.sha256(self.image).hexdigest()

    @property
    def path(self) -> str:
        """The image's path below the image root, as in FakeClue's JSON (`genimage/fake/416_adm_45.PNG`)."""
        return re.sub(r"#\d+$", "", self.id)  # a `#` elsewhere is the file name's: `cat #1.jpg`

    def pil(self) -> "Image.Image":
        """Return the decoded image, RGB."""
        return decode(self.image)

    def encoded(self) -> bytes:
        """Return the image as an encoded file: what servers are sent."""
        return self.image


def to_record(row: dict[str, Any]) -> Record:
    """Return the record of a row of a shard; without an image where the row has none."""
    image = row.pop("image", None)
    return Record(image=image["bytes"] if image else b"", **row)


class RecordWriter(contextlib.AbstractContextManager):
    """Write records as `part-00000.parquet`, … in a folder; a context manager. Old parts are removed.

    A shard ends after `shard_rows` rows or `shard_bytes` bytes of images, whichever comes first: a million
    images of 400 kB are 3,200 files, few enough for DVC to look at in seconds. `total` counts the records.
    """

    def __init__(self, folder: Path, shard_rows: int = 2000, shard_bytes: int = 128 << 20) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("part-*.parquet"):
            old.unlink()
        self._folder, self._max_rows, self._max_bytes = folder, shard_rows, shard_bytes
        self._file: pq.ParquetWriter | None = None
        self._shards = self._rows = self._bytes = self._group_bytes = self.total = 0
        self._group: list[dict[str, Any]] = []

    def write(self, record: Record) -> None:
        """Append a record."""
        size = len(record.image)
        self._group.append(asdict(record) | {"image": {"bytes": record.image, "path": record.path}})
        self.total, self._rows = self.total + 1, self._rows + 1
        self._bytes, self._group_bytes = self._bytes + size, self._group_bytes + size
        if self._rows >= self._max_rows or self._bytes >= self._max_bytes:
            self._end_shard()
        elif self._group_bytes >= GROUP_BYTES:
            self._end_group()

    def _end_group(self) -> None:
        if self._file is None:
            # Image bytes are compressed already: dictionary and codec would only cost time.
            options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
            file = self._folder / f"part-{self._shards:05d}.parquet"
            self._file = pq.ParquetWriter(file, SCHEMA, **options)
        self._file.write_table(pa.Table.from_pylist(self._group, schema=SCHEMA))
        self._group, self._group_bytes = [], 0

    def _end_shard(self) -> None:
        if self._group or self._file is None:
            self._end_group()
        self._file.close()
        self._file, self._shards, self._rows, self._bytes = None, self._shards + 1, 0, 0

    def __exit__(self, *_: object) -> None:
        if self._rows or self._shards == 0:  # without any record, one empty shard holds the schema
            self._end_shard()


def write_records(records: Iterable[Record], folder: Path, **limits: int) -> int:
    """Write records into a folder of shards (limits as in `RecordWriter`); return how many."""
    with RecordWriter(folder, **limits) as writer:
        for record in records:
            writer.write(record)
    return writer.total


def shards(folder: Path) -> list[Path]:
    """Return the files of a folder of records, in order. Raises `UserError` if there are none."""
    if parts := sorted(folder.glob("part-*.parquet")):
        return parts
    what = f"no record shards (part-*.parquet) in {folder}"
    raise UserError(what, "run the stage that makes them: `dvc repro`")


def read_records(folder: Path) -> Iterator[Record]:
    """Stream the records of a folder written by `write_records`, in order, about a MB of images at a time."""
    for part in shards(folder):
        file = pq.ParquetFile(part)
        for group in range(file.num_row_groups):  # `iter_batches` would fetch the whole shard in advance
            for row in file.read_row_group(group, use_threads=False).to_pylist():
                yield to_record(row)


def read_frame(folder: Path, columns: list[str] | None = None) -> pd.DataFrame:
    """Return the records' columns, without the images."""
    table = pa.concat_tables([pq.ParquetFile(part).read(columns or WITHOUT_IMAGE) for part in shards(folder)])
    return table.to_pandas(split_blocks=True, self_destruct=True)  # each column is freed once it is copied


def to_fakeclue_row(record: Record, answer: str) -> dict[str, Any]:
    """Return a row of FakeClue's released JSON."""
    question = {"from": "human", "value": f"<image>{FAKECLUE_QUESTION}"}
    row = {"image": record.path, "label": record.label, "cate": record.category}
    row |= {"width": record.width, "height": record.height}
    return row | {"conversations": [question, {"from": "gpt", "value": answer}]}
