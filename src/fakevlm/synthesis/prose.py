"""Text to fill pages with: sentences put together from the project's own words, so nobody's text is copied."""

import numpy as np

_WHO = (
    "the council", "a group of teachers", "the harbour master", "our reader from the valley", "the new orchestra",
    "an engineer", "the library", "the school on the hill", "a farmer", "the research team", "the ferry company",
    "the night train", "the mayor's office", "an old clockmaker", "the fire brigade", "the weather station",
)  # fmt: skip
_DID = (
    "has opened", "will repair", "has measured", "is looking for", "announced", "has counted", "will replace",
    "described", "has rebuilt", "tested", "compares", "has painted", "will visit", "recorded", "has shortened",
)  # fmt: skip
_WHAT = (
    "a bridge across the river", "the winter timetable", "twelve kinds of apples", "the roof of the market hall",
    "a map of the old town", "the lamps along the quay", "the depth of the lake", "a method for sorting seeds",
    "the choir's first concert", "three paths through the forest", "the height of the tide", "a garden for bees",
    "the results of last year's survey", "an error in the second table", "the sound of passing trains",
)  # fmt: skip
_HOW = (
    "before the end of the month", "with the help of volunteers", "at a cost lower than expected", "for the third time",
    "after a long discussion", "without closing the road", "in spite of the rain", "as the figure shows",
    "according to the report", "on two sunny afternoons", "since the spring", "under the same conditions",
)  # fmt: skip
_THEN = (
    "Most people agreed.", "The difference was small.", "Work goes on.", "Nobody had asked before.",
    "The next meeting is in May.", "Details follow below.", "It took eleven days.", "The old one is kept.",
)  # fmt: skip


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def sentence(rng: np.random.Generator) -> str:
    """One sentence, now and then with a short one after it."""
    text = f"{_pick(rng, _WHO)} {_pick(rng, _DID)} {_pick(rng, _WHAT)} {_pick(rng, _HOW)}."
    text = text[0].upper() + text[1:]
    return f"{text} {_pick(rng, _THEN)}" if rng.random() < 0.3 else text


def words(rng: np.random.Generator, n: int) -> list[str]:
    """Running text of `n` words."""
    found: list[str] = []
    while len(found) < n:
        found += sentence(rng).split()
    return found[:n]


def headline(rng: np.random.Generator) -> str:
    """A title without a full stop."""
    text = f"{_pick(rng, _WHO)} {_pick(rng, _DID)} {_pick(rng, _WHAT)}"
    return text[0].upper() + text[1:]
