"""Keep whole images, each once, under an id of its own."""

from dataclasses import dataclass, field

import numpy as np

from fakevlm.collection.perceptual import phash
from fakevlm.data.corpora.files import BadImage, Quarantine, decoded
from fakevlm.data.records import REAL, Record
from fakevlm.synthesis.satellite.aerials import square


@dataclass(frozen=True)
class Inspected:
    """A record and what was computed from its decoded image.

    Attributes:
        record: with width and height.
        phash: 64 bits; None for an image without contrast.
        aerial: (s, s, 3) uint8 of a real aerial image, where the generators want it.
        problem: why the image cannot be used; None if it can.
    """

    record: Record
    phash: int | None = None
    aerial: np.ndarray | None = None
    problem: str | None = None


def inspect(record: Record, aerial_size: int | None = None) -> Inspected:
    """Decode a record's image and compute what the collection needs of it. Called in worker threads.

    Args:
        record: gets its width and height.
        aerial_size: side of the aerial images that the generators learn from; None: there are no generators.
    """
    if record.id != record.id.encode(errors="replace").decode():
        problem = "the file's name is not UTF-8: rename it, or unpack with the right encoding"
        return Inspected(record, problem=problem)
    try:
        image = decoded(record)
    except BadImage as error:
        return Inspected(record, problem=str(error))
    wanted = aerial_size and record.source == "satellite" and record.label == REAL
    return Inspected(record, phash(image), square(image, aerial_size) if wanted else None)


@dataclass
class Filter:
    """Decide which inspected records become part of the collection.

    Attributes:
        quarantine: gets what cannot be used.
        unique: drop copies by content; an image under both labels goes to quarantine.
        duplicates: (sha256, id that is kept, id that is dropped).
    """

    quarantine: Quarantine
    unique: bool = True
    duplicates: list[tuple[str, str, str]] = field(default_factory=list)
    _first: dict[bytes, tuple[int, str]] = field(default_factory=dict)  # label and id by content
    _ids: set[str] = field(default_factory=set)

    def accepts(self, corpus: str, item: Inspected) -> bool:
        """Return whether the record is kept; its id is made unique then."""
        record = item.record
        if item.problem is not None:
            name = record.id.encode(errors="backslashreplace").decode()
            self.quarantine.add(corpus, name, item.problem)
            return False
        content = bytes.fromhex(record.sha256)
        if self.unique and content in self._first:
            label, first = self._first[content]
            if label != record.label:
                self.quarantine.add(corpus, record.id, f"same content as {first}, which has the other label")
            else:
                self.duplicates.append((record.sha256, first, record.id))
            return False
        record.id = self._free(record.id)
        self._ids.add(record.id)
        self._first.setdefault(content, (record.label, record.id))
        return True

    def _free(self, name: str) -> str:
        """Return the id, with a number before its suffix if another image has it already."""
        stem, dot, suffix = name.rpartition(".")
        n, free = 1, name
        while free in self._ids:
            n += 1
            free = f"{stem}~{n}{dot}{suffix}"
        return free
