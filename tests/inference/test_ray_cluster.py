"""A local Ray cluster of two workers gives what one process gives, also with one worker killed."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import tinyllava
from fakevlm.cache import Cache
from fakevlm.config.params import Cluster
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.inference import generate, ray_cluster
from fakevlm.inference.predict import Predictor, predict
from fakevlm.study import load_features

pytestmark = pytest.mark.slow  # Ray takes seconds to start, and each worker loads torch

TWO = Cluster(address=None, workers=2, gpus_per_worker=0.0)
ONE = TWO.model_copy(update={"workers": 1})
QUESTIONS = (None, "Does the person's skin look real/fake?", "Is it?")


@pytest.fixture(scope="module")
def ray() -> Iterator:
    with ray_cluster.connected(TWO):
        import ray
        from ray._common.usage.usage_lib import usage_stats_enabled

        assert not usage_stats_enabled(), "it reports to nobody"
        yield ray
    assert not ray.is_initialized()


def _twice(refuse: int = 255, die: int = 255):
    """Load a model that returns twice an image's byte, and its process. Nested: it must travel whole."""

    def load():
        class Model:
            prepare = staticmethod(lambda records: [record.image for record in records])

            def __call__(self, images: list[bytes]) -> dict:
                if images[0] == bytes([refuse]):
                    raise UserError("this one not", "leave it out")
                if images[0] == bytes([die]):
                    os.kill(os.getpid(), signal.SIGKILL)
                numbers = [int(image[0]) for image in images]
                return {"twice": 2 * np.array(numbers), "pid": np.full(len(images), os.getpid())}

        return Model()

    return load


def _run(count: int, where: Cluster, **changes) -> dict[int, dict]:
    records = [Record(str(n), bytes([n]), 0, "x", str(n)) for n in range(count)]
    plan = [[n] for n in range(count)]
    return dict(ray_cluster.run(_twice(**changes), records, plan, list(range(count)), where))


def test_every_batch_comes_back_once_from_one_worker_for_the_run(ray) -> None:
    columns = _run(60, ONE)
    assert {n: values["twice"].tolist() for n, values in columns.items()} == {n: [2 * n] for n in range(60)}
    workers = {int(values["pid"][0]) for values in columns.values()}
    assert len(workers) == 1
    assert os.getpid() not in workers


def test_what_a_worker_refuses_reaches_the_user(ray) -> None:
    with pytest.raises(UserError, match="this one not\n  → leave it out"):
        _run(4, ONE, refuse=2)


def test_a_batch_that_ends_everybody_ends_the_run(ray, monkeypatch) -> None:
    monkeypatch.setattr(ray_cluster, "_ATTEMPTS", 2)
    with pytest.raises(UserError, match="died again and again"):
        _run(3, ONE, die=1)


def test_a_cluster_that_is_not_there_is_named(monkeypatch) -> None:
    import ray

    def nobody(**options) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", nobody)
    with pytest.raises(UserError, match="no Ray cluster at 'auto': Could not find"):
        ray_cluster._start(TWO.model_copy(update={"address": "auto"}), {})


def test_gpus_that_no_machine_has_are_not_waited_for(ray) -> None:
    greedy = TWO.model_copy(update={"gpus_per_worker": 500.0})
    with pytest.raises(UserError, match="2 workers with 500 each need 1000"):
        _run(1, greedy)
    assert _run(0, greedy) == {}, "without batches nothing starts"


def _mortal(load, folder: Path):
    """The model of `load`, killed (-9) in the middle of its fifth batch, once; it notes what it does."""

    def mortal():
        model = load()
        (folder / f"worker-{os.getpid()}").touch()

        class Mortal:
            if hasattr(model, "prepare"):
                prepare = model.prepare

            def __call__(self, inputs):
                deadline = time.monotonic() + 60  # both are to take part
                while len(list(folder.glob("worker-*"))) < 2 and time.monotonic() < deadline:
                    time.sleep(0.05)
                columns = model(inputs)
                with (folder / "batches").open("a") as log:
                    log.write("x")
                if len((folder / "batches").read_text()) >= 5 and not (folder / "killed").exists():
                    (folder / "killed").touch()
                    os.kill(os.getpid(), signal.SIGKILL)
                return columns

        return Mortal()

    return mortal


@pytest.mark.parametrize("what", ["words", "features"])
def test_with_one_worker_killed_the_result_is_that_of_one_process(ray, tmp_path, what: str) -> None:
    folder, notes = tinyllava.build(tmp_path / "model"), tmp_path / "notes"
    notes.mkdir()
    records = tinyllava.records(25, questions=QUESTIONS if what == "words" else (None,))
    predictor = Predictor(partial(load_features, str(folder), "float32"), "k", 3)
    if what == "words":
        predictor = generate.predictor(folder, "float32", batch_size=3, max_new_tokens=8)
    alone = predict(predictor, records)
    with Cache(tmp_path / "c.sqlite") as cache:
        mortal = replace(predictor, load=_mortal(predictor.load, notes))
        disturbed = predict(mortal, records, cache, cluster=TWO)
        assert (notes / "killed").exists()
        assert len(list(notes.glob("worker-*"))) >= 3, "two, and one started anew"
        assert len(cache) == 9
        # Begun on Ray, gone on with here: nothing is computed again.
        resumed = predict(replace(predictor, load=None), records, cache)
    for columns in (disturbed, resumed):
        np.testing.assert_equal(columns, alone)
