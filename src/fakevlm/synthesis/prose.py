"""Text that fills pages.

Sentences put together from the project's own words (prose.yaml), so nobody's are copied.
"""

from pathlib import Path

import numpy as np
import yaml

_PARTS: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def _pick(rng: np.random.Generator, *parts: str) -> str:
    return " ".join(_PARTS[part][int(rng.integers(len(_PARTS[part])))] for part in parts)


def sentence(rng: np.random.Generator) -> str:
    """Return one sentence, now and then with a short one after it."""
    text = _pick(rng, "who", "did", "what", "how") + "."
    text = text[0].upper() + text[1:]
    return f"{text} {_pick(rng, 'then')}" if rng.random() < 0.3 else text


def words(rng: np.random.Generator, n: int) -> list[str]:
    """Return running text of `n` words."""
    text: list[str] = []
    while len(text) < n:
        text += sentence(rng).split()
    return text[:n]


def headline(rng: np.random.Generator) -> str:
    """Return a title without a full stop."""
    text = _pick(rng, "who", "did", "what")
    return text[0].upper() + text[1:]
