"""The readers, what they read of a corpus and what not, and which images `collect.at_most` draws."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.data.corpora import ddvqa, fakeclue, ffpp, imagefolders, loki, m6doc
from fakevlm.data.corpora.files import SOURCES, Unusable, images, not_read, walk
from fakevlm.data.corpora.imagefolders import Place, read_images
from fakevlm.data.records import Record
from fakevlm.errors import UserError

# What is read of each corpus, by their keys in params.yaml; DD-VQA's images are FF++'s.
PLACES: dict[str, Callable[[Path], Iterator[Place]]]
PLACES = {"genimage": imagefolders.genimage, "ffpp": ffpp.places, "m6doc": m6doc.places, "loki": loki.places}
PLACES |= {"chameleon": imagefolders.chameleon, "dmimage": imagefolders.dmimage}
PLACES |= {"cvusa": imagefolders.cvusa, "vigor": imagefolders.vigor, "fakeclue": fakeclue.places}
PLACES["ddvqa"] = lambda root: iter(())
READERS: dict[str, Callable[..., Iterator[Record | Unusable]]]
READERS = {corpus: partial(read_images, corpus, places) for corpus, places in PLACES.items()}
READERS |= {"ffpp": ffpp.read, "fakeclue": fakeclue.read, "ddvqa": ddvqa.read}
BENCHMARKS = ("loki", "dmimage", "ddvqa", "ffpp")
OUTSIDE = "outside the folders and lists that are read"
# Suffixes of lists, notes and landmarks, which are not missed where they are not read.
_NOTES = re.compile(r"(?i)\.(csv|tsv|jsonl?|ya?ml|xml|txt|md|html?|pdf|log|npy|py|sh|ipynb)")


class Amount(NamedTuple):
    """How much of a training corpus is taken."""

    root: Path  # its folder
    share: float  # of its images to draw
    drawn: int | None  # about how many that is, if known


def folders(params: Params) -> dict[str, Path]:
    """Return the folders of corpora and benchmarks that the profile names, by their keys."""
    named = params.collect.corpora.folders() | params.collect.benchmarks.folders()
    return {key: paths.resolve(name) for key, name in named.items()}


def unread(corpus: str, root: Path) -> Iterator[Unusable]:
    """Yield how many files of a corpus are not read, by folder and reason. Raises as its reader does."""
    read = {place.path for place in PLACES[corpus](root)}
    above = {root, *root.parents, *(parent for path in read for parent in path.parents)}
    counts, examples, visited = Counter[tuple[Path, str]](), {}, set[str]()
    for place in (*sorted(path for path in read if path.is_dir()), root):
        for file in walk(place, visited):
            folder, reason = place, not_read(file)
            if place == root:
                folder = next((path for path in reversed(file.parents) if path not in above), file.parent)
                reason = f"{OUTSIDE}, {reason}" if reason else OUTSIDE
            if reason and file not in read and not _NOTES.fullmatch(file.suffix):
                counts[folder, reason] += 1
                examples.setdefault((folder, reason), file.name)
    for (folder, reason), example in sorted(examples.items()):
        what = f"{counts[folder, reason]:,} not read, such as {example}: {reason}"
        yield Unusable(corpus, folder.relative_to(root).as_posix(), what)


def count(corpus: str, root: Path, frames: int) -> int | None:
    """Return about how many images a corpus has; None where counting would cost too much."""
    if corpus == "ffpp":
        return sum(len(ffpp.videos(root, method)) for method in (None, *ffpp.METHODS)) * frames
    if corpus == "fakeclue":
        return sum(len(fakeclue.rows(root, split)) for split in fakeclue.SPLITS)
    return sum(path.is_file() or len(images(path)) for path, *_ in PLACES[corpus](root)) or None


def drawn(id: str, share: float, seed: int) -> bool:
    """Return whether a record is drawn. That depends on its id and the seed alone, not on other records."""
    digest = hashlib.sha256(f"{seed} {id}".encode(errors="backslashreplace")).digest()[:8]
    return int.from_bytes(digest, "big") < share * 2**64


def need_folders(params: Params) -> None:
    """Raise `UserError`, before hours of reading, if a folder is not there: its key and where to get it."""
    settings, missing = params.collect, []
    for section, keys in (("corpora", settings.corpora), ("benchmarks", settings.benchmarks)):
        others = {other.name: other.path for other in keys.others or ()}
        for key, name in {**keys.folders(), **others}.items():
            if not paths.resolve(name).is_dir():
                where = SOURCES[key].get if key in SOURCES else "see its reader"
                missing.append(f"collect.{section}.{key}: no folder {paths.resolve(name)}\n      {where}")
    if settings.ground_truth and not paths.resolve(settings.ground_truth).is_file():
        missing.append(f"collect.ground_truth: no file {paths.resolve(settings.ground_truth)}")
    if missing:
        raise UserError(
            f"profile {params.profile!r} needs data that are not there:\n    " + "\n    ".join(missing),
            "put them there (a link will do), name other folders in params.yaml, or leave a corpus out with "
            f"null; `fakevlm verify --profile {params.profile}` tells more",
        )


def planned(params: Params) -> dict[str, Amount]:
    """Return the training corpora that the profile names, in the order in which they are read.

    Raises `UserError` if one is to be thinned, but nothing could be counted in its folder.
    """
    settings, amounts = params.collect, {}
    for corpus, name in settings.corpora.folders().items():
        root = paths.resolve(name)
        # Beside the release, FF++ serves the benchmarks alone.
        if settings.corpora.fakeclue and corpus != "fakeclue":
            continue
        total, most = count(corpus, root, settings.frames_per_video), settings.at_most.get(corpus)
        if most and not total:
            what = f"collect.at_most.{corpus} is {most}, but {root} holds nothing that could be counted"
            raise UserError(what, f"`fakevlm verify {corpus}={root}` says what is missing")
        share = min(1.0, most / total) if most and total else 1.0
        amounts[corpus] = Amount(root, share, round(total * share) if total else None)
    return amounts
