"""Language models behind servers as rows of Tables 2 and 4; their words are read as FakeVLM's are.

What a server answered is never asked again, neither by a run that was killed nor by a later one, because
answers cost money: their journal outlives the stage. The verdict is read from the answer, whole or cut off
(`model.verdict`). A model that refuses, says nothing or gives no verdict is *unparsed*. It is then asked
once more, so that the server allows only the words real and fake (`verdict_forced`). There is no P(fake),
hence no AUC.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fakevlm import paths
from fakevlm.config.params import Baseline
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of, take, without_images
from fakevlm.errors import UserError
from fakevlm.inference.driver import Task, annotate_all
from fakevlm.inference.journal import Journal
from fakevlm.inference.protocol import Outcome
from fakevlm.model import verdict
from fakevlm.progress import say

SPOKEN = ("ok", "truncated")  # outcomes whose text is an answer; the verdict comes first, before any cut


# What is added where an answer gives no verdict, and how its answer is bound to the two words.
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
    """The prompt of `prompts.yaml`: verdict first, then the explanation."""
    data = yaml.safe_load(resources.files(__package__).joinpath("prompts.yaml").read_text(encoding="utf-8"))
    return data["standard"]


class Tasks:
    """Records as a baseline is asked about them; made as they are needed, so that images are in memory once.

    Args:
        spec: the baseline's entry in `evaluate.baselines`.
        records: each is asked its own question if it has one, else the entry's prompt, else the standard one.
        more: added to each question.
    """

    def __init__(self, spec: Baseline, records: Sequence[Record], more: str = "") -> None:
        self.records, self.prompt, self.more = records, spec.prompt or standard_prompt(), more

    def question(self, record: Record) -> str:
        return (record.question or self.prompt) + self.more

    def __iter__(self) -> Iterator[Task]:
        for record in self.records:
            yield Task(record.id, record.path, record.image, Question(self.question(record)))


def journal_of(spec: Baseline, folder: Path) -> Path:
    """The file in `folder` that keeps a baseline's answers."""
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', spec.name.lower()).strip('-')}.jsonl"


def _said(outcome: Outcome) -> str | None:
    """A model's own words; None where it never spoke and the text is a server's message."""
    return None if outcome.status == "rejected" else outcome.text


def baseline(spec: Baseline, seed: int) -> Callable[[Sequence[Record], Any], pd.DataFrame]:
    """A function from records to the answers of an entry of `evaluate.baselines` (see `answers`).

    Raises:
        UserError: its key is not set.
    """
    from fakevlm.inference.endpoint import need_key

    need_key(spec, "evaluate.baselines[]")
    return lambda records, cache: answers(spec, seed, records, paths.runs("baselines"))


def _ask(
    spec: Baseline, seed: int, tasks: Tasks, journal: Path, sampling: dict[str, Any] | None = None
) -> list[Outcome]:
    """What the servers answer to each task.

    Raises:
        UserError: see `answers`.
    """
    from fakevlm.inference.endpoint import EndpointAnnotator

    annotator = EndpointAnnotator(spec, seed, sampling, entry="evaluate.baselines[]", who="baseline")
    with Journal(journal_of(spec, journal)) as book:
        candidates = annotate_all(tasks, [annotator], book, total=len(tasks.records), what="ask")
    outcomes = [candidate.outcome for candidate in candidates]
    failed = [outcome for outcome in outcomes if not outcome.is_answer]
    if failed:
        raise UserError(
            f"baseline {spec.name}: {len(failed)} of {len(outcomes)} requests failed, "
            f"the last with: {failed[-1].text}",
            "run the stage again: only these are asked, the rest is in the journal",
        )
    return outcomes


def _verdict(outcome: Outcome, question: str | None = None) -> verdict.Verdict:
    return verdict.parse(outcome.text, question) if outcome.status in SPOKEN else "unparsed"


def _forced(
    spec: Baseline, seed: int, records: Sequence[Record], journal: Path
) -> list[verdict.Verdict | None]:
    """The verdicts of records that gave none, from a request that allows only the two words.

    None for all if the server rejects the first such request: it does not know `response_format`.
    """
    verdicts: list[verdict.Verdict | None] = []
    for rows in range(min(1, len(records))), range(1, len(records)):
        tasks = Tasks(spec, take(records, list(rows)), CHOICE)
        outcomes = _ask(spec, seed, tasks, journal, FORCED) if rows else []
        if not verdicts and outcomes and outcomes[0].status == "rejected":
            say(f"baseline {spec.name}: no forced choice ({outcomes[0].text})")
            return [None] * len(records)
        verdicts += [_verdict(outcome) for outcome in outcomes]
    return verdicts


def answers(spec: Baseline, seed: int, records: Sequence[Record], journal: Path) -> pd.DataFrame:
    """A baseline's answers about n records.

    Args:
        spec: its entry in `evaluate.baselines`.
        seed: the profile's, used if the entry has none.
        records: see `Tasks`.
        journal: folder of the journal.

    Returns:
        n rows in the order of `records`: id, text (null where the server rejected the request), p_fake (NaN),
        verdict (fake, real, unparsed), verdict_forced (null if the server gives no forced choice), forced
        (False) and outcome (ok, truncated, refused, empty, rejected).

    Raises:
        UserError: no server, key or model; or some requests failed even when repeated: what was answered is
            kept, and a benchmark with holes is not scored.
    """
    tasks = Tasks(spec, records)
    outcomes = _ask(spec, seed, tasks, journal)
    verdicts = [
        _verdict(outcome, tasks.question(record))
        for outcome, record in zip(outcomes, without_images(records), strict=True)
    ]
    choices: list[verdict.Verdict | None] = list(verdicts)
    silent = [
        n for n, outcome in enumerate(outcomes) if verdicts[n] == "unparsed" and outcome.status != "rejected"
    ]
    for n, choice in zip(silent, _forced(spec, seed, take(records, silent), journal), strict=True):
        choices[n] = choice
    return pd.DataFrame(
        {
            "id": columns_of(records, ["id"])["id"],
            "text": [_said(outcome) for outcome in outcomes],
            "p_fake": float("nan"),
            "verdict": verdicts,
            "verdict_forced": choices,
            "forced": False,
            "outcome": [outcome.status for outcome in outcomes],
        }
    )
