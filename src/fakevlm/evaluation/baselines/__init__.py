"""Language models behind servers as rows of Tables 2 and 4: asked about each image, their words read as FakeVLM's are.

Client, journal and driver are the annotators' (`annotation`): requests run side by side, every image ends with exactly one
outcome, and what was answered is never asked again, neither by a run that was killed nor by a later one: answers from
servers cost money, so their journal (`runs/baselines/<benchmark>/<name>.jsonl`) outlives the stage.

A verdict is read from an answer, whole or cut off, by `model.verdict`. Who refuses, says nothing or is not let to see the image
has given none: *unparsed*, which every metric counts as wrong. There is no P(fake), hence no AUC.
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
from fakevlm.data.shards import columns_of, without_images
from fakevlm.errors import UserError
from fakevlm.inference.driver import Task, annotate_all
from fakevlm.inference.journal import Journal
from fakevlm.inference.protocol import Outcome
from fakevlm.model import verdict

SPOKEN = ("ok", "truncated")  # outcomes whose text is an answer; the verdict comes first, before any cut


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
    """

    def __init__(self, spec: Baseline, records: Sequence[Record]) -> None:
        self.records, self.prompt = records, spec.prompt or standard_prompt()

    def question(self, record: Record) -> str:
        return record.question or self.prompt

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
    """Return who answers for an entry of `evaluate.baselines` (see `answers`).

    Raises:
        UserError: its key is not set.
    """
    from fakevlm.inference.endpoint import need_key

    need_key(spec, "evaluate.baselines[]")
    return lambda records, cache: answers(spec, seed, records, paths.runs("baselines"))


def answers(spec: Baseline, seed: int, records: Sequence[Record], journal: Path) -> pd.DataFrame:
    """A baseline's answers about n records.

    Args:
        spec: its entry in `evaluate.baselines`.
        seed: the profile's, used if the entry has none.
        records: see `Tasks`.
        journal: folder of the journal.

    Returns:
        n rows in the order of `records`: id, text (null where the server rejected the request), p_fake (NaN),
        verdict (fake, real, unparsed), forced (False) and outcome (ok, truncated, refused, empty, rejected).

    Raises:
        UserError: no server, key or model; or some requests failed even when repeated: what was answered is kept, and a
            benchmark with holes is not scored.
    """
    from fakevlm.inference.endpoint import EndpointAnnotator

    tasks = Tasks(spec, records)
    annotator = EndpointAnnotator(spec, seed, entry="evaluate.baselines[]", who="baseline")
    with Journal(journal_of(spec, journal)) as book:
        found = annotate_all(tasks, [annotator], book, total=len(records), what="ask")
    outcomes = [candidate.outcome for candidate in found]
    failed = [outcome for outcome in outcomes if not outcome.is_answer]
    if failed:
        raise UserError(
            f"baseline {spec.name}: {len(failed)} of {len(records)} requests failed, the last with: {failed[-1].text}",
            "run the stage again: only these are asked, the rest is in the journal",
        )
    return pd.DataFrame(
        {
            "id": columns_of(records, ["id"])["id"],
            "text": [_said(outcome) for outcome in outcomes],
            "p_fake": float("nan"),
            "verdict": [
                verdict.parse(outcome.text, tasks.question(record))
                if outcome.status in SPOKEN
                else "unparsed"
                for outcome, record in zip(outcomes, without_images(records), strict=True)
            ],
            "forced": False,
            "outcome": [outcome.status for outcome in outcomes],
        }
    )
