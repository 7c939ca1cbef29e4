"""The readers, how many images a corpus has, and which of them `collect.at_most` draws."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.data.corpora import ddvqa, fakeclue, ffpp, genimage, imagefolders, loki, m6doc
from fakevlm.data.corpora.files import SOURCES, Unusable, count_images
from fakevlm.data.records import Record
from fakevlm.errors import UserError

# By their keys in params.yaml.
READERS: dict[str, Callable[..., Iterator[Record | Unusable]]] = {
    "genimage": genimage.read,
    "ffpp": ffpp.read,
    "chameleon": imagefolders.read_chameleon,
    "cvusa": imagefolders.read_cvusa,
    "vigor": imagefolders.read_vigor,
    "m6doc": m6doc.read,
    "fakeclue": fakeclue.read,
    "loki": loki.read,
    "dmimage": imagefolders.read_dmimage,
    "ddvqa": ddvqa.read,
}
BENCHMARKS = ("loki", "dmimage", "ddvqa", "ffpp")


class Amount(NamedTuple):
    """How much of a training corpus is taken."""

    root: Path  # its folder
    share: float  # of its images to draw
    drawn: int | None  # about how many that is, if known


def folders(params: Params) -> dict[str, Path]:
    """Return the folders of corpora and benchmarks that the profile names, by their keys."""
    named = params.collect.corpora.folders() | params.collect.benchmarks.folders()
    return {key: paths.resolve(name) for key, name in named.items()}


def count(corpus: str, root: Path, frames: int) -> int | None:
    """Return about how many images a corpus has; None where counting would cost too much."""
    if corpus == "ffpp":
        return sum(len(ffpp.videos(root, method)) for method in (None, *ffpp.METHODS)) * frames
    if corpus == "fakeclue":
        return sum(len(fakeclue.rows(root, split)) for split in fakeclue.SPLITS)
    if corpus == "m6doc":
        return sum(page.style is not None for page in m6doc.pages(root))
    if corpus == "cvusa" and (names := imagefolders.cvusa_listed(root)):
        return len(names)
    places = {"cvusa": [root / "bingmap/19"], "vigor": root.glob("*/satellite")}.get(corpus, [root])
    return count_images(*places) or None


def drawn(id: str, share: float, seed: int) -> bool:
    """Return whether a record is drawn. That depends on its id and the seed alone, not on other records."""
    digest = hashlib.sha256(f"{seed} {id}".encode(errors="surrogateescape")).digest()[:8]
    return int.from_bytes(digest, "big") < share * 2**64


def need_folders(params: Params) -> None:
    """Check, before hours of reading, that every folder is there that the profile names.

    Raises:
        UserError: some are not; says of each which key names it and where to get it.
    """
    settings, missing = params.collect, []
    for section, keys in (("corpora", settings.corpora), ("benchmarks", settings.benchmarks)):
        others = {other.name: other.path for other in keys.others or ()}
        for key, name in {**keys.folders(), **others}.items():
            if not paths.resolve(name).is_dir():
                where = SOURCES[key].get if key in SOURCES else "see its reader"
                missing.append(f"collect.{section}.{key}: no folder {paths.resolve(name)}\n      {where}")
    if missing:
        raise UserError(
            f"profile {params.profile!r} needs data that are not there:\n    " + "\n    ".join(missing),
            "put them there (a link will do), name other folders in params.yaml, or leave a corpus out with "
            f"null; `fakevlm verify --profile {params.profile}` tells more",
        )


def planned(params: Params) -> dict[str, Amount]:
    """Return the training corpora that the profile names, in the order in which they are read.

    Raises:
        UserError: one is to be thinned, but nothing could be counted in its folder.
    """
    settings, amounts = params.collect, {}
    for corpus, name in settings.corpora.folders().items():
        root = paths.resolve(name)
        # Beside the release, FF++ serves the benchmarks alone.
        if settings.corpora.fakeclue and corpus != "fakeclue":
            continue
        total, most = count(corpus, root, settings.frames_per_video), settings.at_most.get(corpus)
        if most and not total:
            raise UserError(
                f"collect.at_most.{corpus} is {most}, but {root} holds nothing that could be counted",
                f"`fakevlm verify {corpus}={root}` says what is missing",
            )
        share = min(1.0, most / total) if most and total else 1.0
        amounts[corpus] = Amount(root, share, round(total * share) if total else None)
    return amounts
