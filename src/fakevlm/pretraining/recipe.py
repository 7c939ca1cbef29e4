"""The numbers the shipped base was made with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """What the shipped base was made with; `make base` repeats it.

    Attributes:
        images: renders in the pool; every pass sees them mirrored at random.
        dense_steps, caption_steps: optimizer steps of the two phases, `batch` images each.
        dense_rate, caption_rate, tower_rate: peak learning rates; the tower's in the second phase is its own.
    """

    seed: int = 991
    images: int = 80_000
    batch: int = 64
    dense_steps: int = 3_600
    dense_rate: float = 2e-3
    caption_steps: int = 1_300
    caption_rate: float = 1.5e-3
    tower_rate: float = 6e-4
    vision: tuple[tuple[str, int], ...] = (("hidden_size", 128), ("layers", 5), ("heads", 4), ("mlp", 512))
    text: tuple[tuple[str, int], ...] = (("hidden_size", 128), ("layers", 3), ("heads", 4), ("mlp", 352))
    vocab_size: int = 1_200
