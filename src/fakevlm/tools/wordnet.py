"""Write `categorize/persons.txt`, ImageNet-22k's classes of people: `fakevlm persons <dict>/data.noun`

A class is a synset of WordNet 3.0 (Princeton University, free for any use with its notice; Debian's package
wordnet-base 1:3.0-37). Only the numbers of synsets are kept: some words for people are insults.
"""

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

from fakevlm.errors import UserError

PERSON = "n00007846"
FILE = Path(str(files("fakevlm.categorize"))) / "persons.txt"


def hypernyms(lines: Iterable[str]) -> dict[str, list[str]]:
    """Return the synsets directly above each, from WordNet's `data.noun` (see wndb(5WN))."""
    above = {}
    for line in lines:
        if line.startswith("  "):  # the licence
            continue
        cells = line.split(" | ")[0].split()
        pointers = cells[5 + 2 * int(cells[3], 16) :]  # symbol, synset, part of speech, words
        upwards = (n for n in range(0, len(pointers), 4) if pointers[n][0] == "@")
        above[f"n{cells[0]}"] = [f"n{pointers[n + 1]}" for n in upwards]
    return above


def below(root: str, above: dict[str, list[str]]) -> set[str]:
    """Return `root` and all synsets that have it among their hypernyms, at any height."""
    synsets: set[str] = set()
    added = {root}
    while added:
        synsets |= added
        added = {name for name, parents in above.items() if not synsets.isdisjoint(parents)} - synsets
    return synsets


def main(source: Path, out: Path = FILE) -> int:
    """Write the list; return how many synsets are in it. Raises `UserError` for another file."""
    lines = source.read_text(encoding="latin-1").splitlines() if source.is_file() else []
    try:
        people = below(PERSON, hypernyms(lines))
    except (IndexError, ValueError):
        people = set()
    if len(people) < 2:
        raise UserError(f"{source} is not WordNet's list of nouns", "name WordNet 3.0's data.noun")
    from timm.data import ImageNetInfo

    chosen = sorted(people & set(ImageNetInfo("imagenet-21k-goog").label_names()))
    out.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return len(chosen)
