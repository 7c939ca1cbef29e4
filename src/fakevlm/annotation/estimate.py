"""A dry run of the annotation: what is still to be asked, and what that costs. Nothing is asked.

`python -m fakevlm.annotation.estimate --profile paper` after `dvc repro categorize`. Requests that the journal answers are not
counted, so it also tells what is left of a run that was stopped, or is under way. Tokens are estimated: four characters of
text a token; an image as Qwen2-VL sees it, a token for each 28 x 28 pixels; answers as long as those in the journal, or, before
there are any, as long as max_tokens lets them be. Other models cut images otherwise: the progress line of a run shows their own.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fakevlm import paths
from fakevlm.annotation.annotators import make_annotators
from fakevlm.annotation.driver import Task
from fakevlm.annotation.fakeclue import planned
from fakevlm.annotation.journal import read_answers
from fakevlm.annotation.protocol import Annotator, Outcome, Request
from fakevlm.errors import UserError
from fakevlm.miniature.truth import read_truth
from fakevlm.params import Endpoint, Observer, Params, load_params
from fakevlm.progress import track

_CHARACTERS, _PATCH = 4, 28


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one annotator has yet to do.

    Attributes:
        name: the annotator's.
        answered: images that the journal answers, or will once an equal one is asked.
        requests: requests to be made.
        tokens_in, tokens_out: of those requests together.
        cost: in the currency of the prices in params.yaml; None without prices.
        hours: on the clock, all replicas busy; None without requests_per_second.
        gpu_hours: of all replicas; None without requests_per_second.
    """

    name: str
    answered: int
    requests: int
    tokens_in: int
    tokens_out: int
    cost: float | None = None
    hours: float | None = None
    gpu_hours: float | None = None


def image_tokens(image: bytes) -> int:
    """About how many tokens a model makes of an image; 0 if it cannot be read."""
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
    except OSError:
        return 0
    return math.ceil(width / _PATCH) * math.ceil(height / _PATCH)


def estimate(
    tasks: Iterable[Task],
    specs: Sequence[Observer | Endpoint],
    annotators: Sequence[Annotator],
    answers: dict[str, Outcome],
    rate: float | None = None,
) -> list[Estimate]:
    """What is left to do for each annotator.

    Args:
        tasks: the images with their prompts; walked through once.
        specs: the entries in `annotate.annotators`.
        annotators: those made of them, in the same order.
        answers: what the journal holds, by request key.
        rate: requests a second of one replica; default each entry's `requests_per_second`.
    """
    asked: list[set[str]] = [set() for _ in annotators]
    tokens, answered = [0] * len(annotators), [0] * len(annotators)
    written = [[0, 0] for _ in annotators]  # answers in the journal, their characters
    for task in tasks:
        seen = image_tokens(task.image) + math.ceil(len(task.prompt.text) / _CHARACTERS)
        for n, a in enumerate(annotators):
            request = Request(task.id, task.path, task.image, task.prompt, a.model, a.revision, a.sampling)
            known = answers.get(request.key)
            if known is None and request.key not in asked[n]:
                asked[n].add(request.key)
                tokens[n] += seen
                continue
            answered[n] += 1
            if known is not None and known.usable:
                written[n] = [written[n][0] + 1, written[n][1] + len(known.text)]
    return [
        _estimate(spec, len(asked[n]), answered[n], tokens[n], written[n], rate)
        for n, spec in enumerate(specs)
    ]


def _estimate(
    spec: Observer | Endpoint,
    requests: int,
    answered: int,
    tokens_in: int,
    written: Sequence[int],
    rate: float | None,
) -> Estimate:
    if not isinstance(spec, Endpoint):  # costs nothing worth counting
        return Estimate(spec.name, answered, requests, 0, 0)
    from fakevlm.annotation.endpoint import cost

    answers, characters = written
    each = characters / _CHARACTERS / answers if answers else spec.max_tokens
    tokens_out = math.ceil(requests * min(each, spec.max_tokens))
    rate = rate or spec.requests_per_second
    replica_hours = requests / rate / 3600 if rate else None
    return Estimate(
        spec.name,
        answered,
        requests,
        tokens_in,
        tokens_out,
        cost(spec, tokens_in, tokens_out),
        None if replica_hours is None else replica_hours / len(spec.urls),
        None if replica_hours is None else replica_hours * spec.gpus,
    )


def dry_run(
    params: Params,
    rate: float | None = None,
    *,
    collected: Path | None = None,
    categorized: Path | None = None,
    journal: Path | None = None,
) -> list[Estimate]:
    """The estimates of a profile; see `fakeclue.build` for the folders and their defaults.

    Raises:
        UserError: inputs are missing or do not fit.
    """
    settings = params.annotate
    if not settings.annotators:
        raise UserError(
            f"profile {params.profile!r} asks nobody: its texts are the released ones",
            "name a profile with annotate.annotators: --profile paper",
        )
    chosen, tasks = planned(params, collected, categorized)
    truths = read_truth((collected or paths.artifacts("collect")) / "truth.jsonl")
    annotators = make_annotators(settings.annotators, truths, params.seed)
    # Not `paths.runs`, which makes the folder: a dry run leaves no trace.
    answers = read_answers(journal or paths.root() / "runs" / "annotate" / "journal.jsonl")
    return estimate(track(tasks, "count", total=len(chosen)), settings.annotators, annotators, answers, rate)


def table(estimates: Sequence[Estimate]) -> str:
    """The estimates as a Markdown table with their sum."""

    def row(name: str, *values: float | None) -> str:
        cells = ["?" if v is None else f"{v:,}" if isinstance(v, int) else f"{v:,.2f}" for v in values]
        return f"| {' | '.join([name, *cells])} |"

    keys = ("answered", "requests", "tokens_in", "tokens_out", "cost", "hours", "gpu_hours")
    columns = {key: [getattr(each, key) for each in estimates] for key in keys}
    # Annotators run side by side: the slowest decides. What one does not tell, the sum does not know.
    sums = [
        None if None in values else max(values) if key == "hours" else sum(values)
        for key, values in columns.items()
    ]
    lines = [
        "| annotator | answered | to ask | tokens in | tokens out | cost | hours | GPU hours |",
        "|---|---|---|---|---|---|---|---|",
        *(row(each.name, *(getattr(each, key) for key in keys)) for each in estimates),
        row("all", *sums),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="What the annotation has yet to ask, and what that costs. Asks nothing."
    )
    parser.add_argument("--profile", help="a section of params.yaml; default: the one it names")
    parser.add_argument(
        "--rate",
        type=float,
        help="requests a second of one replica (a progress line shows that of all together); "
        "default: annotate.annotators[].requests_per_second",
    )
    options = parser.parse_args()
    try:
        if options.rate is not None and not options.rate > 0:
            raise UserError(f"--rate {options.rate}: no rate", "give requests a second, above 0")
        print(table(dry_run(load_params(options.profile), options.rate)))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
