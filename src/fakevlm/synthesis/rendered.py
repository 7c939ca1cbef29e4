"""Synthetic documents and satellite images by a renderer (`collect.renderer`; paper section 3.1)."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import cv2
import numpy as np

from fakevlm.data.corpora.m6doc import Page
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.records import FAKE, Record
from fakevlm.errors import UserError
from fakevlm.plugins import RENDERERS, load
from fakevlm.progress import track

# The second entry of the seeds: keeps their random numbers apart from those of other modules.
_DOCUMENTS, _SATELLITES = 22, 21


def encode_jpeg(pixels: np.ndarray, rng: np.random.Generator, quality: tuple[int, int]) -> tuple[bytes, bool]:
    """Return a JPEG file as from a camera, and whether it was compressed twice, as one image in seven is.

    `pixels` are (height, width, 3) RGB in 0..255, `quality` is the lowest and the highest, 1..100.
    """
    image = np.clip(pixels, 0, 255).astype(np.uint8)[..., ::-1]
    twice = bool(rng.random() < 0.15)
    if twice:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 62))])
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    chosen = int(rng.integers(quality[0], quality[1] + 1))
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, chosen, cv2.IMWRITE_JPEG_OPTIMIZE, 1])
    return data.tobytes(), twice


class Renderer(Protocol):
    """Draws synthetic images. Made without arguments; equal random generators make equal bytes."""

    def document(self, page: Page, rng: np.random.Generator, path: str) -> tuple[bytes, GroundTruth | None]:
        """Return a page after `page.layout` as an encoded image, and its ground truth if that is known.

        The page also lends its style, and its width and height in pixels; `path` is the record's.
        """

    def satellite(self, rng: np.random.Generator, path: str) -> tuple[bytes, GroundTruth | None]:
        """Return an aerial image. Only needed if `collect.synthetic_satellites` is more than 0."""


def synthesize_documents(
    pages: Sequence[Page], n: int, seed: int, renderer: str
) -> Iterator[tuple[Record, GroundTruth | None]]:
    """Yield `n` synthetic pages, each after one of `pages`, with their ground truth where it is known.

    The types of document take turns. A page has the `group` of the page that lent its layout: no split parts
    the two. Raises `UserError` if no page lends a layout, or there is no such renderer.
    """
    if not n:
        return
    draw = load(renderer, RENDERERS, "collect.renderer")().document
    styles = sorted({page.style for page in pages if page.style})
    if not styles:
        cure = "name M6Doc's folder in collect.corpora.m6doc, or set collect.synthetic_documents to 0"
        raise UserError("synthetic documents need layouts, and no page lends one", cure)
    by_style = {style: [page for page in pages if page.style == style] for style in styles}
    for i in track(range(n), "documents", unit="page"):
        rng = np.random.default_rng([seed, _DOCUMENTS, i])
        style = styles[i % len(styles)]
        page = by_style[style][int(rng.integers(len(by_style[style])))]
        path = f"doc/fake/{style}_en_{i}/page.jpg"
        image, ground_truth = draw(page, rng, path)
        yield Record(path, image, FAKE, "doc", page.id, "doc", "layout-first"), ground_truth


def synthesize_satellites(n: int, seed: int, renderer: str) -> Iterator[tuple[Record, GroundTruth | None]]:
    """Yield `n` synthetic satellite images with their ground truth; image i depends on the seed and i alone.

    Raises `UserError` if there is no such renderer, or it draws documents only.
    """
    if not n:
        return
    artist = load(renderer, RENDERERS, "collect.renderer")()
    if not hasattr(artist, "satellite"):
        cure = "set collect.synthetic_satellites to 0 (those of collect.satellites are extra)"
        raise UserError(f"renderer {renderer} draws documents only", cure)
    for i in track(range(n), "satellite images"):
        path = f"satellite/fake/{i:07d}_fake_B.jpg"
        image, ground_truth = artist.satellite(np.random.default_rng([seed, _SATELLITES, i]), path)
        yield Record(path, image, FAKE, "satellite", path, "satellite", "painter"), ground_truth
