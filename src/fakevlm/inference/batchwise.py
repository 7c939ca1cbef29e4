"""What a model makes of images, batch by batch: in this process, or in the workers of a Ray cluster (`cluster` in params.yaml).

How batches are cut depends on the records and the batch size alone, and a batch that is done is kept in a journal. So a run may
be killed, and may go on elsewhere; workers without GPUs give, bit for bit, what one process gives.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import fakevlm
from fakevlm import progress
from fakevlm.config.params import Cluster
from fakevlm.data.records import Record, decode
from fakevlm.data.shards import columns_of
from fakevlm.inference import cluster

Columns = dict[str, np.ndarray]
Look = Callable[[list[Image.Image]], Columns]  # n RGB images → columns of n rows


class Viewer:
    """A model that looks at images, in this process or on a cluster.

    Args:
        load: gives the model; called where it is needed, once in a process, and not at all if a journal holds everything. It
            travels to the workers: a function of a module, or a `partial` of one.
        key: what, beside the images, decides the result (weights, settings), as JSON has it: a journal's parts are named
            after it, and after this package's code.
        batch_size: images at a time.
        where: the cluster; null: this process.
    """

    def __init__(self, load: Callable[[], Look], key: Any, batch_size: int, where: Cluster | None) -> None:
        self.key, self.batch_size = key, batch_size
        self._load, self._where, self._model = load, where, cache(load)

    def look(self, records: Sequence[Record], journal: Path | None, desc: str) -> Columns:
        """What the model makes of every record's image.

        Args:
            records: n of them.
            journal: folder of the batches that are done, or None to keep none.
            desc: of the progress bar.

        Returns:
            Columns of n rows, in the records' order; no columns where there are no records.

        Raises:
            UserError: see `cluster.run`; and whatever `load` raises.
        """
        found: Columns = {}
        starts = range(0, len(records), self.batch_size)
        parts = dict(zip(starts, self._parts(records, journal), strict=True))
        with progress.bar(len(records), desc) as bar:

            def done(start: int, columns: Columns) -> None:
                rows = min(self.batch_size, len(records) - start)
                for name, values in columns.items():
                    if len(values) != rows:
                        raise ValueError(f"{desc}: {len(values)} values of {name} for {rows} images")
                    if name not in found:
                        found[name] = np.empty((len(records), *values.shape[1:]), values.dtype)
                    found[name][start : start + rows] = values
                bar.update(rows)

            def todo() -> Iterator[tuple[int, list[bytes]]]:
                for start, part in parts.items():
                    if part is not None and part.exists():
                        done(start, _unpacked(part.read_bytes()))
                    else:
                        batch = records[start : start + self.batch_size]
                        yield start, [record.image for record in batch]

            answered = self._here(todo()) if self._where is None else self._there(todo())
            for start, columns in answered:
                if (part := parts[start]) is not None:  # whole or not at all, whenever the process dies
                    part.with_suffix(".tmp").write_bytes(_packed(columns))
                    os.replace(part.with_suffix(".tmp"), part)
                done(start, columns)
        return found

    def _parts(self, records: Sequence[Record], journal: Path | None) -> Iterator[Path | None]:
        """Each batch's file in the journal."""
        if journal is None:
            yield from [None] * len(range(0, len(records), self.batch_size))
            return
        journal.mkdir(parents=True, exist_ok=True)
        hashes = columns_of(records, ["sha256"])["sha256"].tolist()
        said = json.dumps([self.key, code()]).encode()
        for start in range(0, len(hashes), self.batch_size):
            digest = hashlib.sha256(said + "\n".join(hashes[start : start + self.batch_size]).encode())
            yield journal / f"part-{digest.hexdigest()[:32]}.npz"

    def _here(self, batches: Iterator[tuple[int, list[bytes]]]) -> Iterator[tuple[int, Columns]]:
        for start, images in batches:
            yield start, self._model()([decode(image) for image in images])

    def _there(self, batches: Iterator[tuple[int, list[bytes]]]) -> Iterator[tuple[int, Columns]]:
        sent = ({"start": start, "image": images} for start, images in batches)
        for row in cluster.run(sent, Looking, {"load": self._load}, self._where):
            yield row["start"], _unpacked(row["columns"])


class Looking:
    """What a worker holds: the model. Batches come as encoded images, and go back as an npz file's bytes."""

    def __init__(self, load: Callable[[], Look]) -> None:
        self.look = load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        columns = self.look([decode(image) for image in batch["image"]])
        return {"start": batch["start"], "columns": _packed(columns)}


def _packed(columns: Columns) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **columns)
    return buffer.getvalue()


def _unpacked(data: bytes) -> Columns:
    with np.load(io.BytesIO(data), allow_pickle=False) as stored:
        return dict(stored)


def fingerprint(folder: Path) -> str:
    """Hash of a model folder's files (weights, configuration, tokenizer): names a journal after the model it belongs to."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.is_file()):
        with file.open("rb") as stream:
            digest.update(f"{file.name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()[:32]


@cache
def code() -> str:
    """Hash of the package: whatever was changed in it, an old journal no longer fits. What is lost by that are minutes."""
    folder = Path(fakevlm.__file__).parent
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
