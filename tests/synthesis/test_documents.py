"""Layouts and what fills them: sampled, read from COCO, jittered.

Set in fonts or greeked; synthetic pages and aerial images.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fakevlm.data.corpora.m6doc import CATEGORIES, Page
from fakevlm.data.page_layout import KINDS, STYLES, Block, block_kind, jitter, layout_from_coco, sample_layout
from fakevlm.data.records import FAKE
from fakevlm.errors import UserError
from fakevlm.synthesis.rendered import synthesize_documents, synthesize_satellites
from fakevlm.synthesis.typeset import render_page


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("style", STYLES)
def test_sampled_layouts_are_pages(style: str) -> None:
    for seed in range(60):
        layout = sample_layout(rng(seed), style)
        assert {b.kind for b in layout} <= set(KINDS)
        assert sum(b.kind == "text" for b in layout) >= 2
        assert overlap(layout) == 0, "columns do not run into each other"
        for b in layout:
            assert 0 <= b.box[0] < b.box[2] <= 1
            assert 0 <= b.box[1] < b.box[3] <= 1
        assert layout == sample_layout(rng(seed), style)


def overlap(layout: list[Block]) -> float:
    """The greatest share of a text block that another text block covers."""
    worst = 0.0
    texts = [b.box for b in layout if b.kind == "text"]
    for n, a in enumerate(texts):
        for b in texts[n + 1 :]:
            w = min(a[2], b[2]) - max(a[0], b[0])
            h = min(a[3], b[3]) - max(a[1], b[1])
            if w > 0 and h > 0:
                worst = max(worst, w * h / ((a[2] - a[0]) * (a[3] - a[1])))
    return worst


def test_jitter_changes_a_layout_but_keeps_it_a_page() -> None:
    layout = sample_layout(rng(3), "newspaper")
    new = jitter(layout, rng(4))
    assert new != layout
    assert len(new) >= 0.7 * len(layout)
    assert new == jitter(layout, rng(4))
    for b in new:
        assert 0 <= b.box[0] < b.box[2] <= 1
        assert 0 <= b.box[1] < b.box[3] <= 1


def test_layout_from_coco_scales_clips_and_sorts() -> None:
    categories = [{"id": 7, "name": "headline"}, {"id": 9, "name": "paragraph"}]
    annotations = [
        {"bbox": [0, 200, 100, 50], "category_id": 9},
        {"bbox": [10, 20, 200, 20], "category_id": 7},
        {"bbox": [50, 50, 0.2, 0.2], "category_id": 9},
        {"bbox": [0, 0, 100, 400], "category_id": 9, "iscrowd": 1},
    ]
    assert layout_from_coco(annotations, categories, 100, 400) == [
        Block("title", (0.1, 0.05, 1.0, 0.1)),
        Block("text", (0.0, 0.5, 1.0, 0.625)),
    ]


def test_every_m6doc_class_has_a_kind() -> None:
    kinds = {name: block_kind(name) for name in CATEGORIES}
    assert set(kinds.values()) == set(KINDS)
    expected = {"mugshot": "figure", "page number": "footer", "folio": "header", "section title": "title"}
    expected |= {"table caption": "caption", "underscore": "rule", "ordered list": "text", "footnote": "text"}
    assert {name: kinds[name] for name in expected} == expected


def ink(page: Image.Image, box: tuple[float, float, float, float]) -> float:
    """The share of pixels in a block that are darker than paper."""
    w, h = page.size
    part = np.asarray(
        page.crop((int(box[0] * w), int(box[1] * h), int(box[2] * w), int(box[3] * h))).convert("L")
    )
    return float((part < 200).mean())


@pytest.mark.parametrize("size", [(600, 800), (96, 96), (40, 60)])
def test_pages_are_filled_where_the_layout_says(size: tuple[int, int]) -> None:
    layout = [
        Block("title", (0.1, 0.05, 0.9, 0.15)),
        Block("text", (0.1, 0.2, 0.45, 0.7)),
        Block("figure", (0.55, 0.2, 0.9, 0.5)),
        Block("table", (0.55, 0.6, 0.9, 0.8)),
    ]
    page = render_page(layout, rng(1), size)
    assert page.size == size
    assert page.mode == "RGB"
    for block in layout:
        assert ink(page, block.box) > 0.02, block.kind
    assert ink(page, (0.0, 0.86, 1.0, 1.0)) == 0
    assert ink(page, (0.46, 0.2, 0.54, 0.8)) == 0, "the gutter stays empty"


@pytest.mark.parametrize("name", CATEGORIES[1:])
@pytest.mark.parametrize("size", [(600, 800), (60, 80)])
def test_every_m6doc_class_is_set_within_its_box(name: str, size: tuple[int, int]) -> None:
    box = (0.2, 0.3, 0.7, 0.5)
    page = np.asarray(render_page([Block(block_kind(name), box, name.lower())], rng(2), size).convert("L"))
    dark = np.argwhere(page < 215)
    if name == "blank":
        assert not len(dark)
        return
    assert len(dark)
    edge = 0.03  # letters may reach a little below the last line
    ys, xs = dark[:, 0] / size[1], dark[:, 1] / size[0]
    assert 0.3 - edge <= ys.min() <= ys.max() <= 0.5 + edge
    assert 0.2 - edge <= xs.min() <= xs.max() <= 0.7 + edge


def test_finer_classes_are_set_in_their_own_way() -> None:
    def page(name: str) -> bytes:
        block = Block(block_kind(name), (0.2, 0.3, 0.7, 0.5), name)
        return render_page([block], rng(2), (600, 800)).tobytes()

    names = ["paragraph", "unordered list", "ordered list", "formula", "algorithm", "drop cap", "footnote"]
    names += ["qr code", "barcode"]
    assert len({page(name) for name in names}) == len(names)
    assert page("section title") == page("title")
    coco = [{"bbox": [0, 0, 50, 50], "category_id": 7}], [{"id": 7, "name": "Unordered_list"}]
    (block,) = layout_from_coco(*coco, 100, 100)
    assert (block.kind, block.name) == ("text", "unordered list")
    texts = {b.name for n in range(20) for b in jitter([block], rng(n)) if b.kind == "text"}
    assert texts == {"unordered list"}


def test_pages_are_deterministic_and_differ() -> None:
    layout = sample_layout(rng(2), "paper")
    pages = [np.asarray(render_page(layout, rng(seed), (300, 400))) for seed in (5, 5, 6)]
    assert np.array_equal(pages[0], pages[1])
    assert not np.array_equal(pages[0], pages[2])


def test_small_text_is_greeked_large_text_is_set() -> None:
    """Greeked bars are runs of one grey; letters are not."""
    layout = [Block("text", (0.1, 0.1, 0.9, 0.9))]

    def tones(size: tuple[int, int]) -> int:
        page = np.asarray(render_page(layout, rng(1), size).convert("L"))
        return len(np.unique(page))

    assert tones((96, 96)) <= 3
    assert tones((800, 1000)) > 20


def page(name: str, style: str = "magazine") -> Page:
    return Page(Path(name), 300, 400, style, tuple(sample_layout(rng(1), style)))


def test_documents_in_fonts_have_the_pages_shape() -> None:
    drawn = list(synthesize_documents([page("a.jpg"), page("b.jpg", "paper")], 2, 17, "fonts"))
    assert all(truth is None for _, truth in drawn)
    record = drawn[0][0]
    assert Image.open(io.BytesIO(record.image)).size == (768, 1024)
    assert (record.label, record.category, record.source) == (FAKE, "doc", "doc")
    assert [r.id.split("/")[2].split("_")[0] for r, _ in drawn] == ["magazine", "paper"]
    assert [r.item for r, _ in drawn] == ["doc/real/a.jpg", "doc/real/b.jpg"]


def test_documents_of_the_miniature_know_their_flaws() -> None:
    drawn = list(synthesize_documents([page("a.jpg")], 4, 17, "miniature"))
    assert all(truth is not None and truth.artifacts for _, truth in drawn)
    assert [truth.path for _, truth in drawn] == [record.id for record, _ in drawn]
    again = list(synthesize_documents([page("a.jpg")], 2, 17, "miniature"))
    assert [r.image for r, _ in again] == [r.image for r, _ in drawn[:2]], (
        "page i depends on the seed and i alone"
    )
    assert [r.image for r, _ in synthesize_documents([page("a.jpg")], 2, 18, "miniature")] != [
        r.image for r, _ in again
    ]


def test_documents_say_what_they_lack() -> None:
    assert list(synthesize_documents([], 0, 17, "miniature")) == []
    with pytest.raises(UserError, match="no page lends one"):
        list(synthesize_documents([], 1, 17, "miniature"))
    with pytest.raises(UserError, match="crayons"):
        list(synthesize_documents([page("a.jpg")], 1, 17, "crayons"))


def test_satellite_images() -> None:
    drawn = list(synthesize_satellites(3, 17, "miniature"))
    assert len({record.sha256 for record, _ in drawn}) == 3
    assert all(truth.path == record.id and truth.artifacts for record, truth in drawn)
    assert list(synthesize_satellites(0, 17, "miniature")) == []
