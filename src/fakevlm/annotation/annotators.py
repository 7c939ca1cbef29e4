"""The annotators that a profile names."""

from collections.abc import Mapping, Sequence

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
