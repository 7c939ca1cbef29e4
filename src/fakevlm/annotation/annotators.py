"""The annotators that a profile names: scripted observers, models behind servers (`endpoint`)."""

from collections.abc import Callable, Mapping, Sequence

from fakevlm.data.ground_truth import GroundTruth
from fakevlm.errors import UserError
from fakevlm.inference.protocol import Annotator, Outcome, Request
from miniworld import observers


class ObserverAnnotator:
    """A scripted observer of the miniature (`miniature.observers`): needs the truth, answers at once.

    Args:
        name: which observer.
        truths: the world's truth by path.
        seed: the run's seed.
    """

    def __init__(self, name: str, truths: Mapping[str, GroundTruth], seed: int) -> None:
        if not truths:
            raise UserError(
                f"annotator {name}: scripted observers need the miniature's truth, and there is none",
                "set collect.truth, or name a back end that looks at the images (annotate.annotators[].backend)",
            )
        self.model = name
        self.revision = observers.sources_digest(truths)
        self.sampling = {"seed": seed}
        self._truths = truths

    async def annotate(self, request: Request) -> Outcome:
        truth = self._truths.get(request.path)
        if truth is None:
            return Outcome("error", f"no truth is known of {request.path}")
        text = observers.describe(
            self.model,
            truth,
            request.image_sha256,
            seed=request.sampling["seed"],
            tagged=request.prompt.tagged,
        )
        if text is None:
            return Outcome("refused", "I cannot help with judging images of people.")
        return Outcome("ok", text) if text.strip() else Outcome("empty")


def _observer(spec, truths: Mapping[str, GroundTruth], seed: int) -> Annotator:
    return ObserverAnnotator(spec.name, truths, seed)


def _endpoint(spec, truths: Mapping[str, GroundTruth], seed: int) -> Annotator:
    from fakevlm.inference.endpoint import EndpointAnnotator

    return EndpointAnnotator(spec, seed)


# A back end: (its entry in annotate.annotators, the truth if there is any, the seed) -> annotator.
BACKENDS: dict[str, Callable[..., Annotator]] = {"observer": _observer, "endpoint": _endpoint}


def make_annotators(specs: Sequence, truths: Mapping[str, GroundTruth], seed: int) -> list[Annotator]:
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
    for spec in specs:
        if spec.backend not in BACKENDS:
            raise UserError(
                f"annotator {spec.name}: no back end {spec.backend!r}",
                f"annotate.annotators[].backend: use {', '.join(BACKENDS)}",
            )
    return [BACKENDS[spec.backend](spec, truths, seed) for spec in specs]
