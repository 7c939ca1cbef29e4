"""The miniature's renderer of synthetic documents and satellite images (`collect.renderer: miniature`)."""

import numpy as np

from fakevlm.data.corpora.m6doc import Page
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.page_layout import jitter
from fakevlm.data.records import FAKE
from miniworld.world import Shot, shoot


class MiniatureRenderer:
    """Draws small images whose flaws are known; the text of documents is greeked."""

    def document(self, page: Page, rng: np.random.Generator, path: str) -> tuple[bytes, GroundTruth]:
        return _known(shoot("doc", rng, fake=True, layout=jitter(page.layout, rng), variant=page.style), path)

    def satellite(self, rng: np.random.Generator, path: str) -> tuple[bytes, GroundTruth]:
        return _known(shoot("satellite", rng, fake=True), path)


def _known(shot: Shot, path: str) -> tuple[bytes, GroundTruth]:
    return shot.jpeg, GroundTruth(path, FAKE, shot.category, shot.artifacts, shot.qualities)
