"""Batches over the worker processes of a Ray cluster, on this machine or on many, by Ray Data.

Each worker loads its model once. Only batches' numbers travel through Ray Data; a worker fetches the records
from a reader beside this process, so that memory does not grow with them and no folder of images has to be
visible elsewhere. A worker that dies is started again, with its batches. On several machines each needs the
package, and the model's folder under the same path (or a name on the hub).
"""

import contextlib
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fakevlm import paths
from fakevlm.cache import pack, unpack
from fakevlm.config.params import Cluster
from fakevlm.data.records import Record
from fakevlm.data.shards import take
from fakevlm.errors import UserError
from fakevlm.inference.predict import prepare

_STORE = 1 << 30  # bytes of the object store of a cluster of this machine
_BLOCKS = 5000  # parts that the batches of a run are given out in, at most
_IN_FLIGHT = 2  # batches a worker has at a time: it reads and decodes one while it computes another
_STARTS = 3  # of a cluster of this machine
_ATTEMPTS = 4  # at one batch; one that ends so many workers would end them all


@contextlib.contextmanager
def connected(cluster: Cluster | None) -> Iterator[None]:
    """Connect to Ray at `cluster.address`, or start it here; leave or end it afterwards.

    Nothing happens where `cluster` is null, or Ray is connected already: for several runs Ray starts once.

    Raises:
        UserError: there is no cluster at that address.
    """
    if cluster is None:
        yield
        return
    # Read when Ray starts: it is to report nothing to its makers, nor warn about its own inner workings.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # At Ray's own niceness of 15 its workers starve beside other work.
    os.environ.setdefault("RAY_worker_niceness", "0")
    if cluster.address is None:
        # Ray's switch for systems on which it joins no machines: all its servers listen on loopback alone.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address is None:  # whatever RAY_ADDRESS says
        options |= {"address": "local", "num_cpus": cluster.workers, "object_store_memory": _STORE}
        options["include_dashboard"] = False
    else:
        options["address"] = cluster.address
    _start(cluster, options)
    try:
        yield
    finally:
        ray.shutdown()


def _start(cluster: Cluster, options: dict[str, Any]) -> None:
    import ray

    for attempt in range(_STARTS):
        try:
            ray.init(**options)
            return
        except (ConnectionError, ValueError) as error:
            raise UserError(
                f"no Ray cluster at {cluster.address!r}: {str(error).splitlines()[0]}",
                "start one (`ray start --head`, then `ray start --address=…` on the others), "
                "or set cluster.address to null",
            ) from error
        except Exception as error:  # Ray raises nothing more special when it takes too long
            ray.shutdown()
            # On a busy machine Ray's own helpers miss a fixed limit of 15 s (ray-project/ray#65983).
            if "timed out during startup" not in str(error) or attempt == _STARTS - 1:
                raise


def run(
    load: Callable[[], Callable[[Any], dict]],
    records: Sequence[Record],
    plan: list[list[int]],
    numbers: list[int],
    cluster: Cluster,
) -> Iterator[tuple[int, dict]]:
    """Yield each batch's number and columns as it is done. Without batches nothing starts.

    `load` and `plan` are those of `predict.Predictor`, `numbers` those of the batches to compute.

    Raises:
        UserError: no cluster, not enough GPUs in it, a worker's own UserError, or a batch that ended all who
            tried it.
    """
    if not numbers:
        return
    with connected(cluster):
        import ray
        import ray.data
        import torch
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = ray.cluster_resources().get("GPU", 0)
        wanted = cluster.workers * cluster.gpus_per_worker
        if wanted > there:  # Ray would wait for them for ever
            raise UserError(
                f"the Ray cluster has {there:g} GPUs; {cluster.workers} workers with "
                f"{cluster.gpus_per_worker:g} each need {wanted:g}",
                "lower cluster.workers or gpus_per_worker, or add machines",
            )
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "scheduling_strategy": here, "max_restarts": -1, "max_task_retries": -1}
        reader = ray.remote(_Reader).options(**options).remote(ray.put(records), plan)
        threads = None if cluster.gpus_per_worker else torch.get_num_threads()
        # Its log says when a data set starts and ends; failures are raised.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        ray.data.DataContext.get_current().enable_progress_bars = False  # ours counts images
        with warnings.catch_warnings():
            # `ray_remote_args_fn` goes with Ray 2.64, which has no other way for it yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            done = ray.data.from_items(
                [{"number": n} for n in numbers], override_num_blocks=min(len(numbers), _BLOCKS)
            ).map_batches(
                _Worker,
                fn_constructor_args=(load, reader, threads, str(paths.root())),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(size=cluster.workers, enable_true_multi_threading=True),
                num_cpus=1,
                num_gpus=cluster.gpus_per_worker or None,
                max_concurrency=_IN_FLIGHT,
                # Ray's own setting is to try for ever.
                ray_remote_args_fn=lambda: {"max_task_retries": _ATTEMPTS - 1},
            )
        try:
            for row in done.iter_rows():
                if row["error"]:
                    raise UserError(row["error"])
                yield int(row["number"]), unpack(row["columns"])
        except (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError) as error:
            raise UserError(
                f"Ray workers died again and again: {str(error).splitlines()[0]}",
                "is memory short? then lower batch_size or cluster.workers; what is done is kept",
            ) from error
        finally:
            ray.kill(reader)


class _Reader:
    """Reads records by number, on the machine where they lie."""

    def __init__(self, records: Sequence[Record], plan: list[list[int]]) -> None:
        self.records, self.plan = records, plan

    def batch(self, number: int) -> list[Record]:
        return list(take(self.records, self.plan[number]))


class _Worker:
    """Holds the model. One batch's number in, its columns out.

    A UserError comes back as a row too: Ray keeps of an exception only its text, under pages of its own.
    """

    def __init__(self, load: Callable, reader: Any, threads: int | None, root: str) -> None:
        os.environ["FAKEVLM_ROOT"] = root  # what relative paths of params.yaml are relative to
        if threads:  # as many as the process has that sends the batches: sums depend on how many share them
            import torch
            from threadpoolctl import threadpool_limits

            torch.set_num_threads(threads)
            threadpool_limits(threads)
        self.reader, self.computing, self.error = reader, threading.Lock(), ""
        try:
            self.model = load()
        except UserError as error:
            self.error = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list]:
        import ray

        (number,), columns, refusal = batch["number"], b"", self.error
        if not refusal:
            try:
                inputs = prepare(self.model, ray.get(self.reader.batch.remote(int(number))))
                with self.computing:
                    columns = pack(self.model(inputs))
            except UserError as error:
                refusal = str(error)
        return {"number": [number], "columns": [columns], "error": [refusal]}
