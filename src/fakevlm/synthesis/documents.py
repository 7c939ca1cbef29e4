"""Synthetic documents, layout first and content after (paper section 3.1).

A page of a real corpus lends its layout, which is varied; then the page is filled, by one of two renderers:

* `miniature`: the miniature's flawed generator, on small pages whose text is greeked; its mistakes are known.
* `fonts`: `typeset.render_page`, real text in real fonts at any size; the page is synthetic throughout and nothing is known
  to be wrong with it.
"""

import io
from collections.abc import Iterator, Sequence

import numpy as np

from fakevlm.data.corpora.m6doc import Page
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.data.page_layout import jitter
from fakevlm.data.records import FAKE, Record
from fakevlm.errors import UserError
from fakevlm.progress import track

GENERATOR = "layout-first"
LONG_SIDE = 1024  # pixels, of pages set in fonts
_STREAM = 22  # sets this module's random numbers apart from others with the same seed


def _miniature(page: Page, rng: np.random.Generator, path: str) -> tuple[bytes, GroundTruth | None]:
    from miniworld import world

    shot = world.shoot("doc", rng, fake=True, layout=jitter(page.layout, rng), variant=page.style)
    return shot.jpeg, GroundTruth(path, FAKE, "doc", shot.artifacts, shot.qualities)


def _fonts(page: Page, rng: np.random.Generator, path: str) -> tuple[bytes, GroundTruth | None]:
    from fakevlm.synthesis.typeset import render_page

    scale = LONG_SIDE / max(page.width, page.height)
    size = (max(1, round(page.width * scale)), max(1, round(page.height * scale)))
    out = io.BytesIO()
    picture = render_page(jitter(page.layout, rng), rng, size=size)
    picture.save(out, format="JPEG", quality=int(rng.integers(80, 96)))
    return out.getvalue(), None


_RENDERERS = {"miniature": _miniature, "fonts": _fonts}


def synthesize(
    pages: Sequence[Page], n: int, seed: int, renderer: str
) -> Iterator[tuple[Record, GroundTruth | None]]:
    """`n` synthetic pages, each after one of `pages`, with what is true of them where anything is known.

    The types of document take turns. A page and what was made after its layout share an `item`, so no split parts them.

    Raises:
        UserError: there is no page to take a layout from, or no such renderer.
    """
    if n == 0:
        return
    if renderer not in _RENDERERS:
        raise UserError(f"no renderer {renderer!r}", f"collect.renderer is one of {', '.join(_RENDERERS)}")
    styles = sorted({page.style for page in pages if page.style})
    if not styles:
        raise UserError(
            "synthetic documents need layouts, and no page lends one",
            "name M6Doc's folder in collect.corpora.m6doc, or set collect.synthetic_documents to 0",
        )
    by_style = {style: [page for page in pages if page.style == style] for style in styles}
    for i in track(range(n), "documents", unit="page"):
        rng = np.random.default_rng([seed, _STREAM, i])
        style = styles[i % len(styles)]
        page = by_style[style][int(rng.integers(len(by_style[style])))]
        path = f"doc/fake/{style}_en_{i}/page.jpg"
        data, truth = _RENDERERS[renderer](page, rng, path)
        record = Record(
            id=path,
            image=data,
            label=FAKE,
            source="doc",
            item=page.id,
            category="doc",
            generator=GENERATOR,
        )
        yield record, truth
