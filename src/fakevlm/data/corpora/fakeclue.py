"""FakeClue as released (Wen et al., NeurIPS 2025): 109,343 images, each with a verdict and clues.

<root>/data_json/{train,test}.json, rows as `records.to_fakeclue_row` makes them
<root>/{train,test}.zip, or unpacked into <root>/{train,test} or straight into <root>
"""

import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fakevlm.data.corpora.files import SOURCES, BadImage, Drawn, Unusable, inside, unknown_packing
from fakevlm.data.corpora.imagefolders import Place, generator_of
from fakevlm.data.records import CATEGORIES, FAKE, REAL, Record

SOURCE = SOURCES["fakeclue"]
SPLITS = ("train", "test")
Folder = Path | zipfile.Path
_LARGEST = 200_000_000  # bytes; an entry of a zip that claims more is no image, and would fill the memory
_VERDICT = re.compile(
    r"(?i)\W*(?:this|the) (?:image )?(?:is|looks|(?:appears|seems)(?: to be)?) (?:an? )?(real|fake)\b"
)
_PROBES = 200  # rows that are tried to find out below which folder of the zip the images are


def holds(folder: Folder, path: str) -> bool:
    """Return whether a folder of a split has the image that the JSON names."""
    return inside(path) and (folder / path).is_file()


def _paths(rows: Sequence[Any]) -> list[str]:
    """Return the images that the rows of a JSON name."""
    return [row["image"] for row in rows if isinstance(row, dict) and inside(row.get("image"))]


def image_folder(root: Path, split: str, rows: Sequence[Any]) -> Folder:
    """Return the folder that the paths in a split's `rows` start from: unpacked, or in the zip.

    Raises `UserError` if there is neither zip nor folder, or the zip is damaged or holds none of the images.
    """
    probes, file = _paths(rows)[:_PROBES], root / f"{split}.zip"
    # An unpacked copy goes first: it needs no decompression, and the zip may have been deleted since. But
    # not one that an interrupted unpacking left beside the zip.
    for folder in (root / split, root):
        present = sum(holds(folder, path) for path in probes)
        if present and (present == len(probes) or not file.is_file()):
            return folder
    if not file.is_file():
        raise SOURCE.error(f"no {split}.zip and no unpacked images of {split} in {root}")
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError) as error:
        raise SOURCE.error(f"{file} is not a readable zip ({error})") from error
    ends = tuple(f"/{path}" for path in probes)
    nested = min((name for name in archive.namelist() if name.endswith(ends)), default="")
    prefixes = ["", f"{split}/", *(nested[: 1 - len(end)] for end in ends if nested.endswith(end))]
    for folder in (zipfile.Path(archive, prefix) for prefix in prefixes):
        if any(holds(folder, path) for path in probes):
            return folder
    raise SOURCE.error(f"{file} holds none of the images that {split}.json names")


def _read(folder: Folder, path: str) -> bytes:
    """Return the image's bytes. Raises `BadImage` if it is missing, damaged or encrypted."""
    if not holds(folder, path):
        raise BadImage("named in the JSON but missing")
    image = folder / path
    if isinstance(image, zipfile.Path):
        entry = image.root.getinfo(image.at)
        if entry.file_size > _LARGEST:
            raise BadImage(f"more than {_LARGEST:,} bytes in the zip")
        if method := unknown_packing(entry):
            raise BadImage(f"packed by {method}, which Python does not know: unpack the zip by hand")
    try:
        return image.read_bytes()
    # Of zipfile: a wrong checksum, a broken stream, a short file, a password.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise BadImage(f"damaged ({type(error).__name__})") from error


def rows(root: Path, split: str) -> list[Any]:
    """Return the rows of one split, unchecked. Raises `UserError` if there is no list in JSON."""
    return SOURCE.json(root / "data_json" / f"{split}.json")


def places(root: Path) -> Iterator[Place]:
    """Yield the zips, and the images that the JSONs name if they are unpacked."""
    for split in SPLITS:
        yield Place(root / f"{split}.zip", "", {})
        folder = image_folder(root, split, listed := rows(root, split))
        if isinstance(folder, Path):
            yield from (Place(folder / path, "", {}) for path in _paths(listed))


def _origin(path: str, label: int) -> dict[str, str | None]:
    """Return source, generator and group as far as an image's path says."""
    parts = PurePosixPath(path).parts
    origin: dict[str, str | None] = {"source": parts[0]}
    if parts[0] == "ff++" and len(parts) >= 3:
        origin["group"] = parts[-2].split("_")[0]  # the target video: all manipulations of it belong together
        origin["generator"] = parts[2] if label == FAKE else None
    elif parts[0] == "genimage" and label == FAKE:
        origin["generator"] = generator_of(parts[-1])  # 416_adm_45.PNG
    return origin


def _record(row: Any, split: str, folder: Folder) -> Record:
    """Return the record of a row. Raises `BadImage`, or another error if the row is not FakeClue's."""
    path, label, category, turns = row["image"], row["label"], row["cate"], row["conversations"]
    if not inside(path):
        raise ValueError(f"image {path!r}")
    if type(label) is not int or label not in (FAKE, REAL) or category not in CATEGORIES:
        raise ValueError(f"label {label!r}, cate {category!r}")
    if (speakers := [turn["from"] for turn in turns]) != ["human", "gpt"]:
        raise ValueError(f"a conversation of {', '.join(speakers)}, not one question and one answer")
    question, answer = (turn["value"] for turn in turns)
    if (verdict := _VERDICT.match(answer)) and (verdict[1].lower() == "real") != (label == REAL):
        raise ValueError(f"label {label}, but the answer begins {verdict[0]!r}")
    texts = {"question": question.replace("<image>", "").strip(), "references": [answer]}
    fields = _origin(path, label) | texts | {"width": int(row["width"]), "height": int(row["height"])}
    return Record(path, _read(folder, path), int(label), category=category, split=split, **fields)


def read(
    root: Path, drawn: Drawn | None = None, splits: Sequence[str] = SPLITS
) -> Iterator[Record | Unusable]:
    """Stream the records of the splits in the JSON's order; `references` holds the clue text.

    A row that is not FakeClue's is unusable, and so is one whose image is missing or damaged. The split is by
    row, so frames of one FF++ video are in train and in test, with the same `group`. Raises `UserError` if a
    JSON is missing or not a list, or the images of a split are missing altogether.
    """
    for split in splits:
        listed = rows(root, split)
        folder = image_folder(root, split, listed)
        for n, row in enumerate(listed):
            path = row.get("image") if isinstance(row, dict) else None
            if drawn is not None and not drawn(str(path)):
                continue
            try:
                yield _record(row, split, folder)
            except (BadImage, KeyError, TypeError, ValueError, AttributeError) as error:
                reason = str(error) if isinstance(error, BadImage) else f"not a FakeClue row ({error!r})"
                yield Unusable("fakeclue", f"{split}.json, row {n}: {path}", reason)
