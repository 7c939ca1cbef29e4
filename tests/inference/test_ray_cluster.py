"""A local Ray cluster of two workers gives what one process gives, also with one worker killed."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import psutil
import pytest

import tinyllava
from fakevlm.cache import Cache
from fakevlm.config.params import Cluster
from fakevlm.errors import UserError
from fakevlm.inference import generate, ray_cluster
from fakevlm.inference.predict import predict

pytestmark = pytest.mark.slow  # Ray takes seconds to start, and each worker loads torch

TWO = Cluster(address=None, workers=2, gpus_per_worker=0.0)
ONE = TWO.model_copy(update={"workers": 1})


@pytest.fixture(scope="module")
def ray() -> Iterator:
    with ray_cluster.connected(TWO):
        import ray
        from ray._common.usage.usage_lib import usage_stats_enabled

        assert not usage_stats_enabled(), "it reports to nobody"
        yield ray
    assert not ray.is_initialized()


def test_a_cluster_of_this_machine_listens_on_loopback_alone(ray) -> None:
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    sockets = [each for process in processes for each in process.net_connections("inet")]
    addresses = {each.laddr.ip for each in sockets if each.status == psutil.CONN_LISTEN}
    assert {"127.0.0.1"} <= addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def _faulty(fault: str):
    """Load a model with a fault. Nested: it must travel whole."""

    def load():
        def model(images: list) -> dict:
            if fault == "refuses":
                raise UserError("this one not", "leave it out")
            os.kill(os.getpid(), signal.SIGKILL)

        return model

    return load


def _run(load, count: int, where: Cluster) -> dict[int, dict]:
    plan = [[n] for n in range(count)]
    return dict(ray_cluster.run(load, tinyllava.records(count), plan, list(range(count)), where))


@pytest.mark.parametrize(
    ("fault", "message"), [("refuses", "this one not\n  → leave it out"), ("dies", "died again and again")]
)
def test_what_a_worker_refuses_or_dies_of_is_told(ray, monkeypatch, fault: str, message: str) -> None:
    monkeypatch.setattr(ray_cluster, "_ATTEMPTS", 1)
    with pytest.raises(UserError, match=message):
        _run(_faulty(fault), 3, ONE)


def test_a_worker_prepares_a_batch_while_it_computes_another(ray) -> None:
    def load():
        prepared, waiting = threading.Semaphore(0), [2, 1, 1, 0]  # the first waits for the second, and so on

        def model(_: object) -> dict:
            return {"ahead": np.array([all([prepared.acquire(timeout=60) for _ in range(waiting.pop(0))])])}

        model.prepare = lambda records: prepared.release()
        return model

    assert [columns["ahead"].all() for columns in _run(load, 4, ONE).values()] == [True] * 4


def test_a_cluster_that_is_not_there_is_named(monkeypatch) -> None:
    monkeypatch.setattr("ray.init", Mock(side_effect=ConnectionError("Could not find any running Ray.")))
    with pytest.raises(UserError, match="no Ray cluster at 'auto': Could not find"):
        ray_cluster._start(TWO.model_copy(update={"address": "auto"}), {})


def test_gpus_that_no_machine_has_are_not_waited_for(ray) -> None:
    greedy = TWO.model_copy(update={"gpus_per_worker": 500.0})
    with pytest.raises(UserError, match="2 workers with 500 each need 1000"):
        _run(None, 1, greedy)
    assert _run(None, 0, greedy) == {}, "without batches nothing starts"


def _mortal(load, folder: Path):
    """The model of `load`, killed (-9) in the middle of its fifth batch, once; it notes what it does."""

    def mortal():
        model = load()
        (folder / f"worker-{os.getpid()}").touch()

        def compute(inputs):
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

        compute.prepare = model.prepare
        return compute

    return mortal


def test_with_one_worker_killed_the_result_is_that_of_one_process(ray, base: Path, tmp_path: Path) -> None:
    records = tinyllava.records(25, questions=tinyllava.QUESTIONS)
    predictor = generate.predictor(base, "fp32", batch_size=3, max_new_tokens=8)
    alone = predict(predictor, records)
    with Cache(tmp_path / "c.sqlite") as cache:
        mortal = replace(predictor, load=_mortal(predictor.load, tmp_path))
        disturbed = predict(mortal, records, cache, cluster=TWO)
        assert (tmp_path / "killed").exists()
        assert len(list(tmp_path.glob("worker-*"))) == 3, "two, one started anew, each loads once"
        # Begun on Ray, gone on with here: nothing is computed again.
        resumed = predict(replace(predictor, load=None), records, cache)
    for columns in (disturbed, resumed):
        np.testing.assert_equal(columns, alone)
