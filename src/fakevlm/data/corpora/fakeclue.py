"""FakeClue as released (Wen et al., NeurIPS 2025): 109,343 images, each with a verdict and clues.

From https://huggingface.co/datasets/lingcco/FakeClue. The images keep the terms of the corpora that they were
taken from.

Layout::

    <root>/data_json/train.json, test.json <root>/train.zip, test.zip          read as they are, or unpacked:
    as <root>/{train,test}/… or straight into <root>

A JSON is a list of rows (`annotation/fakeclue.py` writes the same)::

    {"image": "ff++/fake/Deepfakes/c23/frames/033_097/012.png", "label": 0, "cate": "deepfake", "width": 256,
    "height": 256,
     "conversations": [{"from": "human", "value": "<image>Does the image looks real/fake?"},
                       {"from": "gpt", "value": "This is a fake image. …; …"}]}

label: 1 real, 0 fake. Rows are clustered by source: shuffle before taking a part. The split is by row, so
frames of one FF++ video lie in train and in test; `item` tells them.
"""

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fakevlm.data.corpora import genimage
from fakevlm.data.corpora.files import BadImage, Quarantine, need_folder, need_json
from fakevlm.data.records import CATEGORIES, FAKE, REAL, Record
from fakevlm.errors import UserError

WHERE = (
    "get FakeClue from https://huggingface.co/datasets/lingcco/FakeClue "
    "(data_json/*.json, train.zip, test.zip)"
)
SPLITS = ("train", "test")
_LARGEST = 200_000_000  # bytes; an entry of a zip that claims more is no image, and would fill the memory
_PROBES = 200  # rows that are tried to find out below which folder of the zip the images lie


class Images:
    """The images of one split, in a zip or in a folder, by the path that the JSON gives them.

    Args:
        root: the release's folder.
        split: `train` or `test`.
        some: paths of images, to find the folder they are relative to.

    Raises:
        UserError: there is neither zip nor folder, the zip is damaged, or nothing in it is named as in the
            JSON.
    """

    def __init__(self, root: Path, split: str, some: Sequence[str]) -> None:
        self.archive: zipfile.ZipFile | None = None
        file = root / f"{split}.zip"
        # An unpacked copy goes first: reading it needs no decompression, and the zip may have been deleted
        # since.
        for folder in (root / split, root):
            there = sum(_plain(name) and (folder / name).is_file() for name in some)
            # Not one that an unpacking left behind when it was interrupted, beside the whole zip.
            if there and (there == len(some) or not file.is_file()):
                self.place = folder
                return
        self.place = file
        if not file.is_file():
            raise UserError(f"FakeClue: no {split}.zip and no unpacked images of {split} in {root}", WHERE)
        try:
            self.archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError) as error:
            raise UserError(f"FakeClue: {file} is not a readable zip ({error})", WHERE) from error
        self.names = frozenset(self.archive.namelist())
        self.prefix = self._prefix(some, split)

    def _prefix(self, some: Sequence[str], split: str) -> str:
        for prefix in ("", f"{split}/"):
            if any(prefix + name in self.names for name in some):
                return prefix
        ends = tuple(f"/{name}" for name in some)
        found = next((name for name in sorted(self.names) if name.endswith(ends)), None)
        if found is None:
            raise UserError(f"FakeClue: {self.place} holds none of the images that {split}.json names", WHERE)
        return found[: -len(next(end for end in ends if found.endswith(end)))] + "/"

    def __contains__(self, name: str) -> bool:
        if self.archive is not None:
            return self.prefix + name in self.names
        return _plain(name) and (self.place / name).is_file()

    def read(self, name: str) -> bytes:
        """The image's bytes.

        Raises:
            BadImage: it is missing, or its entry in the zip is damaged or encrypted.
        """
        if name not in self:
            raise BadImage("named in the JSON but missing")
        try:
            if self.archive is None:
                return (self.place / name).read_bytes()
            if self.archive.getinfo(self.prefix + name).file_size > _LARGEST:
                raise BadImage(f"more than {_LARGEST:,} bytes in {self.place.name}")
            return self.archive.read(self.prefix + name)
        # What zipfile raises: a wrong checksum, a broken stream, a short file, an unknown method, a password.
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
            raise BadImage(f"damaged in {self.place.name} ({type(error).__name__})") from error

    def close(self) -> None:
        if self.archive is not None:
            self.archive.close()


def _plain(name: str) -> bool:
    """Whether a path stays inside the folder it is relative to."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name


def rows(root: Path, split: str) -> list[Any]:
    """The rows of one split as they stand in its JSON.

    Raises:
        UserError: the file is missing or not a list in JSON.
    """
    file = need_folder(root, "FakeClue", WHERE) / "data_json" / f"{split}.json"
    return need_json(file, "FakeClue", WHERE)


def open_images(root: Path, split: str, listed: Sequence[Any]) -> Images:
    """The images that a split's rows name. Raises `UserError` as `Images` does."""
    some = [row["image"] for row in listed if isinstance(row, dict) and isinstance(row.get("image"), str)]
    return Images(root, split, some[:_PROBES])


def _origin(path: str, label: int) -> tuple[str, str | None, str]:
    """(source, generator, item) as far as an image's path tells them."""
    parts = PurePosixPath(path).parts
    source, generator, item = parts[0], None, path
    if source == "ff++" and len(parts) >= 3:
        item = parts[-2].split("_")[0]  # the target video: all manipulations of it belong together
        generator = parts[2] if label == FAKE else None
    elif source == "genimage" and label == FAKE:
        generator = genimage.generator_of(parts[-1])  # 416_adm_45.PNG
    return source, generator, item


def _record(row: Any, split: str, images: Images) -> Record:
    """The record of a row.

    Raises:
        BadImage: the image cannot be read.
        KeyError, TypeError, ValueError: the row is not FakeClue's.
    """
    said = {turn["from"]: str(turn["value"]) for turn in row["conversations"]}
    path, label, category = row["image"], row["label"], row["cate"]
    if not isinstance(path, str) or not _plain(path):
        raise ValueError(f"image {path!r}")
    if label not in (FAKE, REAL) or category not in CATEGORIES:
        raise ValueError(f"label {label!r}, cate {category!r}")
    source, generator, item = _origin(path, label)
    return Record(
        id=path,
        image=images.read(path),
        label=int(label),
        source=source,
        item=item,
        category=category,
        generator=generator,
        split=split,
        width=int(row["width"]),
        height=int(row["height"]),
        question=said["human"].replace("<image>", "").strip(),
        references=[said["gpt"]],
    )


def read(
    root: Path, quarantine: Quarantine | None = None, splits: Sequence[str] = SPLITS
) -> Iterator[Record]:
    """Stream the records of the splits in the JSON's order; `references` holds the clue text.

    A row that is not FakeClue's, and an image that is missing or damaged, goes to quarantine.

    Raises:
        UserError: a JSON is missing or not a list, or the images of a split are missing altogether.
    """
    for split in splits:
        listed = rows(root, split)
        images = open_images(root, split, listed)
        try:
            for n, row in enumerate(listed):
                try:
                    yield _record(row, split, images)
                except (BadImage, KeyError, TypeError, ValueError, AttributeError) as error:
                    named = row.get("image") if isinstance(row, dict) else None
                    reason = str(error) if isinstance(error, BadImage) else f"not a FakeClue row ({error!r})"
                    if quarantine is not None:
                        quarantine.add("fakeclue", f"{split}.json, row {n}: {named}", reason)
        finally:
            images.close()
