"""What a model makes of images, in one process: every image once, in order, kept over a kill. (On a cluster: test_cluster.)"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinyllava
from fakevlm.data.records import Record, write_records
from fakevlm.data.shards import Records
from fakevlm.inference import batchwise
from fakevlm.inference.batchwise import Columns, Viewer


class Counting:
    """Mean brightness and the sum of each channel of an image; keeps count, and may die at a batch."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.loaded, self.batches, self.dies_at = 0, [], dies_at

    def load(self) -> "Counting":
        self.loaded += 1
        return self

    def __call__(self, images: list[Image.Image]) -> Columns:
        if len(self.batches) == self.dies_at:
            raise KeyboardInterrupt
        self.batches.append(len(images))
        pixels = [np.asarray(image, np.int64) for image in images]
        return {
            "mean": np.array([p.mean() for p in pixels]),
            "sums": np.array([p.sum((0, 1)) for p in pixels]),
        }


@pytest.fixture
def records() -> list[Record]:
    return tinyllava.records(11)


def expected(records: list[Record]) -> Columns:
    return Counting()([record.pil() for record in records])


def same(found: Columns, records: list[Record]) -> None:
    wanted = expected(records)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def test_columns_are_in_the_records_order_and_the_model_is_loaded_once(records, tmp_path) -> None:
    write_records(records, tmp_path / "records", shard_rows=3)
    model = Counting()
    viewer = Viewer(model.load, "k", 4, None)
    same(viewer.look(Records(tmp_path / "records"), None, "test"), records)
    same(viewer.look(records[:2], None, "test"), records[:2])
    assert (model.batches, model.loaded) == ([4, 4, 3, 2], 1)


def test_no_records_are_no_columns_and_load_nothing() -> None:
    model = Counting()
    assert Viewer(model.load, "k", 4, None).look([], None, "test") == {}
    assert model.loaded == 0


def test_after_a_kill_nothing_is_looked_at_twice(records, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Viewer(Counting(dies_at=2).load, "k", 3, None).look(records, tmp_path, "test")
    assert len(list(tmp_path.glob("part-*.npz"))) == 2
    assert not list(tmp_path.glob("*.tmp"))
    model = Counting()
    same(Viewer(model.load, "k", 3, None).look(records, tmp_path, "test"), records)
    assert model.batches == [3, 2]
    idle = Counting()
    same(Viewer(idle.load, "k", 3, None).look(records, tmp_path, "test"), records)
    assert idle.loaded == 0


def test_a_journal_fits_only_what_made_it(records, tmp_path, monkeypatch) -> None:
    def batches(key: str, size: int, seen: list[Record]) -> int:
        model = Counting()
        same(Viewer(model.load, key, size, None).look(seen, tmp_path, "test"), seen)
        return len(model.batches)

    assert batches("k", 4, records) == 3
    assert batches("other weights", 4, records) == 3
    assert batches("k", 5, records) == 3
    assert batches("k", 4, [*tinyllava.records(4, seed=1), *records[4:]]) == 1, "one batch of other images"
    assert batches("k", 4, records) == 0
    monkeypatch.setattr(batchwise, "code", lambda: "changed")
    assert batches("k", 4, records) == 3


def test_a_model_that_drops_an_image_is_found_out(records) -> None:
    viewer = Viewer(lambda: lambda images: {"mean": np.zeros(len(images) - 1)}, "k", 4, None)
    with pytest.raises(ValueError, match="3 values of mean for 4 images"):
        viewer.look(records, None, "test")


def test_a_fingerprint_is_of_names_and_contents(tmp_path: Path) -> None:
    prints = []
    for name, content in (("a", "1"), ("b", "1"), ("b", "2")):
        folder = tmp_path / str(len(prints))
        folder.mkdir()
        (folder / name).write_text(content)
        prints.append(batchwise.fingerprint(folder))
    assert len(set(prints)) == 3
    (tmp_path / "2" / "sub").mkdir()
    assert batchwise.fingerprint(tmp_path / "2") == prints[2], "folders in it are not the model's"
