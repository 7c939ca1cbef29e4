"""The annotators and the aggregator that a profile names."""

from collections.abc import Callable, Mapping, Sequence

from fakevlm.annotation.aggregate import EmbeddingAggregator
from fakevlm.annotation.aggregate_llm import LLMAggregator
from fakevlm.cache import Cache
from fakevlm.config.params import Annotate, ServedAggregator
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.inference.ask import Annotator
from fakevlm.inference.servers import Client
from fakevlm.plugins import ANNOTATORS, load


def served(spec, ground_truths: Mapping[str, GroundTruth], seed: int) -> Annotator:
    """Return the annotator behind servers (`backend: endpoint`)."""
    return Client(spec, seed)


def make_annotators(specs: Sequence, ground_truths: Mapping[str, GroundTruth], seed: int) -> list[Annotator]:
    """Return the annotators of `annotate.annotators`. Raises `UserError` for what a back end lacks."""
    references = [getattr(spec, "object", spec.backend) for spec in specs]
    makers = [load(reference, ANNOTATORS, "annotate.annotators[].backend") for reference in references]
    return [make(spec, ground_truths, seed) for make, spec in zip(makers, specs, strict=True)]


def make_aggregator(
    settings: Annotate, seed: int, store: Cache, picture: Callable[[str], bytes]
) -> EmbeddingAggregator | LLMAggregator:
    """Return the aggregator of a profile: by sentence embeddings, or a language model behind servers.

    `store` caches a served model's answers; `picture` returns an annotated image's encoded bytes by its id.
    """
    spec, least = settings.aggregator, settings.min_annotators
    if isinstance(spec, ServedAggregator):
        return LLMAggregator(spec, least, seed, store, picture, settings.concurrency)
    return EmbeddingAggregator(spec, least)
