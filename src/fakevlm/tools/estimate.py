"""A dry run of everything that servers are asked: what is left to ask, and what that costs. Nothing is asked.

`fakevlm estimate annotate` after `dvc repro categorize`; `fakevlm estimate evaluate` once the benchmarks'
records are there. What the cache answers is not counted. Tokens are estimated: four characters of text a
token; an image as Qwen2-VL sees it, a token for each 28 x 28 pixels; answers as long as those in the cache,
or, before there are any, as long as max_tokens lets them be. A second request about an image (an aggregator's
next attempt, a baseline's forced choice) is counted where the first answer calls for it.
"""

import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from fakevlm import paths
from fakevlm.annotation.aggregate import Candidates
from fakevlm.annotation.aggregate_llm import question, served_model
from fakevlm.annotation.annotators import make_annotators
from fakevlm.annotation.fakeclue import planned
from fakevlm.cache import Cache, answers
from fakevlm.config.params import Endpoint, Observer, Params, ServedAggregator
from fakevlm.data.ground_truth import read_ground_truth
from fakevlm.errors import UserError
from fakevlm.evaluation import baselines, benchmarks
from fakevlm.evaluation.benchmarks import meant_for
from fakevlm.inference.ask import Annotator, Outcome, Request, follow_up, name_of, stored
from fakevlm.inference.servers import cost
from fakevlm.progress import track

_CHARACTERS, _PATCH = 4, 28
_OBSERVER_TOKENS = 60  # of a scripted observer's caption, before there is one


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one annotator, the aggregator or a baseline has yet to do.

    Attributes:
        name: its name.
        answered: images that the cache answers, or will once an equal one is asked.
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


def image_tokens(image: bytes | None) -> int:
    """Return about how many tokens an image is; 0 if there is none, or none that can be read."""
    if image is None:
        return 0
    try:
        with Image.open(io.BytesIO(image)) as opened:
            width, height = opened.size
    except OSError:
        return 0
    return math.ceil(width / _PATCH) * math.ceil(height / _PATCH)


class Tally:
    """Counts the requests that one model has yet to answer.

    Args:
        spec: its entry in params.yaml.
        annotator: the model.
        store: the cache.
    """

    def __init__(self, spec: Observer | Endpoint, annotator: Annotator, store: Cache) -> None:
        self.spec, self.annotator, self._store = spec, annotator, store
        self._keys: set[str] = set()
        self.requests = self.answered = self.tokens = 0
        self._answers = self._characters = 0  # answers in the cache

    def add(self, request: Request) -> Outcome | None:
        """Count what is left to ask about an image; return the last outcome, None if it is not there yet."""
        first = following = request.to(self.annotator)
        outcomes: list[Outcome] = []
        while following is not None:
            outcome = stored(self._store, [following.key]).get(following.key)
            if outcome is None:
                if following.key in self._keys:
                    self.answered += 1
                else:
                    self._keys.add(following.key)
                    self.add_unknown(following)
                return None
            outcomes.append(outcome)
            self._answers += outcome.usable
            self._characters += len(outcome.text) * outcome.usable
            following = follow_up(self.annotator, first, outcomes)
        self.answered += 1
        return outcomes[-1]

    def add_unknown(self, request: Request) -> None:
        """Count a request that the cache does not answer."""
        self.requests += 1
        self.tokens += image_tokens(request.image) + math.ceil(len(request.prompt.text) / _CHARACTERS)

    def answer_tokens(self) -> float:
        """Return the tokens of an answer: as in the cache so far, else as long as may be."""
        most = self.spec.max_tokens if isinstance(self.spec, Endpoint) else _OBSERVER_TOKENS
        return min(most, self._characters / _CHARACTERS / self._answers) if self._answers else most

    def estimate(self, rate: float | None = None, unseen: float = 0.0) -> Estimate:
        """Return what is left.

        Args:
            rate: requests a second of one replica; default the entry's `requests_per_second`.
            unseen: tokens that requests will have beyond those counted.
        """
        spec = self.spec
        if not isinstance(spec, Endpoint):  # costs nothing worth counting
            return Estimate(spec.name, self.answered, self.requests, 0, 0)
        tokens = self.tokens + math.ceil(unseen), math.ceil(self.requests * self.answer_tokens())
        row = Estimate(spec.name, self.answered, self.requests, *tokens, cost(spec, *tokens))
        if not (rate := rate or spec.requests_per_second):
            return row
        hours = self.requests / rate / 3600  # of one replica
        return replace(row, hours=hours / len(spec.urls), gpu_hours=hours * spec.gpus)


class AggregatorTally(Tally):
    """Counts what a served aggregator has yet to be asked.

    Args:
        spec: the entry `annotate.aggregator`.
        min_annotators: as in params.yaml.
        seed: the profile's.
        store: the cache.
    """

    def __init__(self, spec: ServedAggregator, min_annotators: int, seed: int, store: Cache) -> None:
        super().__init__(spec, served_model(spec, min_annotators, seed), store)
        self._min = min_annotators
        self.missing: Counter[str] = Counter()  # captions not written yet, by annotator

    def add_image(self, request: Request, outcomes: Mapping[str, Outcome | None]) -> None:
        """Count one image, given what the cache holds from each annotator about it."""
        captions = {name: each.caption for name, each in outcomes.items() if each and each.usable}
        waiting = [name for name, each in outcomes.items() if each is None]
        self.missing.update(waiting)
        if not captions and not waiting:
            return  # left out: there is nothing to aggregate
        image = Candidates(request.id, request.prompt.category, request.prompt.label, captions)
        prompt = question(image, self._min, self.spec.with_image)
        request = replace(request, image=request.image if self.spec.with_image else None, prompt=prompt)
        if waiting:  # its text is not known yet
            self.add_unknown(request)
        else:
            self.add(request)


def estimate(
    requests: Iterable[Request],
    tallies: Sequence[Tally],
    rate: float | None = None,
    aggregator: AggregatorTally | None = None,
) -> list[Estimate]:
    """Return what is left to do for each annotator and, in the last row, for a served aggregator.

    Args:
        requests: the images with their prompts; walked through once.
        tallies: new, one an annotator.
        rate: requests a second of one replica; default each entry's `requests_per_second`.
        aggregator: new.
    """
    for request in requests:
        outcomes = {name_of(tally.annotator): tally.add(request) for tally in tallies}
        if aggregator is not None:
            aggregator.add_image(request, outcomes)
    rows = [tally.estimate(rate) for tally in tallies]
    if aggregator is not None:
        each = {name_of(tally.annotator): tally.answer_tokens() for tally in tallies}
        last = aggregator.estimate(rate, sum(each[name] * n for name, n in aggregator.missing.items()))
        rows.append(replace(last, name=f"{last.name} (aggregator)", afterwards=True))
    return rows


def annotation(
    params: Params,
    rate: float | None = None,
    *,
    collected: Path | None = None,
    categorized: Path | None = None,
) -> list[Estimate]:
    """Return the estimates of stage annotate; see `fakeclue.build` for the folders and their defaults.

    Raises:
        UserError: inputs are missing or do not fit.
    """
    settings = params.annotate
    if not settings.annotators:
        raise UserError(
            f"profile {params.profile!r} asks nobody: its texts are the released ones",
            "name a profile with annotate.annotators: --profile paper",
        )
    chosen, requests = planned(params, collected, categorized)
    ground_truth = read_ground_truth((collected or paths.artifacts("collect")) / "truth.jsonl")
    annotators = make_annotators(settings.annotators, ground_truth, params.seed)
    with answers(make=False) as store:
        aggregator, spec = None, settings.aggregator
        if isinstance(spec, ServedAggregator):
            aggregator = AggregatorTally(spec, settings.min_annotators, params.seed, store)
        tallies = [Tally(*each, store) for each in zip(settings.annotators, annotators, strict=True)]
        return estimate(track(requests, "count", total=len(chosen)), tallies, rate, aggregator)


def evaluation(params: Params, rate: float | None = None) -> list[Estimate]:
    """Return the estimates of stage evaluate, one a benchmark and baseline, named `<baseline>, <benchmark>`.

    Args:
        params: the profile.
        rate: requests a second of one replica; default each entry's `requests_per_second`.

    Raises:
        UserError: records are not there yet; names the stage that makes them.
    """
    rows = []
    with answers(make=False) as store:
        for benchmark in benchmarks.BENCHMARKS:
            served = meant_for(params.evaluate.baselines, benchmark)
            records = benchmarks.load(params, benchmark) if served else []
            for spec in served:
                tally = Tally(spec, baselines.BaselineClient(spec, params.seed), store)
                (row,) = estimate(baselines.requests(spec, records), [tally], rate)
                rows.append(replace(row, name=f"{spec.name}, {benchmark}"))
    return rows


def table(estimates: Sequence[Estimate]) -> str:
    """Return the estimates as a Markdown table with their sum."""

    def row(name: str, *values: float | None) -> str:
        cells = ["?" if v is None else f"{v:,}" if isinstance(v, int) else f"{v:,.2f}" for v in values]
        return f"| {' | '.join([name, *cells])} |"

    names = ("answered", "requests", "tokens_in", "tokens_out", "cost", "hours", "gpu_hours")
    columns = {name: [getattr(each, name) for each in estimates] for name in names}
    # What one does not tell, the sum does not know.
    sums = {name: None if None in values else sum(values) for name, values in columns.items()}
    if (
        sums["hours"] is not None
    ):  # annotators run side by side, so the slowest decides; the aggregator follows
        last = [each.hours for each in estimates if each.afterwards]
        sums["hours"] = max(each.hours for each in estimates if not each.afterwards) + sum(last)
    lines = [
        "| annotator | answered | to ask | tokens in | tokens out | cost | hours | GPU hours |",
        "|---|---|---|---|---|---|---|---|",
        *(row(each.name, *(getattr(each, name) for name in names)) for each in estimates),
        row("all", *sums.values()),
    ]
    return "\n".join(lines)
