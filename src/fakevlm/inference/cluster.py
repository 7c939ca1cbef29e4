"""Batches over the worker processes of a Ray cluster, on this machine or on many, by Ray Data's actor pool.

Each worker makes its object once (a model takes a minute to load) and is given batch after batch. What makes the result is
not touched: the caller cuts the batches, a batch is one row of Ray's data set and is never merged or cut, and every one comes
back exactly once. A worker that dies is started again and its batches are done again, by Ray. Batches go out in windows of
bounded size, so memory does not grow with their number; the workers start anew with each window.

On several machines: the package installed and a model's folder visible under the same path on each, or a name on the hub.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from fakevlm import paths
from fakevlm.config.params import Cluster
from fakevlm.errors import UserError

WINDOW = 512 << 20  # bytes of batches in the object store at a time
_STORE = 2 * WINDOW  # of a cluster of this machine: a window and the answers to it
_STARTS = 3  # of a cluster of this machine
_REFUSED = "refused by the worker"  # a column that no worker has
_ATTEMPTS = 4  # at one batch; one that ends so many workers would end them all


@contextlib.contextmanager
def connected(cluster: Cluster | None) -> Iterator[None]:
    """Ray, reached at `cluster.address` or started here; left, or ended, afterwards. One that runs already is used as it is.

    Around several runs it spares starting Ray anew for each. Nothing happens where `cluster` is null.

    Raises:
        UserError: there is no cluster at that address.
    """
    if cluster is None:
        yield
        return
    # Read when Ray starts: it is to report nothing to its makers. Its warnings about its own inner workings (level of the
    # C++ part) would stand in every log.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address is None:
        options |= {"num_cpus": cluster.workers, "include_dashboard": False, "object_store_memory": _STORE}
        options |= {"address": "local"}  # whatever RAY_ADDRESS says
    else:
        options |= {"address": cluster.address}
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
                "start one (`ray start --head`, then `ray start --address=…` on the others), or set cluster.address to null",
            ) from error
        except Exception as error:  # Ray raises nothing more special when it takes too long
            ray.shutdown()
            # On a busy machine Ray's own helpers miss a limit of 15 s that cannot be set (ray-project/ray#65983).
            if "timed out during startup" not in str(error) or attempt == _STARTS - 1:
                raise


def run(
    batches: Iterable[dict[str, Any]], worker: type, arguments: dict[str, Any], cluster: Cluster
) -> Iterator[dict[str, Any]]:
    """What a worker makes of each batch, as it is done, in any order. Starts nothing where there are no batches.

    Args:
        batches: each a dict of what Arrow can hold (bytes, text, numbers, lists of them); taken one by one.
        worker: made once in every worker process as `worker(**arguments)`; called with a batch it gives back such a dict.
        arguments: of the worker.
        cluster: where, how many workers, and GPUs for each.

    Raises:
        UserError: no cluster, not enough GPUs in it, a worker's own UserError, or a batch that ended all who tried it.
    """
    waiting = iter(batches)
    first = next(waiting, None)
    if first is None:
        return
    waiting = chain([first], waiting)
    with connected(cluster):
        _check(cluster)
        while window := _window(waiting):
            yield from _run(window, worker, arguments, cluster)


def _check(cluster: Cluster) -> None:
    """Ray would wait for ever for GPUs that no machine has."""
    import ray

    wanted, found = cluster.workers * cluster.gpus_per_worker, ray.cluster_resources().get("GPU", 0)
    if wanted > found:
        raise UserError(
            f"the Ray cluster has {found:g} GPUs; {cluster.workers} workers with {cluster.gpus_per_worker:g} each need {wanted:g}",
            "lower cluster.workers or gpus_per_worker, or add machines",
        )


def _window(batches: Iterator[dict[str, Any]]) -> list[Any]:
    """Puts batches into the object store until a window is full; references to them."""
    import pyarrow as pa
    import ray

    references, size = [], 0
    for batch in batches:
        table = pa.Table.from_pylist([batch])
        references.append(ray.put(table))
        size += table.nbytes
        if size >= WINDOW:
            break
    return references


class _Caller:
    """One row in, one row out: the shape in which Ray Data calls a worker.

    What a worker refuses comes back as a row too: Ray keeps of an exception only its text, under pages of its own.
    """

    def __init__(self, worker: type, arguments: dict[str, Any], threads: int | None, root: str) -> None:
        os.environ["FAKEVLM_ROOT"] = root  # what relative paths of params.yaml are relative to
        if threads:
            _share(threads)
        try:
            self.worker = worker(**arguments)
        except UserError as error:
            self.worker = _Refusing(error)

    def __call__(self, table: Any) -> Any:
        import pyarrow as pa

        (batch,) = table.to_pylist()
        try:
            return pa.Table.from_pylist([self.worker(batch)])
        except UserError as error:
            return pa.Table.from_pylist([{_REFUSED: str(error)}])


def _share(threads: int) -> None:
    """Gives this worker as many threads as the process has that sends the batches: sums depend on how many share them."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(threads)
    threadpool_limits(threads)


class _Refusing:
    """A worker that could not be made."""

    def __init__(self, error: UserError) -> None:
        self.error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        raise self.error


def _run(
    window: list[Any], worker: type, arguments: dict[str, Any], cluster: Cluster
) -> Iterator[dict[str, Any]]:
    import ray
    import ray.data
    import torch

    threads = None if cluster.gpus_per_worker else torch.get_num_threads()
    # Its log says when a data set starts and ends, which is each window; failures are raised.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours counts images
    with warnings.catch_warnings():
        # The argument behind `_patience` goes with Ray 2.64, which has no other for it yet.
        warnings.simplefilter("ignore", DeprecationWarning)
        done = ray.data.from_arrow_refs(window).map_batches(
            _Caller,
            fn_constructor_args=(worker, arguments, threads, str(paths.root())),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=cluster.workers),
            num_cpus=1,
            num_gpus=cluster.gpus_per_worker or None,
            ray_remote_args_fn=_patience,
        )
    try:
        for row in done.iter_rows():
            if _REFUSED in row:
                raise UserError(row[_REFUSED])
            yield row
    except (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnavailableError) as error:
        raise UserError(
            f"Ray workers died again and again: {str(error).splitlines()[0]}",
            "is memory short? then lower batch_size or cluster.workers; what is done is kept",
        ) from error


def _patience() -> dict[str, int]:
    """How often a batch is tried; Ray's own setting is for ever (and workers are started again for ever, which may stay)."""
    return {"max_task_retries": _ATTEMPTS - 1}
