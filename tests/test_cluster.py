"""Stages on a local Ray cluster of two worker processes: what one process says, also where one of the two is killed."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import publishedweights
import tinyllava
from fakevlm.categorize import assign, eva
from fakevlm.categorize.synsets import FOUR
from fakevlm.config.params import Cluster, PublishedExpert, load_params
from fakevlm.errors import UserError
from fakevlm.evaluation import detectors, methods
from fakevlm.evaluation.experts import train_experts
from fakevlm.inference import batchwise, cluster, engines, prediction
from fakevlm.inference.batchwise import Viewer
from fakevlm.model.features import load_features
from publishedweights import checkpoint

pytestmark = pytest.mark.slow  # Ray takes seconds to start, and each worker loads torch

TWO = Cluster(address=None, workers=2, gpus_per_worker=0.0)
ONE = TWO.model_copy(update={"workers": 1})
QUESTIONS = (None, "Does the person's skin look real/fake?", "Is it?")


@pytest.fixture(scope="module")
def ray() -> Iterator:
    with cluster.connected(TWO):
        import ray

        yield ray
    assert not ray.is_initialized()


def _doubler() -> type:
    """A worker without a model. Ray's workers do not know this module, so the class must travel as a whole."""

    class Doubler:
        def __init__(self, refuse: int | None = None, die: int | None = None) -> None:
            self.refuse, self.die = refuse, die

        def __call__(self, batch: dict) -> dict:
            number = batch["number"]
            if number == self.refuse:
                raise UserError("this one not", "leave it out")
            if number == self.die:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"number": number, "twice": [2 * byte for byte in batch["image"][0]], "pid": os.getpid()}

    return Doubler


def _numbers(count: int) -> Iterator[dict]:
    return ({"number": n, "image": [bytes([n])]} for n in range(count))


def test_every_batch_comes_back_once_over_several_windows(ray, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "WINDOW", 6 * pa.Table.from_pylist(list(_numbers(1))).nbytes)
    found = list(cluster.run(_numbers(11), _doubler(), {}, ONE))
    assert sorted((row["number"], *row["twice"]) for row in found) == [(n, 2 * n) for n in range(11)]
    workers = [{row["pid"] for row in found if (row["number"] < 6) == early} for early in (True, False)]
    assert workers[0].isdisjoint(workers[1]), "each window has workers of its own"
    assert os.getpid() not in workers[0] | workers[1]


def test_what_a_worker_refuses_reaches_the_user(ray) -> None:
    with pytest.raises(UserError, match="this one not\n  → leave it out"):
        list(cluster.run(_numbers(4), _doubler(), {"refuse": 2}, ONE))


def test_a_batch_that_ends_everybody_ends_the_run(ray, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "_ATTEMPTS", 2)
    with pytest.raises(UserError, match="died again and again"):
        list(cluster.run(_numbers(3), _doubler(), {"die": 1}, ONE))


def test_ray_reports_to_nobody(ray) -> None:
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()


def test_a_start_that_takes_too_long_is_tried_again(monkeypatch) -> None:
    import ray

    tries = []

    def slow(**options) -> None:
        tries.append(options)
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", slow)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(Exception, match="timed out"):
        cluster._start(TWO, {"address": "local"})
    assert tries == 3 * [{"address": "local"}]


def test_a_cluster_that_is_not_there_is_named(monkeypatch) -> None:
    import ray

    def nobody(**options) -> None:
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(ray, "init", nobody)
    with pytest.raises(UserError, match="no Ray cluster at 'auto': Could not find"):
        cluster._start(TWO.model_copy(update={"address": "auto"}), {})


def test_gpus_that_no_machine_has_are_not_waited_for(ray) -> None:
    greedy = TWO.model_copy(update={"gpus_per_worker": 500.0})
    with pytest.raises(UserError, match="2 workers with 500 each need 1000"):
        list(cluster.run(_numbers(1), _doubler(), {}, greedy))


def test_without_batches_nothing_starts() -> None:
    nowhere = Cluster(address="192.0.2.1:1", workers=1, gpus_per_worker=0.0)
    assert list(cluster.run([], _doubler(), {}, nowhere)) == []


def _mortal(worker: type, folder: Path, number: str):
    """A worker that is killed (-9) in the middle of its batch number 4, once; it notes what it does.

    Args:
        worker: whose work it does.
        folder: of the notes.
        number: key of a batch's number.
    """

    class Mortal(worker):
        def __init__(self, **arguments) -> None:
            super().__init__(**arguments)
            (folder / f"worker-{os.getpid()}").touch()

        def __call__(self, sent: dict) -> dict:
            deadline = time.monotonic() + 60  # both are to take part
            while len(list(folder.glob("worker-*"))) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            with (folder / f"batch-{sent[number]}").open("a") as log:
                log.write(f"{os.getpid()}\n")
            answer = super().__call__(sent)
            if sent[number] == 4 and not (folder / "killed").exists():
                (folder / "killed").write_text(str(os.getpid()))
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

    return Mortal


def _one_was_killed(notes: Path, batches: list[int]) -> None:
    killed = (notes / "killed").read_text()
    tried = {int(f.name.split("-")[1]): f.read_text().split() for f in notes.glob("batch-*")}
    assert sorted(tried) == batches
    assert tried[4][0] == killed
    assert len(tried[4]) == 2, "done again, by whoever"
    assert len(list(notes.glob("worker-*"))) >= 3, "two, and one started anew"


def test_with_one_worker_killed_the_result_is_that_of_one_process(ray, tmp_path, monkeypatch) -> None:
    folder, journal, notes = tinyllava.build(tmp_path / "model"), tmp_path / "journal", tmp_path / "notes"
    notes.mkdir()
    records = tinyllava.records(25, questions=QUESTIONS)
    params = tinyllava.params(folder, evaluate={"batch_size": 3}).model_copy(update={"cluster": TWO})
    monkeypatch.setattr(engines, "Asked", _mortal(engines.Asked, notes, "number"))
    disturbed = engines.speaker(params, folder, "test")(records, 8, journal)

    model, processor = engines.load_model(folder), engines.load_processor(folder)
    undisturbed = prediction.predict(model, processor, records, batch_size=3, max_new_tokens=8)
    pd.testing.assert_frame_equal(disturbed, undisturbed, check_exact=True)
    assert disturbed["id"].tolist() == [record.id for record in records]

    _one_was_killed(notes, batches=list(range(9)))
    assert len(list(journal.glob("part-*.parquet"))) == 9

    # Begun on Ray, gone on with here: nothing is asked again.
    monkeypatch.setattr(prediction, "_answer", None)
    alone = params.model_copy(update={"cluster": None})
    resumed = engines.speaker(alone, folder, "test")(records, 8, journal)
    pd.testing.assert_frame_equal(resumed, undisturbed, check_exact=True)


def test_features_are_those_of_one_process_with_one_worker_killed(ray, tmp_path, monkeypatch) -> None:
    folder, notes = tinyllava.build(tmp_path / "model"), tmp_path / "notes"
    notes.mkdir()
    records, load = tinyllava.records(17), partial(load_features, str(folder), "float32")
    alone = Viewer(load, "k", 2, None).look(records, None, "alone")
    monkeypatch.setattr(batchwise, "Looking", _mortal(batchwise.Looking, notes, "start"))
    shared = Viewer(load, "k", 2, TWO).look(records, tmp_path / "journal", "shared")
    assert shared.keys() == alone.keys() == {"vision", "last", "mean"}
    for name in alone:
        np.testing.assert_array_equal(shared[name], alone[name])
    _one_was_killed(notes, batches=list(range(0, 17, 2)))
    # Begun there, gone on with here: nothing is looked at again.
    resumed = Viewer(_nobody, "k", 2, None).look(records, tmp_path / "journal", "resumed")
    np.testing.assert_array_equal(resumed["last"], alone["last"])


def _nobody() -> None:
    raise AssertionError("nothing should be loaded")


def test_detectors_and_the_classifier_give_what_they_give_here(ray, project, tmp_path) -> None:
    """From files that the stages make: an expert, a published detector, EVA-02 with a person head beside it."""
    here = load_params("mini")
    tiny = {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "batch_size": 3}
    model = eva.build(here.categorize.model_copy(update=tiny), seed=1)
    eva.save(eva.wrap(model, list(FOUR)), tmp_path / "eva")
    changes = {"model": str(tmp_path / "eva"), "batch_size": 3}
    evaluate = here.evaluate.model_copy(update={"batch_size": 3, "methods": ["Frequency"]})
    here = here.model_copy(
        update={"categorize": here.categorize.model_copy(update=changes), "evaluate": evaluate}
    )
    records = tinyllava.records(16)
    train_experts(here, records, records, project / "artifacts/experts", ["frequency"])
    weights = checkpoint(tmp_path / "cnnspot.pth", {"model": publishedweights.weights("cnnspot")})
    published = PublishedExpert(name="CNNSpot", kind="cnnspot", weights=weights)

    # One worker: three models are loaded by it; what two make is the tests' above.
    there = here.model_copy(update={"cluster": TWO.model_copy(update={"workers": 1})})
    asked = tinyllava.records(11, seed=3)
    for params in (here, there):
        journal = tmp_path / str(params.cluster)
        found = methods.answers("Frequency", params, asked, journal)
        by_others = detectors.answers(published, params, asked, journal)
        categories, _ = assign.classify(asked, tmp_path / "eva", params, journal)
        if params is here:
            wanted = found, by_others, categories
    for mine, theirs in zip((found, by_others, categories), wanted, strict=True):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    assert found["p_fake"].nunique() > 5
    assert categories["confidence"].nunique() > 5
