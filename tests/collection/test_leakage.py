"""Leakage by perceptual hash: copies are found in any encoding, other and flat images are not."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fakevlm.collection import leakage as module
from fakevlm.collection.leakage import COLUMNS, Leakage, nearest, phash
from fakevlm.data.records import REAL, Record, decode, encode
from miniworld.world import shoot


def drawn(seed: int, category: str = "scene") -> Image.Image:
    return Image.fromarray(shoot(category, np.random.default_rng(seed)).pixels)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    return decode(encode(image, "JPEG", quality=quality))


def record(path: str, image: Image.Image, split: str | None = None) -> Record:
    return Record(path, encode(image, "PNG"), REAL, "x", split=split)


def apart(first: Image.Image, second: Image.Image) -> int:
    return (phash(first) ^ phash(second)).bit_count()


@pytest.mark.parametrize(
    "change",
    [
        lambda image: jpeg(image, 60), lambda image: image.resize((64, 64)),
        lambda image: image.resize((300, 300)).convert("L"),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    ],
)  # fmt: skip
def test_copies_of_an_image_are_near_and_other_images_far(change) -> None:
    images = [drawn(seed) for seed in range(6)]
    assert max(apart(image, change(image)) for image in images) <= 4
    assert min(apart(a, change(b)) for a, b in pairwise(images)) > 8


def test_images_without_contrast_have_no_hash() -> None:
    noise = np.random.default_rng(0).integers(126, 130, (96, 96, 3), dtype=np.uint8)
    ramp = np.repeat(np.linspace(0, 255, 96).astype(np.uint8)[None], 96, 0)
    assert phash(Image.new("RGB", (64, 64), "grey")) is None
    assert phash(Image.fromarray(noise)) is None, "faint noise"
    assert phash(Image.fromarray(ramp)) is None, "a ramp: one row of frequencies, all others are rounding"
    assert None not in [phash(drawn(seed, name)) for seed, name in enumerate(("doc", "satellite", "human"))]


@pytest.mark.parametrize("block", [1 << 22, 64])
@pytest.mark.parametrize("distance", [0, 4, 16])
def test_blocks_find_what_comparing_all_with_all_finds(distance: int, block: int, monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK", block)
    rng = np.random.default_rng(distance)
    references, queries = (rng.integers(0, 2**64, n, dtype=np.uint64) for n in (3000, 200))
    references[:300] &= np.uint64(0xFFFF)  # many that share most of their bits
    for i in range(150):  # copies with 0 … 2d + 1 bits flipped
        bits = rng.choice(64, rng.integers(0, 2 * distance + 2), replace=False)
        queries[i] = references[rng.integers(3000)] ^ np.uint64(sum(1 << int(b) for b in bits))
    table = np.bitwise_count(references[None] ^ queries[:, None]).astype(int)
    expected = [np.where(table.min(1) <= distance, best, -1) for best in (table.argmin(1), table.min(1))]
    np.testing.assert_array_equal(nearest(references, queries, distance), expected)
    assert 10 < (expected[0] >= 0).sum() < 200
    assert [part.tolist() for part in nearest(references[:0], queries, 4)] == [[-1] * 200] * 2


def test_content_comes_before_likeness_and_each_image_once() -> None:
    leakage = Leakage(4)
    image, other = drawn(1), drawn(2)
    small, flat = image.resize((64, 64)), Image.new("RGB", (9, 9), "white")
    for path, shown in {"a": image, "b": small, "f": flat, "test": other}.items():
        leakage.trained(record(path, shown, "test" if path == "test" else None), phash(shown))
    again = jpeg(image, 80)
    for path, shown in (("same#1", image), ("same#2", image), ("again#1", again), ("again#2", again)):
        leakage.tested("ddvqa", record(path, shown), phash(shown))
    leakage.tested("loki", record("white", Image.new("RGB", (8, 8), "white")), None)
    leakage.tested("loki", record("split", other), phash(other))
    frame, distance = leakage.frame(), apart(image, again)
    assert list(frame.columns) == COLUMNS
    assert frame.values.tolist() == [
        ["ddvqa", "again", "a" if distance <= apart(small, again) else "b", "perceptual", distance],
        ["ddvqa", "same", "a", "content", 0],
    ]
    assert leakage.flat == {"training": 1, "loki": 1}
