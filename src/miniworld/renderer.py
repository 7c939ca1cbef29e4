"""The miniature's renderer of synthetic documents and satellite images (`collect.renderer: miniature`)."""

import numpy as np

from fakevlm.data.corpora.m6doc import Page
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.page_layout import jitter
from miniworld.world import shoot


class MiniatureRenderer:
    """Draws small images whose flaws are known; the text of documents is greeked."""

    def document(self, page: Page, rng: np.random.Generator, path: str) -> tuple[bytes, GroundTruth]:
        shot = shoot("doc", rng, fake=True, layout=jitter(page.layout, rng), variant=page.style)
        return shot.jpeg, shot.truth(path)

    def satellite(self, rng: np.random.Generator, path: str) -> tuple[bytes, GroundTruth]:
        shot = shoot("satellite", rng, fake=True)
        return shot.jpeg, shot.truth(path)
