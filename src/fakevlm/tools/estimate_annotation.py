"""A dry run of the annotation: what is still to be asked, and what that costs. Nothing is asked.

`fakevlm estimate annotate --profile paper` after `dvc repro categorize`. Requests that the journal answers
are not counted, so it also tells what is left of a run that was stopped, or is under way. Tokens are
estimated: four characters of text a token; an image as Qwen2-VL sees it, a token for each 28 x 28 pixels;
answers as long as those in the journal, or, before there are any, as long as max_tokens lets them be. Other
models cut images otherwise: the progress line of a run shows their own. A served aggregator is asked once for
each image, and again only where the journal holds an answer that does not fit.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fakevlm import paths
from fakevlm.annotation.aggregate import Candidates
from fakevlm.annotation.aggregate_llm import follow, served_model
from fakevlm.annotation.annotators import make_annotators
from fakevlm.annotation.fakeclue import planned
from fakevlm.annotation.prompts import Prompt
from fakevlm.config.params import Endpoint, Observer, Params, ServedAggregator
from fakevlm.data.ground_truth import read_ground_truth
from fakevlm.errors import UserError
from fakevlm.inference.driver import Task, request_for
from fakevlm.inference.journal import Index, read_answers
from fakevlm.inference.protocol import Annotator, Outcome, name_of
from fakevlm.progress import track

_CHARACTERS, _PATCH = 4, 28
_OBSERVER_TOKENS = 60  # of a scripted observer's caption, before there is one


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one annotator, or the aggregator, has yet to do.

    Attributes:
        name: its name.
        answered: images that the journal answers, or will once an equal one is asked.
        requests: requests to be made.
        tokens_in, tokens_out: of those requests together.
        cost: in the currency of the prices in params.yaml; None without prices.
        hours: on the clock, all replicas busy; None without requests_per_second.
        gpu_hours: of all replicas; None without requests_per_second.
        afterwards: it starts when the others are through.
    """

    name: str
    answered: int
    requests: int
    tokens_in: int
    tokens_out: int
    cost: float | None = None
    hours: float | None = None
    gpu_hours: float | None = None
    afterwards: bool = False


class Aggregation:
    """Counts what a served aggregator has yet to be asked.

    Args:
        spec: the entry `annotate.aggregator`.
        min_annotators: as in params.yaml.
        seed: the profile's.
        answers: what the journal holds, by request key.
    """

    def __init__(
        self, spec: ServedAggregator, min_annotators: int, seed: int, answers: Mapping[str, Outcome]
    ) -> None:
        self.spec, self._min, self._answers = spec, min_annotators, answers
        self._model = served_model(spec, seed)
        self._asked = Index()
        self.requests = self.answered = self.tokens = 0
        self.missing: Counter[str] = Counter()  # captions not written yet, by annotator
        self.written = [0, 0]

    def add(self, task: Task, said: Mapping[str, Outcome | None]) -> None:
        """Counts one image, given what the journal holds from each annotator about it."""
        captions = {name: known.caption for name, known in said.items() if known is not None and known.usable}
        image = Candidates(task.id, task.prompt.category, task.prompt.label, captions)
        outcomes: list[Outcome] = []
        waiting = [name for name, known in said.items() if known is None]
        self.missing.update(waiting)
        if not captions and not waiting:
            return  # left out: there is nothing to aggregate
        while isinstance(asked := follow(image, outcomes, self.spec, self._min), Prompt):
            put = replace(task, image=task.image if self.spec.with_image else None, prompt=asked)
            key = None if waiting else request_for(put, self._model).key  # its text is not known yet
            if key is not None and self._asked.get(key):
                break
            if key is None or (known := self._answers.get(key)) is None:
                if key is not None:
                    self._asked[key] = True
                self.requests += 1
                self.tokens += tokens_of(put)
                return
            outcomes.append(known)
            self.written = [self.written[0] + known.usable, self.written[1] + len(known.text) * known.usable]
        self.answered += 1


def image_tokens(image: bytes | None) -> int:
    """About how many tokens a model makes of an image; 0 if there is none, or none that can be read."""
    import io

    from PIL import Image

    if image is None:
        return 0
    try:
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
    except OSError:
        return 0
    return math.ceil(width / _PATCH) * math.ceil(height / _PATCH)


def tokens_of(task: Task) -> int:
    """About how many tokens a model reads of an image and its prompt."""
    return image_tokens(task.image) + math.ceil(len(task.prompt.text) / _CHARACTERS)


def estimate(
    tasks: Iterable[Task],
    specs: Sequence[Observer | Endpoint],
    annotators: Sequence[Annotator],
    answers: Mapping[str, Outcome],
    rate: float | None = None,
    aggregation: Aggregation | None = None,
) -> list[Estimate]:
    """What is left to do for each annotator, and for a served aggregator, if there is one, in the last row.

    Args:
        tasks: the images with their prompts; walked through once.
        specs: the entries in `annotate.annotators`.
        annotators: those made of them, in the same order.
        answers: what the journal holds, by request key.
        rate: requests a second of one replica; default each entry's `requests_per_second`.
        aggregation: new, to count with.
    """
    asked = [Index() for _ in annotators]
    tokens, answered = [0] * len(annotators), [0] * len(annotators)
    written = [[0, 0] for _ in annotators]  # answers in the journal, their characters
    for task in tasks:
        seen, said = tokens_of(task), {}
        for n, a in enumerate(annotators):
            key = request_for(task, a).key
            known = said[name_of(a)] = answers.get(key)
            if known is None and not asked[n].get(key):
                asked[n][key] = True
                tokens[n] += seen
                continue
            answered[n] += 1
            if known is not None and known.usable:
                written[n] = [written[n][0] + 1, written[n][1] + len(known.text)]
        if aggregation is not None:
            aggregation.add(task, said)
    each = [_answer_tokens(spec, *written[n]) for n, spec in enumerate(specs)]
    made = [
        _estimate(spec, len(asked[n]), answered[n], tokens[n], each[n], rate) for n, spec in enumerate(specs)
    ]
    if aggregation is None:
        return made
    unseen = sum(each[n] * aggregation.missing[name_of(a)] for n, a in enumerate(annotators))
    last = _estimate(
        aggregation.spec,
        aggregation.requests,
        aggregation.answered,
        aggregation.tokens + math.ceil(unseen),
        _answer_tokens(aggregation.spec, *aggregation.written),
        rate,
    )
    return [*made, replace(last, name=f"{last.name} (aggregator)", afterwards=True)]


def _answer_tokens(spec: Observer | Endpoint, answers: int, characters: int) -> float:
    """Tokens of an answer: as in the journal so far, else as long as may be."""
    most = spec.max_tokens if isinstance(spec, Endpoint) else _OBSERVER_TOKENS
    return min(most, characters / _CHARACTERS / answers) if answers else most


def _estimate(
    spec: Observer | Endpoint,
    requests: int,
    answered: int,
    tokens_in: int,
    each: float,
    rate: float | None,
) -> Estimate:
    if not isinstance(spec, Endpoint):  # costs nothing worth counting
        return Estimate(spec.name, answered, requests, 0, 0)
    from fakevlm.inference.endpoint import cost

    tokens_out = math.ceil(requests * each)
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
    ground_truth = read_ground_truth((collected or paths.artifacts("collect")) / "truth.jsonl")
    annotators = make_annotators(settings.annotators, ground_truth, params.seed)
    # Not `paths.runs`, which makes the folder: a dry run leaves no trace.
    answers = read_answers(journal or paths.root() / "runs" / "annotate" / "journal.jsonl")
    aggregation = None
    if isinstance(settings.aggregator, ServedAggregator):
        aggregation = Aggregation(settings.aggregator, settings.min_annotators, params.seed, answers)
    tasks = track(tasks, "count", total=len(chosen))
    return estimate(tasks, settings.annotators, annotators, answers, rate, aggregation)


def table(estimates: Sequence[Estimate]) -> str:
    """The estimates as a Markdown table with their sum."""

    def row(name: str, *values: float | None) -> str:
        cells = ["?" if v is None else f"{v:,}" if isinstance(v, int) else f"{v:,.2f}" for v in values]
        return f"| {' | '.join([name, *cells])} |"

    keys = ("answered", "requests", "tokens_in", "tokens_out", "cost", "hours", "gpu_hours")
    columns = {key: [getattr(each, key) for each in estimates] for key in keys}
    # Annotators run side by side, so the slowest decides; the aggregator follows. What one does not tell, the
    # sum does not know.
    afterwards = [each.afterwards for each in estimates]

    def on_the_clock(values: Sequence[float]) -> float:
        side_by_side = [value for value, later in zip(values, afterwards, strict=True) if not later]
        return max(side_by_side) + sum(
            value for value, later in zip(values, afterwards, strict=True) if later
        )

    sums = [
        None if None in values else on_the_clock(values) if key == "hours" else sum(values)
        for key, values in columns.items()
    ]
    lines = [
        "| annotator | answered | to ask | tokens in | tokens out | cost | hours | GPU hours |",
        "|---|---|---|---|---|---|---|---|",
        *(row(each.name, *(getattr(each, key) for key in keys)) for each in estimates),
        row("all", *sums),
    ]
    return "\n".join(lines)
