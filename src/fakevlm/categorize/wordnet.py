"""Makes `persons.txt`: which classes of ImageNet's 22,000 are people. `fakevlm persons <dict>/data.noun`

ImageNet's class names are WordNet 3.0 synsets (`n` and the offset in `data.noun`). A class is a person if "person" (n00007846) is
among its hypernyms or instance hypernyms, at whatever height. WordNet's hierarchy ships with neither timm (which lists the synsets)
nor nltk (which downloads it), so the result is kept as data. It was made from WordNet 3.0 (Princeton University, free for any use with
its notice; Debian's package wordnet-base 1:3.0-37) and timm's list of the 21,843 synsets of Google's release, a superset of the others.
Only numbers are kept: the words for people that WordNet records are in part insults.
"""

from collections.abc import Iterable
from pathlib import Path

PERSON = "n00007846"
FILE = Path(__file__).with_name("persons.txt")


def hypernyms(lines: Iterable[str]) -> dict[str, list[str]]:
    """The synsets above each, from WordNet's `data.noun` (format: wndb(5WN) in WordNet's manual)."""
    above = {}
    for line in lines:
        if line.startswith("  "):  # the licence
            continue
        cells = line.split(" | ")[0].split()
        pointers = cells[
            5 + 2 * int(cells[3], 16) :
        ]  # behind the words: symbol, synset, part of speech, words meant
        above[f"n{cells[0]}"] = [
            f"n{pointers[n + 1]}" for n in range(0, len(pointers), 4) if pointers[n][0] == "@"
        ]
    return above


def below(root: str, above: dict[str, list[str]]) -> set[str]:
    """All synsets that have `root` among their hypernyms, and `root` itself."""
    children: dict[str, list[str]] = {}
    for synset, parents in above.items():
        for parent in parents:
            children.setdefault(parent, []).append(synset)
    found, waiting = set(), [root]
    while waiting:
        synset = waiting.pop()
        if synset not in found:
            found.add(synset)
            waiting += children.get(synset, [])
    return found


def main(source: Path, out: Path = FILE) -> int:
    """Writes the list; returns how many synsets are in it."""
    from timm.data import ImageNetInfo

    people = below(PERSON, hypernyms(source.read_text(encoding="latin-1").splitlines()))
    chosen = sorted(people & set(ImageNetInfo("imagenet-21k-goog").label_names()))
    out.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return len(chosen)
