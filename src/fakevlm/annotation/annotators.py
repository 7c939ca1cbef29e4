"""The annotators and the aggregator that a profile names."""

from collections.abc import Callable, Mapping, Sequence

from fakevlm.annotation.aggregate import Aggregator, EmbeddingAggregator
from fakevlm.cache import Cache
from fakevlm.config.params import Annotate, ServedAggregator
from fakevlm.data.ground_truth import GroundTruth
from fakevlm.errors import UserError
from fakevlm.inference.ask import Annotator
from fakevlm.plugins import ANNOTATORS, load


def served(spec, ground_truths: Mapping[str, GroundTruth], seed: int) -> Annotator:
    """Return the annotator behind servers (`backend: endpoint`)."""
    from fakevlm.inference.servers import Client

    return Client(spec, seed)


def make_annotators(specs: Sequence, ground_truths: Mapping[str, GroundTruth], seed: int) -> list[Annotator]:
    """Return the annotators of a profile, in the order of params.yaml.

    Args:
        specs: entries of `annotate.annotators`.

    Raises:
        UserError: an unknown back end, two annotators of one name, or what the back end itself lacks.
    """
    names = [spec.name for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(
            f"annotate.annotators: {', '.join(twice)} appears twice", "give each annotator its own name"
        )
    setting = "annotate.annotators[].backend"
    return [
        load(getattr(spec, "object", spec.backend), ANNOTATORS, setting)(spec, ground_truths, seed)
        for spec in specs
    ]


def make_aggregator(
    settings: Annotate, seed: int, store: Cache, picture: Callable[[str], bytes]
) -> Aggregator:
    """Return the aggregator of a profile: by sentence embeddings, or a language model behind servers.

    Args:
        store: the cache of a served model's answers.
        picture: returns an annotated image's encoded bytes by its id, for a model that sees them.
    """
    spec, least = settings.aggregator, settings.min_annotators
    if isinstance(spec, ServedAggregator):
        from fakevlm.annotation.aggregate_llm import LLMAggregator  # the miniature does without it

        return LLMAggregator(spec, least, seed, store, picture, settings.concurrency)
    return EmbeddingAggregator(spec, least)
