"""Synthetic pages and aerial images: layouts sampled, read from COCO, jittered; set in fonts or greeked."""

import io
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakevlm.data.corpora.m6doc import CATEGORIES, Page, block_kind
from fakevlm.data.page_layout import STYLES, Block, jitter
from fakevlm.data.records import FAKE
from fakevlm.errors import UserError
from fakevlm.synthesis.rendered import synthesize_documents, synthesize_satellites
from fakevlm.synthesis.typeset import render_page
from miniworld.scenes.page import sample_layout

BOX = (0.2, 0.3, 0.7, 0.5)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


@pytest.mark.parametrize("style", STYLES)
def test_sampled_and_jittered_layouts_are_pages(style: str) -> None:
    for seed in range(60):
        layout = sample_layout(rng(seed), style)
        assert layout == sample_layout(rng(seed), style)
        texts = [block.box for block in layout if block.kind == "text"]
        assert len(texts) >= 2
        assert not any(overlap(a, b) for a, b in combinations(texts, 2)), "columns do not run into each other"
        new = jitter(layout, rng(seed + 1))
        assert new == jitter(layout, rng(seed + 1)) != layout
        assert len(new) >= 0.7 * len(layout)
        for block in (*layout, *new):
            x0, y0, x1, y1 = block.box
            assert block.kind in {block_kind(name) for name in CATEGORIES}
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1


def ink(page: Image.Image, box: tuple[float, ...]) -> float:
    """The share of pixels in a block that are darker than paper."""
    part = page.crop([int(v * side) for v, side in zip(box, page.size * 2, strict=True)])
    return float((np.asarray(part.convert("L")) < 200).mean())


@pytest.mark.parametrize("size", [(600, 800), (96, 96), (40, 60)])
def test_pages_are_filled_where_the_layout_says(size: tuple[int, int]) -> None:
    layout = [Block("title", (0.1, 0.05, 0.9, 0.15)), Block("text", (0.1, 0.2, 0.45, 0.7))]
    layout += [Block("figure", (0.55, 0.2, 0.9, 0.5)), Block("table", (0.55, 0.6, 0.9, 0.8))]
    page = render_page(layout, rng(1), size)
    assert (page.size, page.mode) == (size, "RGB")
    assert all(ink(page, block.box) > 0.02 for block in layout)
    assert ink(page, (0.0, 0.86, 1.0, 1.0)) == 0
    assert ink(page, (0.46, 0.2, 0.54, 0.8)) == 0, "the gutter stays empty"
    assert page.tobytes() == render_page(layout, rng(1), size).tobytes()
    assert page.tobytes() != render_page(layout, rng(2), size).tobytes()


@pytest.mark.parametrize("name", CATEGORIES[1:])
@pytest.mark.parametrize("size", [(600, 800), (60, 80)])
def test_every_m6doc_class_is_set_within_its_box(name: str, size: tuple[int, int]) -> None:
    page = np.asarray(render_page([Block(block_kind(name), BOX, name.lower())], rng(2), size).convert("L"))
    dark = np.argwhere(page < 215)
    assert bool(len(dark)) == (name != "blank")
    if len(dark):
        edge = 0.03  # letters may reach a little below the last line
        ys, xs = dark[:, 0] / size[1], dark[:, 1] / size[0]
        assert BOX[1] - edge <= ys.min() <= ys.max() <= BOX[3] + edge
        assert BOX[0] - edge <= xs.min() <= xs.max() <= BOX[2] + edge


def page(name: str, style: str = "magazine") -> Page:
    return Page(Path(name), 300, 400, style, tuple(sample_layout(rng(1), style)))


def test_documents_in_fonts_have_the_pages_shape() -> None:
    drawn = list(synthesize_documents([page("a.jpg"), page("b.jpg", "paper")], 2, 17, "fonts"))
    assert all(ground_truth is None for _, ground_truth in drawn)
    record = drawn[0][0]
    assert Image.open(io.BytesIO(record.image)).size == (768, 1024)
    assert (record.label, record.category, record.source) == (FAKE, "doc", "doc")
    assert [r.id.split("/")[2].split("_")[0] for r, _ in drawn] == ["magazine", "paper"]
    assert [r.group for r, _ in drawn] == ["doc/real/a.jpg", "doc/real/b.jpg"]


def test_the_miniatures_documents_and_aerial_images_come_with_ground_truth() -> None:
    def documents(n: int, seed: int = 17) -> list[tuple]:
        return list(synthesize_documents([page("a.jpg")], n, seed, "miniature"))

    drawn, few = documents(4), documents(2)
    assert [r.image for r, _ in few] == [r.image for r, _ in drawn[:2]], "page i depends on seed and i alone"
    assert [r.image for r, _ in documents(2, 18)] != [r.image for r, _ in few]
    aerials = list(synthesize_satellites(3, 17, "miniature"))
    assert len({record.sha256 for record, _ in aerials}) == 3
    assert all(true.path == record.id and true.artifacts for record, true in (*drawn, *aerials))
    assert list(synthesize_satellites(0, 17, "miniature")) == documents(0) == []
    with pytest.raises(UserError, match="no page lends"):
        list(synthesize_documents([], 1, 17, "miniature"))
