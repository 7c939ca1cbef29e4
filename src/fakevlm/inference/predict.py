"""The one loop that runs a model over records: here, in the workers of a Ray cluster, or behind servers.

How batches are cut depends on the records and the batch size alone, and a batch is computed whole or taken
whole from the cache: the result is the same, bit for bit, whatever the cache held and wherever it was
computed (on like hardware).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from fakevlm import progress
from fakevlm.cache import Cache, key, pack, unpack
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of, take
from fakevlm.errors import UserError
from fakevlm.prefetch import prefetch

if TYPE_CHECKING:
    from fakevlm.config.params import Cluster

Columns = dict[str, np.ndarray]
_THREADS = 2  # batches prepared while the model computes
_version = cache(version)


@dataclass(frozen=True)
class Predictor:
    """A model, and everything that decides its answers.

    Attributes:
        load: return the model: a callable from prepared inputs to columns of n rows. Its method `prepare`
            makes the inputs of n records, in a thread; a model without one gets the decoded images. Called
            once in each process that computes.
        key: what decides the answers beside image and question: weights, settings, code (as JSON has it).
        batch_size: images at a time.
        order: return the order in which the rows of n questions (None: the standard one) are computed.
    """

    load: Callable[[], Callable[[Any], Columns]]
    key: Any
    batch_size: int
    order: Callable[[list[str | None]], Sequence[int]] = lambda questions: range(len(questions))

    @cached_property
    def model(self) -> Callable[[Any], Columns]:
        """The model in this process."""
        return self.load()

    def batches(self, records: Sequence[Record]) -> tuple[list[list[int]], list[str]]:
        """Return the row numbers of each batch, and each batch's key in the cache."""
        frame = columns_of(records, ["sha256", "question"])
        questions = frame["question"].astype(object).where(frame["question"].notna(), None).tolist()
        rows, hashes = list(self.order(questions)), frame["sha256"].tolist()
        plan = [rows[n : n + self.batch_size] for n in range(0, len(rows), self.batch_size)]
        rounding = [*map(_version, ("torch", "transformers", "numpy")), os.environ.get("OMP_NUM_THREADS")]
        return plan, [
            key(self.key, rounding, [(hashes[row], questions[row]) for row in batch]) for batch in plan
        ]

    def compute(
        self, records: Sequence[Record], plan: list[list[int]], numbers: list[int]
    ) -> Iterator[tuple[int, Columns]]:
        """Yield the numbers of batches and their columns, computed in this process."""
        if numbers:
            model = self.model
            batches = (list(take(records, plan[n])) for n in numbers)
            inputs = prefetch(partial(prepare, model), batches, threads=_THREADS)
            yield from zip(numbers, map(model, inputs), strict=True)

    def note(self) -> str:
        """Return a few words for the progress line."""
        return ""


def predict(
    predictor: Any,
    records: Sequence[Any],
    cache: Cache | None = None,
    *,
    cluster: "Cluster | None" = None,
    desc: str = "predict",
) -> Columns:
    """Return the model's columns for n records, n rows in their order; no columns without records.

    Args:
        predictor: a `Predictor`, or a model that is asked by requests (`ask.RequestPredictor`). A model is
            not loaded if the cache holds everything.
        records: each is asked its own question or the standard one.
        cache: of whole batches; None: nothing is kept.
        cluster: where to compute; None: in this process.

    Raises:
        UserError: see `ray_cluster.run`; and whatever the model raises.
    """
    plan, keys = predictor.batches(records)
    columns: Columns = {}
    with progress.bar(len(records), desc) as bar:

        def store(number: int, values: Columns) -> None:
            for name, column in values.items():
                if len(column) != len(plan[number]):
                    raise ValueError(f"{desc}: {len(column)} values of {name} for {len(plan[number])} images")
                if name == "p_fake" and not np.isfinite(column).all():
                    (record,) = take(records, [plan[number][np.isfinite(column).argmin()]])
                    raise UserError(f"{desc}: P(fake) of {record.id} is no number", "the weights are damaged")
                if name not in columns:
                    columns[name] = np.empty((len(records), *column.shape[1:]), column.dtype)
                columns[name][plan[number]] = column
            bar.set_postfix_str(predictor.note(), refresh=False)
            bar.update(len(plan[number]))

        missing = []
        for number, batch_key in enumerate(keys):
            data = None if cache is None else cache.get(batch_key)
            if data is None:
                missing.append(number)
            else:
                store(number, unpack(data))
        if cluster is None:
            computed = predictor.compute(records, plan, missing)
        else:
            from fakevlm.inference import ray_cluster

            computed = ray_cluster.run(predictor.load, records, plan, missing, cluster)
        with closing(computed):
            for number, values in computed:
                store(number, values)
                if cache is not None:
                    cache.put(keys[number], pack(values))
    return columns


def prepare(model: Callable[[Any], Columns], records: list[Record]) -> Any:
    """Return what the model computes on: what its own `prepare` makes, or the decoded images."""
    if hasattr(model, "prepare"):
        return model.prepare(records)
    return [record.pil() for record in records]
