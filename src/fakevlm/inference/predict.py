"""The one loop that runs a model over records: here, or in the workers of a Ray cluster.

How batches are cut depends on the records and the batch size alone, and a batch is computed whole or taken
whole from the cache: the result is the same, bit for bit, whatever the cache held and wherever it was
computed (on like hardware).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from fakevlm import progress
from fakevlm.cache import Cache, key, pack, unpack
from fakevlm.config.params import Cluster
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of, take
from fakevlm.prefetch import prefetch

Columns = dict[str, np.ndarray]
_THREADS = 2  # batches prepared while the model computes


def in_order(questions: list[str | None], batch_size: int) -> list[list[int]]:
    """Cut the rows of n questions into batches, in their order."""
    rows = list(range(len(questions)))
    return [rows[n : n + batch_size] for n in range(0, len(rows), batch_size)]


@dataclass(frozen=True)
class Predictor:
    """A model, and everything that decides its answers.

    Attributes:
        load: return the model: a callable from prepared inputs to columns of n rows. Its method `prepare`
            makes the inputs of n records, in a thread; a model without one gets the decoded images. Called
            once in each process that computes.
        key: what decides the answers beside image and question: weights, settings, code (as JSON has it).
        batch_size: images at a time.
        plan: cuts n questions (None: the standard one) into batches of row numbers.
    """

    load: Callable[[], Callable[[Any], Columns]]
    key: Any
    batch_size: int
    plan: Callable[[list[str | None], int], list[list[int]]] = in_order

    @cached_property
    def model(self) -> Callable[[Any], Columns]:
        """The model in this process."""
        return self.load()


def predict(
    predictor: Predictor,
    records: Sequence[Record],
    cache: Cache | None = None,
    *,
    cluster: Cluster | None = None,
    desc: str = "predict",
) -> Columns:
    """Return the model's columns for n records, n rows in their order; no columns without records.

    Args:
        predictor: the model. It is not loaded if the cache holds everything.
        records: each is asked its own question or the standard one.
        cache: of whole batches; None: nothing is kept.
        cluster: where to compute; None: in this process.
        desc: of the progress bar.

    Raises:
        UserError: see `cluster.run`; and whatever the model raises.
    """
    frame = columns_of(records, ["sha256", "question"])
    questions = frame["question"].astype(object).where(frame["question"].notna(), None).tolist()
    plan = predictor.plan(questions, predictor.batch_size)
    hashes = frame["sha256"].tolist()
    keys = [key(predictor.key, [(hashes[row], questions[row]) for row in batch]) for batch in plan]
    columns: Columns = {}
    with progress.bar(len(records), desc) as bar:

        def store(number: int, values: Columns) -> None:
            for name, column in values.items():
                if name not in columns:
                    columns[name] = np.empty((len(records), *column.shape[1:]), column.dtype)
                columns[name][plan[number]] = column
            bar.update(len(plan[number]))

        def missing() -> Iterator[int]:
            for number in range(len(plan)):
                data = None if cache is None else cache.get(keys[number])
                if data is None:
                    yield number
                else:
                    store(number, unpack(data))

        if cluster is None:
            computed = _here(predictor, records, plan, missing())
        else:
            from fakevlm.inference import ray_cluster

            computed = ray_cluster.run(predictor.load, records, plan, list(missing()), cluster)
        for number, values in computed:
            for name, column in values.items():
                if len(column) != len(plan[number]):
                    raise ValueError(f"{desc}: {len(column)} values of {name} for {len(plan[number])} images")
            if cache is not None:
                cache.put(keys[number], pack(values))
            store(number, values)
    return columns


def prepare(model: Callable[[Any], Columns], records: list[Record]) -> Any:
    """Return what the model computes on: what its own `prepare` makes, or the decoded images."""
    if hasattr(model, "prepare"):
        return model.prepare(records)
    return [record.pil() for record in records]


def _here(
    predictor: Predictor, records: Sequence[Record], plan: list[list[int]], numbers: Iterable[int]
) -> Iterator[tuple[int, Columns]]:
    numbers = iter(numbers)
    first = next(numbers, None)
    if first is None:
        return
    model = predictor.model
    batches = ((n, list(take(records, plan[n]))) for n in chain([first], numbers))
    for n, inputs in prefetch(lambda batch: (batch[0], prepare(model, batch[1])), batches, threads=_THREADS):
        yield n, model(inputs)
