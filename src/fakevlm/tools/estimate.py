"""A dry run of everything that servers are asked: what is left to ask, and what that costs. Nothing is asked.

Tokens are estimated: four characters of text a token; an image as Qwen2-VL sees it, a token for each 28 x 28
pixels; answers as long as those in the cache, or, before there are any, as long as max_tokens lets them be. A
second request about an image (another attempt, a forced choice) counts where the first answer calls for it.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fakevlm import paths
from fakevlm.annotation.aggregate import Candidates
from fakevlm.annotation.aggregate_llm import LLMAggregator
from fakevlm.annotation.annotate import make_annotators, planned, usable
from fakevlm.cache import Cache, answers
from fakevlm.config.params import Endpoint, Observer, Params, ServedAggregator
from fakevlm.data.ground_truth import read_ground_truth
from fakevlm.data.records import open_image
from fakevlm.errors import UserError
from fakevlm.evaluation import baselines, benchmarks
from fakevlm.evaluation.benchmarks import meant_for
from fakevlm.inference.ask import Annotator, Outcome, Request, answer_of, name_of, stored
from fakevlm.inference.servers import cost
from fakevlm.progress import track

_CHARACTERS, _PATCH = 4, 28
_OBSERVER_TOKENS = 60  # of a scripted observer's caption, before there is one


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one annotator, the aggregator or a baseline has yet to do."""

    name: str
    answered: int  # images that the cache answers, or will once an equal one is asked
    requests: int  # to be made
    tokens_in: int  # of those requests together
    tokens_out: int
    cost: float | None = None  # in the currency of the prices in params.yaml; None without prices
    hours: float | None = None  # on the clock, all replicas busy; None without requests_per_second
    gpu_hours: float | None = None  # of all replicas; None without requests_per_second
    afterwards: bool = False  # it starts when the others are through


def image_tokens(image: bytes | None) -> int:
    """Return about how many tokens an image is; 0 if there is none, or none that can be read."""
    try:
        with open_image(image or b"") as opened:
            return math.prod(math.ceil(side / _PATCH) for side in opened.size)
    except OSError:
        return 0


class _UnansweredError(Exception):
    """The cache has no answer to a request."""


class Tally:
    """Counts the requests that one model, `spec` in params.yaml, has yet to answer."""

    def __init__(self, spec: Observer | Endpoint, annotator: Annotator, store: Cache) -> None:
        self.spec, self.annotator, self._store = spec, annotator, store
        self._keys: set[str] = set()
        self.requests = self.answered = self.tokens = 0
        self._answers = self._characters = 0  # answers in the cache

    def add(self, record: Any) -> dict[str, Any] | None:
        """Count what is left to ask about a record; return its row, None if it is not there yet."""
        try:
            answer_of(self.annotator)(record, self._ask).send(None)  # never waits: see `_ask`
        except StopIteration as end:
            self.answered += 1
            return end.value
        except _UnansweredError:
            return None

    async def _ask(self, request: Request) -> Outcome:
        request = request.to(self.annotator)
        outcome = stored(self._store, request)
        if outcome is None:
            if request.key in self._keys:
                self.answered += 1
            else:
                self._keys.add(request.key)
                self.add_unknown(request)
            raise _UnansweredError
        self._answers += bool(outcome.caption)
        self._characters += len(outcome.text) * bool(outcome.caption)
        return outcome

    def add_unknown(self, request: Request) -> None:
        """Count a request that the cache does not answer."""
        self.requests += 1
        self.tokens += image_tokens(request.image) + math.ceil(len(request.prompt.text) / _CHARACTERS)

    def answer_tokens(self) -> float:
        """Return the tokens of an answer: as in the cache so far, else as long as may be."""
        most = self.spec.max_tokens if isinstance(self.spec, Endpoint) else _OBSERVER_TOKENS
        return min(most, self._characters / _CHARACTERS / self._answers) if self._answers else most

    def estimate(self, rate: float | None, unseen: float = 0.0) -> Estimate:
        """Return what is left, at a `rate` of requests a second of one replica (None: the entry's own).

        `unseen` are tokens that requests will have beyond those counted.
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


def estimate(
    records: Iterable[Any], tallies: Sequence[Tally], rate: float | None = None,
    aggregator: Tally | None = None,
) -> list[Estimate]:  # fmt: skip
    """Return what is left to do for each annotator and, in the last row, for a served aggregator.

    Tallies are new; `records` is what the models are asked about, walked through once. The aggregator is
    asked about the captions that the cache holds or will hold. `rate`: see `Tally.estimate`.
    """
    missing: Counter[str] = Counter()  # captions not written yet, by annotator
    for record in records:
        rows = {name_of(tally.annotator): tally.add(record) for tally in tallies}
        captions = usable({name: Outcome(**row) for name, row in rows.items() if row}) if aggregator else {}
        waiting = [name for name, row in rows.items() if row is None]
        missing.update(waiting)
        if aggregator is None or not (captions or waiting):  # without captions there is nothing to aggregate
            continue
        model = aggregator.annotator
        model.picture = {record.id: record.image}.get
        image = Candidates(record.id, record.prompt.category, record.prompt.label, captions)
        if waiting:  # its text is not known yet
            aggregator.add_unknown(model.first(image))
        else:
            aggregator.add(image)
    rows = [tally.estimate(rate) for tally in tallies]
    if aggregator is not None:
        unseen = sum(tally.answer_tokens() * missing[name_of(tally.annotator)] for tally in tallies)
        last = aggregator.estimate(rate, unseen)
        rows.append(replace(last, name=f"{last.name} (aggregator)", afterwards=True))
    return rows


def annotation(params: Params, rate: float | None = None) -> list[Estimate]:
    """Return the estimates of stage annotate. Raises `UserError` if inputs are missing or do not fit."""
    settings = params.annotate
    if not settings.annotators:
        what = f"profile {params.profile!r} asks nobody: its texts are the released ones"
        raise UserError(what, "name a profile with annotate.annotators: --profile paper")
    _, requests = planned(params)
    ground_truths = read_ground_truth(paths.artifacts("collect", "ground_truth.jsonl"))
    annotators = make_annotators(settings.annotators, ground_truths, params.seed)
    with answers(make=False) as store:
        aggregator, spec = None, settings.aggregator
        if isinstance(spec, ServedAggregator):
            model = LLMAggregator(spec, settings.min_annotators, params.seed, store, {}.get)
            aggregator = Tally(spec, model, store)
        tallies = [Tally(*each, store) for each in zip(settings.annotators, annotators, strict=True)]
        return estimate(track(requests, "count"), tallies, rate, aggregator)


def evaluation(params: Params, rate: float | None = None) -> list[Estimate]:
    """Return the estimates of stage evaluate, one a benchmark and baseline, named `<baseline>, <benchmark>`.

    Raises `UserError`, which names the stage that makes them, if records are not there yet.
    """
    rows = []
    with answers(make=False) as store:
        for benchmark in benchmarks.BENCHMARKS:
            served = meant_for(params.evaluate.baselines, benchmark)
            records = benchmarks.load(params, benchmark) if served else []
            for spec in served:
                tally = Tally(spec, baselines.BaselineClient(spec, params.seed), store)
                (row,) = estimate(records, [tally], rate)
                rows.append(replace(row, name=f"{spec.name}, {benchmark}"))
    return rows


def table(estimates: Sequence[Estimate]) -> str:
    """Return the estimates as a Markdown table with their sum."""

    def row(name: str, values: Iterable[float | None]) -> str:
        cells = ["?" if v is None else f"{v:,}" if isinstance(v, int) else f"{v:,.2f}" for v in values]
        return f"| {' | '.join([name, *cells])} |"

    names = ("answered", "requests", "tokens_in", "tokens_out", "cost", "hours", "gpu_hours")
    columns = {name: [getattr(each, name) for each in estimates] for name in names}
    # What one does not tell, the sum does not know.
    sums = {name: None if None in values else sum(values) for name, values in columns.items()}
    if sums["hours"] is not None:
        # Annotators run side by side, so the slowest decides; the aggregator follows.
        slowest = max(each.hours for each in estimates if not each.afterwards)
        sums["hours"] = slowest + sum(each.hours for each in estimates if each.afterwards)
    head = "| annotator | answered | to ask | tokens in | tokens out | cost | hours | GPU hours |"
    body = [row(each.name, (getattr(each, name) for name in names)) for each in estimates]
    return "\n".join([head, "|---" * 8 + "|", *body, row("all", sums.values())])
