"""Keep readable images, each once, under a unique id."""

from dataclasses import dataclass, field

import numpy as np

from fakevlm.collection.perceptual import phash
from fakevlm.data.corpora.files import BadImage, Unusable, decoded
from fakevlm.data.records import REAL, Record
from fakevlm.synthesis.satellite.aerials import square


@dataclass(frozen=True)
class Inspected:
    """A record and what was computed from its decoded image."""

    record: Record  # with width and height
    phash: int | None  # 64 bits; None for an image without contrast
    aerial: np.ndarray | None  # (s, s, 3) uint8 of a real aerial image, where the generators need it


def inspect(record: Record | Unusable, corpus: str, aerial_size: int | None = None) -> Inspected | Unusable:
    """Decode a record's image and compute what the collection needs of it. Called in worker threads.

    Args:
        record: gets its width and height.
        corpus: its name in quarantine.csv.
        aerial_size: side of the aerial images that the generators learn from; None: there are no generators.
    """
    if isinstance(record, Unusable):
        return record
    if record.id != record.id.encode(errors="replace").decode():
        reason = "the file's name is not UTF-8: rename it, or unpack with the right encoding"
        return Unusable(corpus, record.id.encode(errors="backslashreplace").decode(), reason)
    try:
        image = decoded(record)
    except BadImage as error:
        return Unusable(corpus, record.id, str(error))
    aerial = aerial_size and record.source == "satellite" and record.label == REAL
    return Inspected(record, phash(image), square(image, aerial_size) if aerial else None)


@dataclass
class Filter:
    """Decide which inspected records become part of the collection."""

    unique: bool = True  # drop copies by content; an image under both labels cannot be used
    quarantine: list[Unusable] = field(default_factory=list)
    duplicates: list[tuple[str, str, str]] = field(default_factory=list)  # sha256, kept id, dropped id
    _first: dict[bytes, tuple[int, str]] = field(default_factory=dict)  # label and id by content
    _ids: set[str] = field(default_factory=set)

    def accepts(self, corpus: str, inspected: Inspected | Unusable) -> bool:
        """Return whether the record is kept; its id is made unique then."""
        if isinstance(inspected, Unusable):
            self.quarantine.append(inspected)
            return False
        record = inspected.record
        content = bytes.fromhex(record.sha256)
        if self.unique and content in self._first:
            label, first = self._first[content]
            if label != record.label:
                reason = f"same content as {first}, which has the other label"
                self.quarantine.append(Unusable(corpus, record.id, reason))
            else:
                self.duplicates.append((record.sha256, first, record.id))
            return False
        record.id = self._free_id(record.id)
        self._ids.add(record.id)
        self._first.setdefault(content, (record.label, record.id))
        return True

    def _free_id(self, name: str) -> str:
        """Return the id, with a number before its suffix if another image has it already."""
        stem, dot, suffix = name.rpartition(".")
        n, free = 1, name
        while free in self._ids:
            n += 1
            free = f"{stem}~{n}{dot}{suffix}"
        return free
