"""Check that the corpora are complete: `fakevlm verify [--profile mini] [corpus | corpus=folder …]`

Their folders are compared with catalogue.yaml and with the lists that they hold; nothing is decoded. Fewer
images than the full corpus has are no failure: a part in the right layout, as the miniature, can be used.
"""

import functools
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from fakevlm import paths
from fakevlm.collection.amounts import OUTSIDE, READERS, count, unread
from fakevlm.config.params import Section, load_params
from fakevlm.data.corpora import ddvqa, fakeclue, ffpp, imagefolders, loki, m6doc
from fakevlm.data.corpora.files import SOURCES, images, listing
from fakevlm.data.records import REAL
from fakevlm.errors import UserError
from fakevlm.tools.archives import SUFFIXES

SHOWN = 5  # of a long list of missing things
COMPLETE, INCOMPLETE = 0, 1


class Part(Section):
    """One folder or file of a layout."""

    path: list[str]  # alternatives below the corpus's folder, the usual one first
    title: str | None = None  # by default the path
    holds: Literal["images", "videos", "file"] = "images"  # at least one must be there
    counts: list[str] = Field(default_factory=list)  # names of what it adds to
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


def _number(root: Path, holds: str, patterns: list[str]) -> int:
    """Return how many files, images or videos are at any of these paths, which may hold `*`."""
    places = [p for pattern in patterns for p in (root.glob(pattern) if "*" in pattern else [root / pattern])]
    if holds == "file":
        return int(any(place.is_file() for place in places))
    if holds == "images":
        return sum(len(images(place)) for place in places)
    # A video, or the folder of frames taken from it: one name is one video.
    files = (f for place in places for f in listing(place) if f.is_dir() or f.suffix == ".mp4")
    return len({file.stem for file in files if ffpp.VIDEO.fullmatch(file.stem)})


def parts(key: str, root: Path, layout: list[Part]) -> Iterator[Item]:
    """Yield every part of a corpus's layout."""
    named = defaultdict(list)  # folders of GenImage by their generators
    for generator, folder in imagefolders.genimage_folders(root) if key == "genimage" else ():
        named[generator].append(folder.relative_to(root).as_posix())
    for part in layout:
        folder, _, rest = part.path[0].partition("/")
        alternatives = [f"{name}/{rest}" for name in named[imagefolders.generator_of(folder)]] or part.path
        title = part.title or part.path[0]
        number = _number(root, part.holds, alternatives)
        missing = title if title in alternatives else f"{title}: one of {', '.join(alternatives)}"
        if any((root / path).exists() for path in alternatives):
            missing += f" (there, but no {part.holds} in it)"
        counts = dict.fromkeys(part.counts, number)
        yield Item(title, number, [] if number else [missing], part.optional, counts)


def _images(key: str, root: Path) -> Iterator[Item]:
    counts = Counter[str]()
    if key == "m6doc":
        counts["pages annotated"] = len(list(m6doc.pages(root)))
    if key == "loki":
        labels, questions = loki.labels(root)
        counts += Counter(f"{label} {category}" for label, category in labels.values())
        counts |= {"images asked about": len(labels), "images described": len(loki.references(root))}
        counts["questions"] = questions
    missing = [row.path for row in READERS[key](root, drawn=lambda _: False)]
    yield Item("images that its lists name", count(key, root, 1) or 0, missing, counts=counts)


def _ffpp(root: Path) -> Iterator[Item]:
    present = {method: set(ffpp.videos(root, method)) for method in (None, *ffpp.METHODS)}
    for split in ffpp.SPLITS:
        pairs = ffpp.pairs(root, split)
        swapped = [(f"{a}_{b}", f"{b}_{a}") for a, b in pairs]
        for method, videos in present.items():
            wanted = {video for pair in (swapped if method else pairs) for video in pair}
            counts = {} if method else {f"pairs in {split}": len(pairs)}
            what = f"videos of {split}.json, {method or 'originals'}"
            yield Item(what, len(wanted & videos), sorted(wanted - videos), counts=counts)


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


def _fakeclue(root: Path) -> Iterator[Item]:
    for split in fakeclue.SPLITS:
        rows = [row for row in fakeclue.rows(root, split) if isinstance(row, dict)]
        images = fakeclue.image_folder(root, split, rows)
        missing = [name for row in rows if not fakeclue.holds(images, name := str(row.get("image")))]
        real = sum(row.get("label") == REAL for row in rows)
        counts = {f"real images in {split}": real, f"fake images in {split}": len(rows) - real}
        yield Item(f"images of {split}.json in {images}", len(rows) - len(missing), missing, counts=counts)


# The checks of a corpus's own lists, given its folder.
LISTS: dict[str, Callable[[Path], Iterator[Item]]] = {"ffpp": _ffpp, "fakeclue": _fakeclue}
LISTS |= {key: functools.partial(_images, key) for key in ("cvusa", "m6doc", "loki")}


@dataclass
class Report:
    """The state of one corpus."""

    key: str  # its name in params.yaml
    root: Path | None  # its folder; None where neither the profile nor the command names one
    items: list[Item] = field(default_factory=list)  # the parts of its layout and of its lists
    problems: list[str] = field(default_factory=list)  # what kept the check from going on, or is not read
    elsewhere: list[str] = field(default_factory=list)  # what is not read, outside of the layout

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
    """Compare a corpus's folder with the catalogue; `faces`: FF++'s, for DD-VQA's frames (None: no check)."""
    report = Report(key, root)
    if root is not None and not root.is_dir():
        report.problems.append(f"no folder {root}")
    elif root is not None:
        report.items += parts(key, root, catalogue()[key].layout)
        lists = LISTS | {"ddvqa": functools.partial(_ddvqa, faces=faces)}
        try:
            # Without its layout, the lists would only report the same again.
            if report.complete and key in lists:
                report.items += lists[key](root)
            for _, path, reason in unread(key, root):
                (report.elsewhere if OUTSIDE in reason else report.problems).append(f"{path}: {reason}")
        except UserError as error:
            if report.complete:
                report.problems.append(error.what)
    return report


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" … and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")


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
    text += [f"  unread   {place}" for place in report.elsewhere]
    if root is not None and root.is_dir():
        for name, count in corpus.counts.items():
            full = f"the full corpus has {'about ' if count.about else ''}{count.full or 0:,}"
            full = full if count.full else "how many the full corpus has is not known"
            text.append(f"  count    {name}: found {report.counts[name]:,}; {full} ({count.source})")
    text.append(f"  terms    {corpus.licence}")
    if not report.complete:
        text.append(f"  cure     {SOURCES[report.key].get} ({corpus.url}; size: {corpus.size})")
        names = [path.name for path in listing(root)] if root and root.is_dir() else []
        if packed := [name for name in names if name.lower().endswith(SUFFIXES)]:
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
