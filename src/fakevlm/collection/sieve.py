"""What of the readers' records becomes part of the collection: whole images, each once, under a name of its own."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from fakevlm.collection.ondisk import DiskDict
from fakevlm.data.corpora.files import BadImage, Quarantine, decoded
from fakevlm.data.records import Record
from fakevlm.prefetch import ahead


@dataclass
class Sieve:
    """Lets good, new images pass: broken ones go to quarantine, copies by content are dropped, ids made unique.

    Hashes and ids are kept on disk, so memory stays the same however many images come.

    Attributes:
        seen: label and id (`1genimage/real/…`) by the hash of the content.
        ids: all that were given out; a value says nothing.
    """

    quarantine: Quarantine
    unique: bool = True
    duplicates: list[tuple[str, str, str]] = field(default_factory=list)
    seen: DiskDict = field(default_factory=DiskDict)
    ids: DiskDict = field(default_factory=DiskDict)

    def through(
        self,
        corpus: str,
        records: Iterable[Record],
        see: Callable[[Record, Image.Image], Any] | None = None,
        note: Callable[[Record, Any], None] | None = None,
    ) -> Iterator[Record]:
        """The records that pass, with width and height, in their order.

        Args:
            see: makes of a record's image what is wanted of it, in a thread of several: images are decoded there, once.
            note: is told, in turn, what was seen of a record that passes.
        """

        def opened(record: Record) -> tuple[Record, Any, BadImage | None]:
            try:
                image = decoded(record)
                return record, see(record, image) if see is not None else None, None
            except BadImage as error:
                return record, None, error

        for record, seen, error in ahead(opened, records):
            name = record.id.encode(errors="backslashreplace").decode()
            if name != record.id:  # an archive from elsewhere, unpacked with its own letters
                error = BadImage("the file's name is not UTF-8: rename it, or unpack with the right encoding")
            if error is not None:
                self.quarantine.add(corpus, name, str(error))
                continue
            if self.unique and self._known(corpus, record):
                continue
            record.id = self._free(record.id)
            self.seen.add(bytes.fromhex(record.sha256), f"{record.label}{record.id}")
            if note is not None:
                note(record, seen)
            yield record

    def _known(self, corpus: str, record: Record) -> bool:
        found = self.seen.get(bytes.fromhex(record.sha256))
        if found is None:
            return False
        label, first = int(found[0]), found[1:]
        if label != record.label:
            self.quarantine.add(corpus, record.id, f"same content as {first}, which has the other label")
        else:
            self.duplicates.append((record.sha256, first, record.id))
        return True

    def _free(self, name: str) -> str:
        """The id, or with a number before its suffix where another image already has it."""
        stem, dot, suffix = name.rpartition(".")
        n, free = 1, name
        while not self.ids.add(free, ""):
            n += 1
            free = f"{stem}~{n}{dot}{suffix}"
        return free
