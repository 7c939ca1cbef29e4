"""The clue lexicon (clues.yaml beside this file), and the kinds of artifact that a text names.

The miniature's annotators speak in its phrases, and the evaluation reads with `kinds_named`. The aggregation must not
import it: it has to work on text that nobody scripted.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Kind:
    """A kind of artifact, or a quality of real photographs.

    Attributes:
        name: the key.
        family: texture, geometry or lighting (paper, section 3.2).
        phrases: ways to say it; `{s}` is the subject ("the animal", "the page").
        pattern: a regular expression that matches every sensible wording of this kind and of no other; "" for qualities.
        unseen: occurs in benchmarks only, never in FakeClue-mini.
    """

    name: str
    family: str
    phrases: tuple[str, ...]
    pattern: str = ""
    unseen: bool = False


def _kinds(entries: dict[str, dict[str, Any]]) -> dict[str, Kind]:
    return {
        name: Kind(
            name,
            entry["family"],
            tuple(entry["phrases"]),
            "|".join(entry.get("patterns", ())),
            entry.get("unseen", False),
        )
        for name, entry in entries.items()
    }


_LEXICON = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
FAMILIES = tuple(_LEXICON["families"])
SUBJECTS: dict[str, str] = _LEXICON["subjects"]
KINDS = _kinds(_LEXICON["kinds"])
QUALITIES = _kinds(_LEXICON["qualities"])
SEEN_KINDS = tuple(name for name, kind in KINDS.items() if not kind.unseen)

_PATTERNS = {name: re.compile(kind.pattern, re.IGNORECASE) for name, kind in KINDS.items()}
_NEGATED = re.compile(r"\b(no|without any|not any|free of|neither|nor)\b[^;,.]*$", re.IGNORECASE)


def kinds_named(text: str) -> set[str]:
    """The kinds of artifact that a text asserts ("no halo" asserts none).

    Only what follows a plain statement counts: a match with a negation before it in the same clause is left out.
    """
    named = set()
    for clause in re.split(r"[;.\n]", text):
        for name, pattern in _PATTERNS.items():
            match = pattern.search(clause)
            if match and not _NEGATED.search(clause[: match.start()]):
                named.add(name)
    return named
