"""Are the corpora there, whole? `fakevlm verify [--profile mini] [corpus | corpus=folder …]`

For each corpus that a profile names: which folders and files of its layout are there, what its own lists name
and it lacks, how much was found and how much the full corpus has, and where to get it. Nothing is decoded:
broken images are found by `collect`. `corpus=folder` looks at a download before params.yaml names it.

The exit status is 0 only if all of it is complete. Fewer images than the full corpus has are told, and are no
failure: a part of a corpus in the right layout can be used, and the miniature is one.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from fakevlm import paths
from fakevlm.collection.amounts import WHERE
from fakevlm.config.params import Params, load_params
from fakevlm.data.corpora.files import appledouble
from fakevlm.errors import UserError
from fakevlm.tools import layouts
from fakevlm.tools.archives import TARS, ZIPS
from fakevlm.tools.catalogue import Corpus, catalogue
from fakevlm.tools.layouts import Item

SHOWN = 5  # of a long list of missing things
COMPLETE, INCOMPLETE = 0, 1


@dataclass
class Report:
    """What was found of one corpus.

    Attributes:
        root: its folder; None where neither the profile nor the command names one.
        items: the parts of its layout and what its lists name.
        counts: by the names in the catalogue.
        problems: what kept a list from being read.
    """

    key: str
    corpus: Corpus
    root: Path | None
    items: list[Item] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Everything that its layout demands and its lists name is there."""
        whole = all(item.optional or not item.missing for item in self.items)
        return self.root is not None and whole and not self.problems


def folders(params: Params) -> dict[str, Path | None]:
    """Every corpus and benchmark that the profile has a key for, and its folder (None: left out)."""
    named = {**params.collect.corpora.folders(), **params.collect.benchmarks.folders()}
    return {key: paths.resolve(named[key]) if named.get(key) else None for key in catalogue()}


def verify(key: str, root: Path | None, faces: Path | None = None) -> Report:
    """Holds one corpus's folder against the catalogue.

    Args:
        key: its key in the catalogue.
        root: its folder; None where nobody names one.
        faces: FaceForensics++'s folder, where DD-VQA's frames come from; None: those are not looked for.
    """
    report = Report(key, catalogue()[key], root)
    if root is None:
        return report
    if not root.is_dir():
        report.problems.append(f"no folder {root}")
        return report
    report.items, report.counts = layouts.parts(key, root, report.corpus.layout)
    if not report.complete:
        return report  # its lists would only say the same again
    try:
        listed = layouts.lists(key, root, faces)
    except UserError as error:
        report.problems.append(error.what)
        return report
    report.items += listed.items
    report.counts += listed.counts
    return report


def _archives(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    ends = (*ZIPS, *TARS)
    return sorted(p.name for p in root.iterdir() if p.name.lower().endswith(ends) and not appledouble(p.name))


def _some(names: tuple[str, ...]) -> str:
    more = f" … and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _item(item: Item) -> list[str]:
    if not item.missing:
        return [f"  there    {item.what}: {item.found:,}"]
    found = f" ({item.found:,} there)" if item.found else ""
    if item.optional:
        what = "" if item.missing == (item.what,) else f": {_some(item.missing)}"
        return [f"  optional {item.what}{found}, not there{what}; {item.optional}"]
    return [f"  MISSING  {_some(item.missing)}" + (f", of {item.what}{found}" if item.found else "")]


def lines(report: Report) -> list[str]:
    """What to tell about one corpus."""
    corpus, root = report.corpus, report.root
    state = "complete" if report.complete else "INCOMPLETE" if root else "no folder named"
    told = [f"{report.key}: {corpus.name}, {state}" + (f" in {root}" if root else "")]
    for item in report.items:
        told += _item(item)
    told += [f"  MISSING  {problem}" for problem in report.problems]
    for name, count in corpus.counts.items():
        if root is None or not root.is_dir():
            break
        full = "how many the full corpus has is not known" if count.full is None else f"{count.full:,}"
        about = "about " if count.about else ""
        known = full if count.full is None else f"the full corpus has {about}{full}"
        told.append(f"  count    {name}: found {report.counts[name]:,}; {known} ({count.source})")
    told.append(f"  terms    {corpus.licence}")
    if not report.complete:
        told.append(f"  cure     {WHERE[report.key]} ({corpus.url}; size: {corpus.size})")
        packed = _archives(root) if root else []
        if packed:
            told.append(f"  cure     still packed: {_some(tuple(packed))}; `fakevlm unpack FILE FOLDER`")
        if root is None:
            told.append(f"  cure     the profile leaves it out; look at a folder with `{report.key}=FOLDER`")
    return told


def _chosen(arguments: list[str], known: dict[str, Path | None]) -> dict[str, Path | None]:
    """The corpora asked for with their folders; without any, those that the profile names."""
    if not arguments:
        return {key: root for key, root in known.items() if root is not None}
    chosen = {}
    for argument in arguments:
        key, given, folder = argument.partition("=")
        if key not in known:
            raise UserError(f"no corpus {key!r}", f"one of: {', '.join(known)}")
        chosen[key] = Path(folder).expanduser() if given else known.get(key)
    return chosen


def main(arguments: list[str], profile: str | None) -> int:
    """Print what is complete and what is missing; return 0 if all is complete, else 1.

    Args:
        arguments: `corpus` or `corpus=folder`; none: all corpora of the profile.
        profile: section of params.yaml.

    Raises:
        UserError: there is no such corpus or profile.
    """
    params = load_params(profile)
    known = folders(params)
    chosen = _chosen(arguments, known)
    whole = 0
    for key, root in chosen.items():  # told one by one: counting a million files takes minutes
        report = verify(key, root, chosen.get("ffpp") or known["ffpp"])
        whole += report.complete
        print("\n".join(lines(report)), end="\n\n", flush=True)
    left_out = [key for key in known if key not in chosen]
    print(f"profile {params.profile}: {whole} of {len(chosen)} complete", end="")
    print(f"; not looked at: {', '.join(left_out)}" if left_out else "")
    return COMPLETE if whole == len(chosen) else INCOMPLETE
