"""The annotators that a profile names: scripted, behind servers, or anybody's (`fakevlm.plugins`)."""

from collections.abc import Mapping, Sequence

from fakevlm.data.ground_truth import GroundTruth
from fakevlm.errors import UserError
from fakevlm.inference.protocol import Annotator
from fakevlm.plugins import ANNOTATORS, load


def served(spec, ground_truth: Mapping[str, GroundTruth], seed: int) -> Annotator:
    """Return the annotator behind servers (`backend: endpoint`)."""
    from fakevlm.inference.endpoint import EndpointAnnotator

    return EndpointAnnotator(spec, seed)


def make_annotators(specs: Sequence, ground_truth: Mapping[str, GroundTruth], seed: int) -> list[Annotator]:
    """The annotators of a profile, in the order of params.yaml.

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
        load(getattr(spec, "object", spec.backend), ANNOTATORS, setting)(spec, ground_truth, seed)
        for spec in specs
    ]
