"""Check that the corpora are complete: `fakevlm verify [--profile mini] [corpus | corpus=folder …]`

Their folders are compared with catalogue.yaml and with the lists that they hold; nothing is decoded. Fewer
images than the full corpus has are no failure: a part in the right layout, as the miniature, can be used.
"""

import functools
import itertools
import os
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from fakevlm import paths
from fakevlm.config.params import Section, load_params
from fakevlm.data.corpora import ddvqa, fakeclue, ffpp, genimage, loki, m6doc
from fakevlm.data.corpora.files import SOURCES, appledouble, count_images
from fakevlm.data.corpora.imagefolders import VIGOR_CITIES, cvusa_listed
from fakevlm.data.records import REAL
from fakevlm.errors import UserError
from fakevlm.tools.archives import SUFFIXES

SHOWN = 5  # of a long list of missing things
COMPLETE, INCOMPLETE = 0, 1


class Part(Section):
    """One folder or file of a layout."""

    path: list[str]  # alternatives below the corpus's folder, the usual one first; {braces}: see `_names`
    title: str | None = None  # by default the path
    holds: Literal["images", "videos", "file"] = "images"  # at least one must be there
    counts: list[str] = Field(default_factory=list)  # names of what it adds to; braces as in the path
    optional: str | None = None  # why it may be missing


class Count(Section):
    """How many of something the full corpus has (None: no source says), and the source."""

    full: int | None = Field(ge=1)
    source: str
    about: bool = False


class Corpus(Section):
    """The terms, address, size, layout and counts of a full corpus."""

    name: str
    licence: str
    url: str
    size: str
    layout: list[Part] = Field(min_length=1)
    counts: dict[str, Count]


@functools.cache
def catalogue() -> dict[str, Corpus]:
    """Return all corpora by the key that params.yaml gives them."""
    content = yaml.safe_load(Path(__file__).with_name("catalogue.yaml").read_text(encoding="utf-8"))
    return {key: Corpus(**values) for key, values in content.items()}


@dataclass(frozen=True)
class Item:
    """One part of a layout, or one list of a corpus."""

    what: str  # the path, or what the list names
    number: int  # of images, videos, files that are there
    missing: Sequence[str] = ()  # what should be there and is not
    optional: str | None = None  # why it may be missing
    counts: dict[str, int] = field(default_factory=dict)  # what it adds, by the names in the catalogue


def _names(key: str, root: Path) -> dict[str, dict[str, list[str]]]:
    """Return for each {brace} of a layout the names that belong there and, for each, its folders."""
    if key == "genimage":
        folders = defaultdict(list)
        for generator, folder in genimage.split_folders(root):
            folders[generator].append(folder.relative_to(root).as_posix())
        return {"generator": {name: folders[g] or [name] for g, name in genimage.PUBLISHED.items()}}
    names = {
        "ffpp": {"method": ffpp.METHODS, "split": ffpp.SPLITS},
        "vigor": {"city": VIGOR_CITIES},
        "ddvqa": {"method": [f for f in ddvqa.FOLDERS if f != "FaceShifter"], "split": ("train", "test")},
        "fakeclue": {"split": fakeclue.SPLITS},
    }
    return {brace: {name: [name] for name in values} for brace, values in names.get(key, {}).items()}


def _number(root: Path, holds: str, patterns: list[str]) -> int:
    """Return how many files, images or videos are at any of these paths, which may hold `*`."""
    places = [p for pattern in patterns for p in (root.glob(pattern) if "*" in pattern else [root / pattern])]
    if holds == "file":
        return int(any(place.is_file() for place in places))
    if holds == "images":
        return count_images(*places)
    # A video, or the folder of frames taken from it: one name is one video.
    files = (f for place in places if place.is_dir() for f in place.iterdir() if not appledouble(f.name))
    return len({file.stem for file in files if file.is_dir() or file.suffix == ".mp4"})


def parts(key: str, root: Path, layout: list[Part]) -> Iterator[Item]:
    """Yield every part of a corpus's layout, once for every combination of names in the braces."""
    names = _names(key, root)
    for part in layout:
        braces = sorted({brace for _, brace, _, _ in string.Formatter().parse(part.path[0]) if brace})
        for chosen in itertools.product(*(names[brace].items() for brace in braces)):
            named = dict(zip(braces, (name for name, _ in chosen), strict=True))
            title = (part.title or part.path[0]).format(**named)
            folders = itertools.product(*(folders for _, folders in chosen))
            places = [dict(zip(braces, place, strict=True)) for place in folders]
            alternatives = [path.format(**place) for path in part.path for place in places]
            number = _number(root, part.holds, alternatives)
            missing = title if title in alternatives else f"{title}: one of {', '.join(alternatives)}"
            if any((root / path).exists() for path in alternatives):
                missing += f" (there, but no {part.holds} in it)"
            counts = dict.fromkeys((count.format(**named) for count in part.counts), number)
            yield Item(title, number, [] if number else [missing], part.optional, counts)


def _listed(root: Path, what: str, files: list[str], counts: dict[str, int]) -> Item:
    missing = [name for name in files if not (root / name).is_file()]
    return Item(what, len(files) - len(missing), missing, counts=counts)


def _ffpp(root: Path, _: Path | None) -> Iterator[Item]:
    present = {method: set(ffpp.videos(root, method)) for method in (None, *ffpp.METHODS)}
    for split in ffpp.SPLITS:
        pairs = ffpp.pairs(root, split)
        swapped = [(f"{a}_{b}", f"{b}_{a}") for a, b in pairs]
        for method, videos in present.items():
            wanted = {video for pair in (swapped if method else pairs) for video in pair}
            counts = {} if method else {f"pairs in {split}": len(pairs)}
            what = f"videos of {split}.json, {method or 'originals'}"
            yield Item(what, len(wanted & videos), sorted(wanted - videos), counts=counts)


def _cvusa(root: Path, _: Path | None) -> Iterator[Item]:
    if names := cvusa_listed(root):
        yield _listed(root, "aerial images in splits/*.csv", names, {})


def _m6doc(root: Path, _: Path | None) -> Iterator[Item]:
    pages = [page.file.relative_to(root).as_posix() for page in m6doc.pages(root)]
    yield _listed(root, "pages in annotations/instances_*.json", pages, {"pages annotated": len(pages)})


def _loki(root: Path, _: Path | None) -> Iterator[Item]:
    labels, questions = loki.labels(root)
    counts = Counter(f"{label} {category}" for label, category in labels.values())
    counts |= {"images asked about": len(labels), "images described": len(loki.references(root))}
    yield _listed(root, "images in true_or_false.json", list(labels), counts | {"questions": questions})


def _ddvqa(root: Path, faces: Path | None) -> Iterator[Item]:
    for split in ("train", "test"):
        entries = list(ddvqa.entries(root, split))
        questions = [question for _, _, rows in entries for question in rows]
        answers = sum(len(answers) for _, _, answers in questions)
        counts = {"videos": len(entries), "questions": len(questions), "answers": answers}
        videos = [(m, v) for m, v, _ in entries if faces is not None and not ffpp.has_video(faces, m, v)]
        missing = [f"{method or 'original'} {video}" for method, video in videos]
        what = f"videos of {split}_set" + (" in FaceForensics++" if faces else "")
        counts = {f"{name} in {split}": number for name, number in counts.items()}
        yield Item(what, len(entries) - len(missing), missing, counts=counts)


def _dmimage(root: Path, _: Path | None) -> Iterator[Item]:
    generators = {path for part in catalogue()["dmimage"].layout if part.title for path in part.path}
    folders = [*sorted(generators), "real_coco_valid", "real_imagenet_valid", "real_ucid"]
    missing = [name for name in folders if not count_images(root / name)]
    optional = "of each family one is enough, and of the real sets too"
    counts = {"generators": len(generators.difference(missing))}
    what = "folders that the authors' evaluation names"
    yield Item(what, len(folders) - len(missing), missing, optional, counts)


def _fakeclue(root: Path, _: Path | None) -> Iterator[Item]:
    for split in fakeclue.SPLITS:
        rows = [row for row in fakeclue.rows(root, split) if isinstance(row, dict)]
        images = fakeclue.image_folder(root, split, rows)
        missing = [name for row in rows if not fakeclue.holds(images, name := str(row.get("image")))]
        real = sum(row.get("label") == REAL for row in rows)
        counts = {f"real images in {split}": real, f"fake images in {split}": len(rows) - real}
        what = f"images of {split}.json in {images}"
        yield Item(what, len(rows) - len(missing), missing, counts=counts)


# The checks of a corpus's own lists, given its folder and that of FF++, which DD-VQA asks about.
LISTS: dict[str, Callable[[Path, Path | None], Iterator[Item]]] = {
    "ffpp": _ffpp,
    "cvusa": _cvusa,
    "m6doc": _m6doc,
    "loki": _loki,
    "ddvqa": _ddvqa,
    "dmimage": _dmimage,
    "fakeclue": _fakeclue,
}


@dataclass
class Report:
    """The state of one corpus."""

    key: str  # its name in params.yaml
    root: Path | None  # its folder; None where neither the profile nor the command names one
    items: list[Item] = field(default_factory=list)  # the parts of its layout and of its lists
    problems: list[str] = field(default_factory=list)  # what kept the check from going on

    @property
    def complete(self) -> bool:
        """Whether everything is there that its layout demands and its lists name."""
        lacks = any(item.missing and not item.optional for item in self.items)
        return self.root is not None and not lacks and not self.problems

    @property
    def counts(self) -> Counter[str]:
        """Counts by the names in the catalogue."""
        return sum((Counter(item.counts) for item in self.items), Counter())


def verify(key: str, root: Path | None, faces: Path | None = None) -> Report:
    """Compare the folder of a corpus, by its key in the catalogue, with the catalogue.

    `faces` is that of FaceForensics++, where DD-VQA's frames come from; None: those are not checked.
    """
    report = Report(key, root)
    if root is not None and not root.is_dir():
        report.problems.append(f"no folder {root}")
    elif root is not None:
        report.items += parts(key, root, catalogue()[key].layout)
        # Without its layout, the lists would only report the same again.
        if report.complete and key in LISTS:
            try:
                report.items += LISTS[key](root, faces)
            except UserError as error:
                report.problems.append(error.what)
    return report


def _some(names: Sequence[str]) -> str:
    more = f" … and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _line(item: Item) -> str:
    if not item.missing:
        return f"  there    {item.what}: {item.number:,}"
    there = f" ({item.number:,} there)" if item.number else ""
    if item.optional:
        missing = "" if item.missing == [item.what] else f": {_some(item.missing)}"
        return f"  optional {item.what}{there}, not there{missing}; {item.optional}"
    return f"  MISSING  {_some(item.missing)}" + (f", of {item.what}{there}" if item.number else "")


def lines(report: Report) -> list[str]:
    """Return the report on one corpus as lines of text."""
    corpus, root = catalogue()[report.key], report.root
    state = "complete" if report.complete else "INCOMPLETE" if root else "no folder named"
    text = [f"{report.key}: {corpus.name}, {state}" + (f" in {root}" if root else "")]
    text += [_line(item) for item in report.items]
    text += [f"  MISSING  {problem}" for problem in report.problems]
    if root is not None and root.is_dir():
        for name, count in corpus.counts.items():
            full = f"the full corpus has {'about ' if count.about else ''}{count.full or 0:,}"
            full = full if count.full else "how many the full corpus has is not known"
            text.append(f"  count    {name}: found {report.counts[name]:,}; {full} ({count.source})")
    text.append(f"  terms    {corpus.licence}")
    if not report.complete:
        text.append(f"  cure     {SOURCES[report.key].get} ({corpus.url}; size: {corpus.size})")
        names = sorted(p.name for p in root.iterdir()) if root and root.is_dir() else []
        if packed := [n for n in names if n.lower().endswith(SUFFIXES) and not appledouble(n)]:
            text.append(f"  cure     still packed: {_some(packed)}; `fakevlm unpack FILE FOLDER`")
        if root is None:
            text.append(f"  cure     the profile leaves it out; check a folder with `{report.key}=FOLDER`")
    return text


def main(arguments: list[str], profile: str | None) -> int:
    """Print what is complete and what is missing; return 0 if all is complete, else 1.

    Arguments are `corpus` or `corpus=folder`; without any, all corpora of the profile are checked. Raises
    `UserError` if there is no such corpus or profile.
    """
    params = load_params(profile)
    names = params.collect.corpora.folders() | params.collect.benchmarks.folders()
    named = {key: paths.resolve(names[key]) if key in names else None for key in catalogue()}
    chosen = {} if arguments else {key: root for key, root in named.items() if root is not None}
    for argument in arguments:
        key, equals, folder = argument.partition("=")
        if key not in named:
            raise UserError(f"no corpus {key!r}", f"one of: {', '.join(named)}")
        chosen[key] = Path(os.path.expanduser(folder)) if equals else named[key]
    complete = 0
    for key, root in chosen.items():  # printed one by one: counting a million files takes minutes
        report = verify(key, root, chosen.get("ffpp") or named["ffpp"])
        complete += report.complete
        print("\n".join(lines(report)), end="\n\n", flush=True)
    left_out = ", ".join(key for key in named if key not in chosen)
    print(f"profile {params.profile}: {complete} of {len(chosen)} complete", end="")
    print(f"; not checked: {left_out}" if left_out else "")
    return COMPLETE if complete == len(chosen) else INCOMPLETE
