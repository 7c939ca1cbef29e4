"""The clue lexicon (clues.yaml beside this file), and the kinds of artifact that a text names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Kind:
    """A kind of artifact, or a quality of real photographs."""

    family: str  # texture, geometry or lighting (paper, section 3.2)
    phrases: Sequence[str]  # ways to say it; `{s}` is the subject ("the animal", "the page")
    patterns: Sequence[str] = ()  # regular expressions of sensible wordings of this kind alone, in lower case
    unseen: bool = False  # occurs in benchmarks only, never in FakeClue-mini


_LEXICON = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
FAMILIES = tuple(_LEXICON["families"])
SUBJECTS: dict[str, str] = _LEXICON["subjects"]
KINDS = {name: Kind(**entry) for name, entry in _LEXICON["kinds"].items()}
QUALITIES = {name: Kind(**entry) for name, entry in _LEXICON["qualities"].items()}
SEEN_KINDS = tuple(name for name, kind in KINDS.items() if not kind.unseen)

_PATTERNS = {name: re.compile("|".join(kind.patterns)) for name, kind in KINDS.items()}
# A negation reaches to the end of its clause or to a comma, but not of a list ("no halo, grid or glare").
_END = re.compile(
    r"[;.:\n]|,(?! (?:or|nor|\w+(?: \w+)?,? (?:or|nor)) )"
    r"|\b(?:but|however|yet|although|though|while|whereas)\b"
    r"|\b(?=there (?:is|are))|\band (?=(?:an?|the|it|this|is|are|looks?|shows?|has)\b)"
)
# "not" and "instead of" reach four words far, and not beyond a word of place, reason or existence.
_BEFORE = re.compile(
    r"\b(?:no(?! doubt)|neither|nor|nothing|lacks?|absence of|(?<!not )(?:without|free (?:of|from)))\b.*$"
    r"|(?:\b(?<!should )(?:not|cannot|never|rather than|instead of)|n't)"
    r"(?! (?:only|just|merely|free|without)\b)"
    r"(?: (?!(?:around|near|at|because|where|which|that|was|is|so|one|we)\b)[\w-]+){0,4} \W*$"
)
_AFTER = re.compile(
    r"[\w -]*\b(?:(?:is|are|was|were)(?: not|n't) (?:visible|present|there|seen|found)|(?:is|are) absent"
    r"|cannot be (?:seen|found)|(?:is|are) nowhere)\b"
)


def kinds_named(text: str) -> set[str]:
    """Return the kinds of artifact that a text asserts: a grid in "there is no halo but a grid covers it"."""
    text = text.lower()  # ignoring case in the patterns would take three times as long
    starts = [0, *(match.end() for match in _END.finditer(text))]
    named = set()
    for name, pattern in _PATTERNS.items():
        for match in pattern.finditer(text):
            clause = text[max(start for start in starts if start <= match.start()) : match.start()]
            if not _BEFORE.search(clause) and not _AFTER.match(text, match.end()):
                named.add(name)
    return named
