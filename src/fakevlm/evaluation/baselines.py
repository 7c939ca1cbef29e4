"""Language models behind servers as rows of Tables 2 and 4. Their words are read as FakeVLM's are.

The verdict is read from the answer, whole or cut off (`model.verdict`). A model that refuses, says nothing or
gives no verdict is *unparsed*. It is then asked once more, so that the server allows only the words real and
fake (`verdict_forced`). There is no P(fake), hence no AUC. Answers cost money: they stay in the cache.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fakevlm import cache
from fakevlm.cache import Cache
from fakevlm.config.params import Baseline
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of
from fakevlm.errors import UserError
from fakevlm.inference.ask import Ask, Outcome, Request, RequestPredictor, Text
from fakevlm.inference.predict import predict
from fakevlm.inference.servers import Client, need_key
from fakevlm.model import verdict
from fakevlm.progress import say

# Verdict first, then the explanation.
STANDARD_PROMPT = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))["standard"]
# What is added where an answer gives no verdict, and how the answer is bound to the two words.
CHOICE = "\n\nAnswer with one word: real or fake."
_WORDS = {"verdict": {"type": "string", "enum": ["real", "fake"]}}
_SCHEMA = {"type": "object", "properties": _WORDS, "required": ["verdict"], "additionalProperties": False}
_FORMAT = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": _SCHEMA}}
FORCED = {"temperature": 0.0, "max_tokens": 20, "response_format": _FORMAT}


class BaselineClient(Client):
    """A baseline's model, which is asked for the forced choice where its answer gives no verdict."""

    role, entry = "baseline", "evaluate.baselines[]"
    _chose = False  # whether any forced choice was answered
    _no_choice: Outcome | None = None

    async def answer(self, record: Record, ask: Ask) -> dict[str, Any]:
        """Return a record's row; it is asked its own question, the entry's or the standard prompt."""
        prompt = record.question or self.spec.prompt or STANDARD_PROMPT
        request = Request(record.id, record.path, record.image, Text(prompt))
        last = outcome = await ask(request)
        verdict = choice = _verdict(outcome, prompt)
        if verdict == "unparsed" and outcome.status not in ("rejected", "error"):
            last = await ask(replace(request, prompt=Text(prompt + CHOICE), sampling=FORCED))
            choice = None if last.status == "rejected" else _verdict(last)
        failure = last.text if last.status == "error" else None
        return {**asdict(outcome), "verdict": verdict, "verdict_forced": choice, "failure": failure}

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
    """Return `answers` of an entry of `evaluate.baselines`; raise a UserError where its key is not set."""
    need_key(spec, BaselineClient.entry)
    return lambda records, _: answers(spec, seed, records)


def _verdict(outcome: Outcome, prompt: str | None = None) -> verdict.Verdict:
    """Return the verdict that an answer gives; it comes first, before any cut."""
    return verdict.parse(outcome.text, prompt) if outcome.status in ("ok", "truncated") else "unparsed"


def answers(spec: Baseline, seed: int, records: Sequence[Record], store: Cache | None = None) -> pd.DataFrame:
    """Return a baseline's answers about n records; `seed` is used if its entry has none.

    Returns n rows in the order of `records`: id, text (null where the server rejected the request), p_fake
    (NaN), verdict (fake, real, unparsed), verdict_forced (null if the server gives no forced choice), forced
    (False) and outcome (ok, truncated, refused, empty, rejected).

    Raises a UserError where there is no server, key or model; or some requests failed even when repeated:
    what was answered is kept, and a benchmark with holes is not scored.
    """
    client = BaselineClient(spec, seed)
    with nullcontext(store) if store else cache.answers() as store:
        frame = pd.DataFrame(predict(RequestPredictor(client, store), records, desc=f"ask {spec.name}"))
    failures = frame["failure"].dropna()
    if len(failures):
        raise UserError(
            f"baseline {spec.name}: {len(failures)} of {len(frame)} requests failed, "
            f"the last with: {failures.iloc[-1]}",
            "run the stage again: only these are asked, the rest is kept",
        )
    # None for all if the server takes none of the requests: it does not know `response_format`.
    unread = (frame["verdict"] == "unparsed") & (frame["status"] != "rejected")
    choices = frame["verdict_forced"]
    if choices[unread].notna().any():
        choices = choices.fillna("unparsed")
    text = frame["text"].where(frame["status"] != "rejected", None)
    frame = frame.assign(id=columns_of(records, ["id"])["id"], text=text, verdict_forced=choices)
    frame = frame.assign(p_fake=float("nan"), forced=False, outcome=frame["status"])
    return frame.drop(columns=["status", "failure"])
