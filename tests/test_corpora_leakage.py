"""Leakage by perceptual hash: copies are found in any encoding, other and flat images are not."""

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fakevlm.collection import perceptual
from fakevlm.collection.collect import collect
from fakevlm.collection.leakage import COLUMNS, Leakage
from fakevlm.collection.perceptual import nearest, phash
from fakevlm.data.records import REAL, Record
from miniworld.world import shoot
from test_corpora_collect import put, settings


def drawn(seed: int, category: str = "scene") -> Image.Image:
    shot = shoot(category, np.random.default_rng(seed), fake=False, size=96)
    return Image.fromarray(shot.pixels)


def encoded(image: Image.Image, form: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, format=form, **options)
    return out.getvalue()


def record(path: str, image: Image.Image, split: str | None = None) -> Record:
    return Record(path, encoded(image), REAL, "x", path, split=split)


def apart(first: Image.Image, second: Image.Image) -> int:
    return (phash(first) ^ phash(second)).bit_count()


@pytest.mark.parametrize(
    "change",
    [
        lambda image: Image.open(io.BytesIO(encoded(image, "JPEG", quality=60))),
        lambda image: image.resize((64, 64)),
        lambda image: image.resize((300, 300)).convert("L"),
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    ],
)
def test_copies_of_an_image_are_near_and_other_images_far(change) -> None:
    images = [drawn(seed) for seed in range(6)]
    assert max(apart(image, change(image)) for image in images) <= 4
    assert min(apart(a, change(b)) for a, b in pairwise(images)) > 8


def test_the_hash_is_the_well_known_one() -> None:
    """The bits of imagehash.phash, computed here by the definition of the cosine transform."""
    image = drawn(3)
    grey = np.asarray(image.convert("L").resize((32, 32), Image.Resampling.LANCZOS), float)
    n = np.arange(32)
    basis = np.cos(np.pi * (2 * n + 1) * n[:, None] / 64) * np.where(n[:, None], 1, np.sqrt(0.5)) / 4
    low = (basis @ grey @ basis.T)[:8, :8]
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    assert f"{phash(image):064b}" == bits


def test_images_without_contrast_have_no_hash() -> None:
    noise = np.random.default_rng(0).integers(126, 130, (96, 96, 3), dtype=np.uint8)
    ramp = np.repeat(np.linspace(0, 255, 96).astype(np.uint8)[None], 96, 0)
    assert phash(Image.new("RGB", (64, 64), "grey")) is None
    assert phash(Image.fromarray(noise)) is None, "faint noise"
    assert phash(Image.fromarray(ramp)) is None, "a ramp: one row of frequencies, all others are rounding"
    assert all(
        phash(drawn(seed, name)) is not None for seed, name in enumerate(("doc", "satellite", "human"))
    )


@pytest.mark.parametrize("block", [1 << 22, 64])
@pytest.mark.parametrize("distance", [0, 4, 16])
def test_blocks_find_what_comparing_all_with_all_finds(
    distance: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perceptual, "BLOCK", block)
    rng = np.random.default_rng(distance)
    known, asked = (rng.integers(0, 2**64, n, dtype=np.uint64) for n in (3000, 200))
    known[:300] &= np.uint64(0xFFFF)  # many that share most of their bits
    for i in range(150):  # copies with 0 … 2d + 1 bits flipped
        bits = rng.choice(64, rng.integers(0, 2 * distance + 2), replace=False)
        asked[i] = known[rng.integers(len(known))] ^ np.uint64(sum(1 << int(b) for b in bits))
    table = np.bitwise_count(known[None] ^ asked[:, None]).astype(int)
    within = table.min(1) <= distance
    which, bits = nearest(known, asked, distance)
    assert which.tolist() == np.where(within, table.argmin(1), -1).tolist()
    assert bits.tolist() == np.where(within, table.min(1), -1).tolist()
    assert 10 < within.sum() < 200


def test_nothing_to_compare() -> None:
    nothing, some = np.zeros(0, np.uint64), np.ones(3, np.uint64)
    assert [part.tolist() for part in nearest(nothing, some, 4)] == [[-1] * 3, [-1] * 3]
    assert [part.tolist() for part in nearest(some, nothing, 4)] == [[], []]


def test_content_comes_before_looks_and_each_image_once() -> None:
    found = Leakage(4)
    image, other = drawn(1), drawn(2)
    small = image.resize((64, 64))
    flat = Image.new("RGB", (9, 9), "white")
    for name, shown, split in (
        ("a", image, None),
        ("b", small, "train"),
        ("t", other, "test"),
        ("f", flat, None),
    ):
        found.trained(record(name, shown, split), phash(shown))
    again = Image.open(io.BytesIO(encoded(image, "JPEG", quality=80)))
    for name, shown in (("same#1", image), ("same#2", image), ("again#1", again), ("again#2", again)):
        found.tested("ddvqa", record(name, shown), phash(shown))
    found.tested("loki", record("white", Image.new("RGB", (8, 8), "white")), None)
    found.tested("loki", record("split", other), phash(other))
    frame = found.frame()
    assert list(frame.columns) == COLUMNS
    distance = apart(image, again)
    assert frame.values.tolist() == [
        ["ddvqa", "again", "a" if distance <= apart(small, again) else "b", "perceptual", distance],
        ["ddvqa", "same", "a", "content", 0],
    ]
    assert found.flat == {"training": 1, "loki": 1}


def test_collect_reports_re_encoded_copies_and_drops_nothing(tmp_path: Path) -> None:
    put(tmp_path / "genimage/ADM/train/nature/n1_1.JPEG", encoded(drawn(1), "JPEG", quality=95))
    put(tmp_path / "genimage/ADM/train/nature/n1_2.JPEG", encoded(drawn(2), "JPEG", quality=95))
    put(tmp_path / "dmimage/real_ucid/copy.jpg", encoded(drawn(1).resize((80, 80)), "JPEG", quality=70))
    put(tmp_path / "dmimage/dalle_2/other.jpg", encoded(drawn(3)))
    corpora = {"genimage": tmp_path / "genimage", "dmimage": tmp_path / "dmimage"}
    found = collect(settings(**corpora), tmp_path / "out")
    (row,) = found.leakage.to_dict("records")
    assert (row["path"], row["train_path"]) == (
        "dmimage/real/real_ucid/copy.jpg",
        "genimage/real/adm/n1_1.JPEG",
    )
    assert row["kind"] == "perceptual"
    assert 0 <= row["distance"] <= 4
    assert found.benchmarks == {"dmimage": 2}
    assert collect(settings(**corpora, leakage_distance=0), tmp_path / "out").leakage.empty == bool(
        row["distance"]
    )
