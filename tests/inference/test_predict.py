"""The one loop over records, in this process: in order, the same whatever the cache held."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinyllava
from fakevlm.cache import Cache
from fakevlm.data.records import Record, write_records
from fakevlm.data.shards import Records
from fakevlm.inference.predict import Columns, Predictor, predict


class Counting:
    """Mean brightness and the sum of each channel of an image; keeps count."""

    def __init__(self) -> None:
        self.loaded, self.batches = 0, []

    def load(self) -> "Counting":
        self.loaded += 1
        return self

    def __call__(self, images: list[Image.Image]) -> Columns:
        self.batches.append(len(images))
        pixels = [np.asarray(image, np.int64) for image in images]
        return {
            "mean": np.array([p.mean() for p in pixels]),
            "sums": np.array([p.sum((0, 1)) for p in pixels]),
        }


RECORDS = tinyllava.records(11)


def check(predictor: Predictor, records: list[Record], cache: Cache | None = None) -> None:
    columns, expected = predict(predictor, records, cache), Counting()([record.pil() for record in records])
    assert columns.keys() == expected.keys()
    for name, values in expected.items():
        assert columns[name].dtype == values.dtype
        np.testing.assert_array_equal(columns[name], values)


def test_columns_are_in_the_records_order_and_the_model_is_loaded_once(tmp_path: Path) -> None:
    write_records(RECORDS, tmp_path / "records", shard_rows=3)
    model = Counting()
    predictor = Predictor(model.load, "k", 4)
    assert predict(predictor, []) == {}
    assert model.loaded == 0
    check(predictor, Records(tmp_path / "records"))
    check(predictor, RECORDS[:2])
    assert (model.batches, model.loaded) == ([4, 4, 3, 2], 1)
    check(Predictor(model.load, "k", 4, lambda questions: [10, 0, *range(9, 0, -1)]), RECORDS)


def test_a_value_fits_only_what_made_it() -> None:
    cache = Cache(None)

    def batches(key: str, size: int, records: list[Record]) -> int:
        model = Counting()
        check(Predictor(model.load, key, size), records, cache)
        return len(model.batches)

    assert [batches(*each, RECORDS) for each in (("k", 4), ("other weights", 4), ("k", 5))] == [3, 3, 3]
    assert batches("k", 4, [*tinyllava.records(4, seed=1), *RECORDS[4:]]) == 1, "one batch of other images"
    asked = [replace(r, question="Is it?") for r in RECORDS[8:]]
    assert batches("k", 4, [*RECORDS[:8], *asked]) == 1, "one batch with other questions"
    assert batches("k", 4, RECORDS) == 0


def test_a_model_that_drops_an_image_is_found_out() -> None:
    dropping = Predictor(lambda: lambda images: {"mean": np.zeros(len(images) - 1)}, "k", 4)
    with pytest.raises(ValueError, match="3 values of mean for 4 images"):
        predict(dropping, RECORDS)
