"""Which folders and files of a corpus are there, and what its own lists name: what `verify` reports.

Layouts are data (catalogue.yaml); the names in them and the lists are asked of the readers.
"""

import itertools
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fakevlm.data.corpora import (
    cvusa,
    ddvqa,
    dmimage,
    fakeclue,
    ffpp,
    genimage,
    loki,
    m6doc,
    vigor,
)
from fakevlm.data.corpora.files import appledouble, count_images
from fakevlm.data.records import REAL
from fakevlm.tools.catalogue import Part

# For each {brace} the names that belong there and, for each name, the paths that are as good.
Names = Mapping[str, Mapping[str, list[str]]]


@dataclass(frozen=True)
class Item:
    """One part of a layout, or one list of a corpus.

    Attributes:
        what: the path, or what the list names.
        found: how many images, videos, files lie there.
        missing: what should be there and is not.
        optional: why it may be missing.
    """

    what: str
    found: int
    missing: tuple[str, ...] = ()
    optional: str | None = None


@dataclass
class Listed:
    """What a corpus's own lists name.

    Attributes:
        items: one a list.
        counts: by the names in catalogue.yaml.
    """

    items: list[Item] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def _same(*names: str) -> dict[str, list[str]]:
    return {name: [name] for name in names}


def _genimage(root: Path) -> Names:
    there: dict[str, list[str]] = {}
    for generator, folder in genimage.split_folders(root):
        there.setdefault(generator, []).append(folder.relative_to(root).as_posix())
    return {
        "generator": {folder: there.get(key, []) or [folder] for key, folder in genimage.PUBLISHED.items()}
    }


def _dmimage(root: Path) -> Names:
    real = sorted(p.name for p in root.glob("real*") if p.is_dir())
    families = {family: list(folders) for family, folders in dmimage.FAMILIES.items()}
    return {"real": {"real_*": real or ["real_*"]}, "family": families}


NAMES: dict[str, Callable[[Path], Names]] = {
    "genimage": _genimage,
    "ffpp": lambda root: {"method": _same(*ffpp.METHODS), "split": _same(*ffpp.SPLITS)},
    "vigor": lambda root: {"city": _same(*vigor.CITIES)},
    "ddvqa": lambda root: {
        "method": _same(*(name for name in ddvqa.FOLDERS if name != "FaceShifter")),
        "split": _same("train", "test"),
    },
    "dmimage": _dmimage,
    "fakeclue": lambda root: {"split": _same(*fakeclue.SPLITS)},
}


def _variants(part: Part, names: Names) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (title, equivalent paths, counts it adds to) for every combination of names in the braces."""
    fields = sorted({f for _, f, _, _ in string.Formatter().parse(part.paths[0]) if f})
    for chosen in itertools.product(*(names[f].items() for f in fields)):
        named = {f: name for f, (name, _) in zip(fields, chosen, strict=True)}
        paths = [
            pattern.format(**dict(zip(fields, combination, strict=True)))
            for pattern in part.paths
            for combination in itertools.product(*(same for _, same in chosen))
        ]
        yield part.paths[0].format(**named), paths, [count.format(**named) for count in part.counts]


def _count(root: Path, holds: str, paths: list[str]) -> int:
    if holds == "file":
        return int(any((root / path).is_file() for path in paths))
    folders = [root / path for path in paths if (root / path).is_dir()]
    if holds == "images":
        return count_images(*folders)
    # A video, or the folder of frames taken from it: one name is one video.
    found = (p for folder in folders for p in folder.iterdir() if not appledouble(p.name))
    return len({p.stem for p in found if p.is_dir() or p.suffix == ".mp4"})


def parts(key: str, root: Path, layout: list[Part]) -> tuple[list[Item], Counter[str]]:
    """Every part of a corpus's layout, and the counts that it adds to."""
    names, items, counts = NAMES.get(key, lambda _: {})(root), [], Counter()
    for part in layout:
        for title, paths, adds in _variants(part, names):
            found = _count(root, part.holds, paths)
            empty = any((root / path).exists() for path in paths)
            missing = title if title in paths else f"{title}: one of {', '.join(paths)}"
            missing += f" (there, but no {part.holds} in it)" if empty else ""
            items.append(Item(title, found, () if found else (missing,), part.optional))
            counts.update(dict.fromkeys(adds, found))
    return items, counts


def _lists_ffpp(root: Path, _: Path | None) -> Listed:
    listed = Listed()
    there = {method: set(ffpp.videos(root, method)) for method in (None, *ffpp.METHODS)}
    for split in ffpp.SPLITS:
        pairs = ffpp.pairs(root, split)
        listed.counts[f"pairs in {split}"] = len(pairs)
        both = [(f"{a}_{b}", f"{b}_{a}") for a, b in pairs]
        for method, videos in there.items():
            wanted = {video for pair in (both if method else pairs) for video in pair}
            what = f"videos of {split}.json, {method or 'originals'}"
            listed.items.append(Item(what, len(wanted & videos), tuple(sorted(wanted - videos))))
    return listed


def _lists_cvusa(root: Path, _: Path | None) -> Listed:
    names = cvusa.listed(root)
    missing = tuple(name for name in names if not (root / name).is_file())
    return Listed(
        [Item("aerial images in splits/*.csv", len(names) - len(missing), missing)] if names else []
    )


def _lists_m6doc(root: Path, _: Path | None) -> Listed:
    pages = [page.file for page in m6doc.pages(root)]
    missing = tuple(file.relative_to(root).as_posix() for file in pages if not file.is_file())
    what = "pages in annotations/instances_*.json"
    return Listed([Item(what, len(pages) - len(missing), missing)], Counter({"pages annotated": len(pages)}))


def _lists_loki(root: Path, _: Path | None) -> Listed:
    truths = loki.truths(root)
    missing = tuple(path for path in truths if not (root / path).is_file())
    counts = Counter(f"{kind} {category}" for kind, category in truths.values())
    counts |= {"images asked about": len(truths), "images described": len(loki.references(root))}
    counts["questions"] = len(loki.questions(root))
    return Listed([Item("images in true_or_false.json", len(truths) - len(missing), missing)], counts)


def _lists_ddvqa(root: Path, faces: Path | None) -> Listed:
    """Its questions, and whether FF++ has the videos that they are about."""
    listed = Listed()
    for split in ("train", "test"):
        videos = []
        for method, video, questions in ddvqa.entries(root, split):
            videos.append((method, video))
            listed.counts[f"videos in {split}"] += 1
            listed.counts[f"questions in {split}"] += len(questions)
            listed.counts[f"answers in {split}"] += sum(len(answers) for _, _, answers in questions)
        if faces is None:
            continue
        missing = tuple(f"{m or 'original'} {v}" for m, v in videos if not ffpp.has_video(faces, m, v))
        what = f"videos of {split}_set in FaceForensics++"
        listed.items.append(Item(what, len(videos) - len(missing), missing))
    return listed


def _lists_dmimage(root: Path, _: Path | None) -> Listed:
    generators = [folder for family in dmimage.FAMILIES.values() for folder in family]
    there = {folder for folder in (*generators, *dmimage.REAL_SETS) if count_images(root / folder)}
    missing = tuple(folder for folder in (*generators, *dmimage.REAL_SETS) if folder not in there)
    why = "of each family one is enough, and of the real sets too"
    item = Item("folders that the authors' evaluation names", len(there), missing, why)
    return Listed([item], Counter({"generators": len(there & set(generators))}))


def _lists_fakeclue(root: Path, _: Path | None) -> Listed:
    listed = Listed()
    for split in fakeclue.SPLITS:
        rows = [row for row in fakeclue.rows(root, split) if isinstance(row, dict)]
        names = [str(row.get("image")) for row in rows]
        images = fakeclue.open_images(root, split, rows)
        try:
            missing = tuple(name for name in names if name not in images)
        finally:
            images.close()
        for row in rows:
            listed.counts[f"{'real' if row.get('label') == REAL else 'fake'} images in {split}"] += 1
        what = f"images of {split}.json in {images.place.name or images.place}"
        listed.items.append(Item(what, len(rows) - len(missing), missing))
    return listed


LISTS: dict[str, Callable[[Path, Path | None], Listed]] = {
    "ffpp": _lists_ffpp,
    "cvusa": _lists_cvusa,
    "m6doc": _lists_m6doc,
    "loki": _lists_loki,
    "ddvqa": _lists_ddvqa,
    "dmimage": _lists_dmimage,
    "fakeclue": _lists_fakeclue,
}


def lists(key: str, root: Path, faces: Path | None) -> Listed:
    """Return what a corpus's own lists name and lack; `faces` is FF++'s folder, which DD-VQA asks about.

    Raises:
        UserError: a list is missing or cannot be read.
    """
    return LISTS[key](root, faces) if key in LISTS else Listed()
