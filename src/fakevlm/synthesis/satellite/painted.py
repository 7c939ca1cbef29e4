"""Satellite images painted by the miniature's flawed generator, whose mistakes are known."""

from collections.abc import Iterator

import numpy as np

from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.records import FAKE, Record
from fakevlm.progress import track

GENERATOR = "painter"
_STREAM = 21  # sets this module's random numbers apart from others with the same seed


def synthesize(n: int, seed: int) -> Iterator[tuple[Record, GroundTruth]]:
    """`n` synthetic satellite images with what is true of them; image i depends on the seed and i alone."""
    if n == 0:
        return
    from miniworld import world

    for i in track(range(n), "satellite images"):
        shot = world.shoot("satellite", np.random.default_rng([seed, _STREAM, i]), fake=True)
        path = f"satellite/fake/{i:07d}_fake_B.jpg"
        yield (
            Record(
                id=path,
                image=shot.jpeg,
                label=FAKE,
                source="satellite",
                item=path,
                category="satellite",
                generator=GENERATOR,
            ),
            GroundTruth(path, FAKE, "satellite", shot.artifacts, shot.qualities),
        )
