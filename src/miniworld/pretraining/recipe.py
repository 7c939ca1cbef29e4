"""The numbers the shipped base was made with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Round:
    """One pass through both phases, on renders of its own.

    Attributes:
        images: renders in the pool; in phase 1 every pass sees them mirrored at random.
        dense_steps, caption_steps: optimizer steps of the two phases, `Recipe.batch` images each.
        dense_rate, caption_rate, tower_rate: peak learning rates; the tower's in the second phase is its own.
    """

    images: int
    dense_steps: int
    caption_steps: int
    dense_rate: float = 2e-3
    caption_rate: float = 1.5e-3
    tower_rate: float = 6e-4


@dataclass(frozen=True)
class Recipe:
    """What the shipped base was made with.

    `make base` runs all rounds in today's world. The shipped base had its first round before the artifacts
    were made larger, and the second with `--start` (see its card).

    Attributes: rounds: one after the other, each on renders of its own. head_steps: if a round starts from a
        finished base, steps in which its new dense heads learn alone, so that their first, random errors do
        not reach the tower."""

    seed: int = 991
    batch: int = 64
    rounds: tuple[Round, ...] = (
        Round(images=80_000, dense_steps=3_600, caption_steps=1_300),
        Round(images=60_000, dense_steps=1_800, caption_steps=700, dense_rate=1.2e-3, caption_rate=1.2e-3),
    )
    head_steps: int = 150
    vision: tuple[tuple[str, int], ...] = (("hidden_size", 128), ("layers", 5), ("heads", 4), ("mlp", 512))
    text: tuple[tuple[str, int], ...] = (("hidden_size", 128), ("layers", 3), ("heads", 4), ("mlp", 352))
    vocab_size: int = 1_200
