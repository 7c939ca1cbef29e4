"""Language models behind servers as rows of Tables 2 and 4. Their words are read as FakeVLM's are.

The verdict is read from the answer, whole or cut off (`model.verdict`). A model that refuses, says nothing or
gives no verdict is *unparsed*. It is then asked once more, so that the server allows only the words real and
fake (`verdict_forced`). There is no P(fake), hence no AUC. Answers cost money: they stay in the cache.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Any

import pandas as pd
import yaml

from fakevlm import cache
from fakevlm.cache import Cache
from fakevlm.config.params import Baseline
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of, without_images
from fakevlm.errors import UserError
from fakevlm.inference.ask import Outcome, Request, ask_all
from fakevlm.inference.servers import Client, need_key
from fakevlm.model import verdict
from fakevlm.progress import say

ENTRY = "evaluate.baselines[]"
# What is added where an answer gives no verdict, and how the answer is bound to the two words.
CHOICE = "\n\nAnswer with one word: real or fake."
_WORDS = {"verdict": {"type": "string", "enum": ["real", "fake"]}}
_SCHEMA = {"type": "object", "properties": _WORDS, "required": ["verdict"], "additionalProperties": False}
FORCED = {
    "temperature": 0.0,
    "max_tokens": 20,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "verdict", "strict": True, "schema": _SCHEMA},
    },
}


@dataclass(frozen=True, slots=True)
class Question:
    """What a baseline is asked, in full."""

    text: str


@lru_cache(maxsize=1)
def standard_prompt() -> str:
    """Return the prompt of `baselines.yaml`: verdict first, then the explanation."""
    data = resources.files(__package__).joinpath("baselines.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(data)["standard"]


def requests(spec: Baseline, records: Sequence[Record]) -> Iterator[Request]:
    """Yield the first request about each record: its own question, the entry's or the standard prompt."""
    for record in records:
        question = Question(record.question or spec.prompt or standard_prompt())
        yield Request(record.id, record.path, record.image, question)


class BaselineClient(Client):
    """A baseline's model, which is asked for the forced choice where its answer gives no verdict."""

    def __init__(self, spec: Baseline, seed: int) -> None:
        super().__init__(spec, seed, entry=ENTRY, who="baseline")
        self._chose = False  # whether any forced choice was answered
        self._no_choice: Outcome | None = None

    def follow(self, request: Request, outcomes: Sequence[Outcome]) -> Request | None:
        """Return the request for the forced choice, if there is to be one."""
        (first, *more) = outcomes
        unread = first.status not in ("rejected", "error") and _verdict(first, request) == "unparsed"
        if more or not unread:
            return None
        prompt = Question(request.prompt.text + CHOICE)
        return replace(request, prompt=prompt, sampling={**request.sampling, **FORCED})

    async def annotate(self, request: Request) -> Outcome:
        """Ask. A server that rejects the first forced choice does not know `response_format`."""
        if "response_format" not in request.sampling:
            return await super().annotate(request)
        if self._no_choice is not None:
            return self._no_choice
        outcome = await super().annotate(request)
        self._chose = self._chose or outcome.status != "rejected"
        if not self._chose and self._no_choice is None:
            say(f"baseline {self.name}: no forced choice ({outcome.text})")
            self._no_choice = outcome
        return outcome


def baseline(spec: Baseline, seed: int) -> Callable[[Sequence[Record], Any], pd.DataFrame]:
    """Return a function from records to the answers of an entry of `evaluate.baselines` (see `answers`).

    Raises:
        UserError: its key is not set.
    """
    need_key(spec, ENTRY)
    return lambda records, _: answers(spec, seed, records)


def _verdict(outcome: Outcome, request: Request | None = None) -> verdict.Verdict:
    """Return the verdict that an answer gives; it comes first, before any cut."""
    if outcome.status not in ("ok", "truncated"):
        return "unparsed"
    return verdict.parse(outcome.text, request.prompt.text if request else None)


def answers(spec: Baseline, seed: int, records: Sequence[Record], store: Cache | None = None) -> pd.DataFrame:
    """Return a baseline's answers about n records.

    Args:
        spec: its entry in `evaluate.baselines`.
        seed: the profile's, used if the entry has none.
        records: see `requests`.
        store: the cache; None: that of all servers.

    Returns:
        n rows in the order of `records`: id, text (null where the server rejected the request), p_fake (NaN),
        verdict (fake, real, unparsed), verdict_forced (null if the server gives no forced choice), forced
        (False) and outcome (ok, truncated, refused, empty, rejected).

    Raises:
        UserError: no server, key or model; or some requests failed even when repeated: what was answered is
            kept, and a benchmark with holes is not scored.
    """
    client = BaselineClient(spec, seed)
    with nullcontext(store) if store else cache.answers() as store:
        answered = ask_all(requests(spec, records), [client], store, total=len(records), desc="ask")
        outcomes = list(answered.of(client.name))
    failed = [each[-1] for each in outcomes if not each[-1].is_answer]
    if failed:
        raise UserError(
            f"baseline {spec.name}: {len(failed)} of {len(outcomes)} requests failed, "
            f"the last with: {failed[-1].text}",
            "run the stage again: only these are asked, the rest is kept",
        )
    first = [each[0] for each in outcomes]
    first_requests = requests(spec, without_images(records))
    verdicts = [_verdict(outcome, request) for outcome, request in zip(first, first_requests, strict=True)]
    # None for all if the server takes none of the requests: it does not know `response_format`.
    no_choice = all(each[1].status == "rejected" for each in outcomes if each[1:])
    return pd.DataFrame(
        {
            "id": columns_of(records, ["id"])["id"],
            "text": [None if outcome.status == "rejected" else outcome.text for outcome in first],
            "p_fake": float("nan"),
            "verdict": verdicts,
            "verdict_forced": [
                (None if no_choice else _verdict(each[1])) if each[1:] else verdicts[n]
                for n, each in enumerate(outcomes)
            ],
            "forced": False,
            "outcome": [outcome.status for outcome in first],
        }
    )
