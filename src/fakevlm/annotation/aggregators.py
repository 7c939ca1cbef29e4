"""The aggregators that a profile may name: sentence embeddings (`aggregate`), a language model behind servers (`aggregate_llm`)."""

from collections.abc import Callable, Iterable

from fakevlm.annotation.aggregate import Aggregator, EmbeddingAggregator
from fakevlm.config.params import Annotate
from fakevlm.inference.driver import Task
from fakevlm.inference.journal import Journal


def _embedding(settings: Annotate, seed: int, journal: Journal, tasks: Iterable[Task]) -> Aggregator:
    spec = settings.aggregator
    return EmbeddingAggregator(
        spec.encoder, spec.similarity, settings.min_annotators, spec.critical_similarity
    )


def _endpoint(settings: Annotate, seed: int, journal: Journal, tasks: Iterable[Task]) -> Aggregator:
    from fakevlm.annotation.aggregate_llm import LLMAggregator  # the miniature does without it

    return LLMAggregator(
        settings.aggregator, settings.min_annotators, seed, journal, tasks, settings.concurrency
    )


# A back end: (the section `annotate`, the seed, the journal, the annotated images) -> aggregator.
BACKENDS: dict[str, Callable[..., Aggregator]] = {"embedding": _embedding, "endpoint": _endpoint}


def make_aggregator(settings: Annotate, seed: int, journal: Journal, tasks: Iterable[Task]) -> Aggregator:
    """The aggregator that a profile's `annotate` section names.

    Args:
        settings: the section.
        seed: the run's seed.
        journal: opened for writing; requests to a served model are kept there.
        tasks: the images that were annotated, for a model that sees them; walked through more than once.
    """
    return BACKENDS[settings.aggregator.backend](settings, seed, journal, tasks)
