"""Builds FakeClue (paper section 3.2): chosen images, candidate captions, their aggregate, shards and FakeClue's JSON.

Everything is streamed, images and texts: only the table without images and a few numbers an image are held in memory.
"""

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from fakevlm import paths
from fakevlm.annotation import released
from fakevlm.annotation.aggregate import Annotation, Candidates
from fakevlm.annotation.aggregators import make_aggregator
from fakevlm.annotation.annotators import make_annotators
from fakevlm.annotation.dataset import CandidateWriter, FakeClue, Writer, numbers
from fakevlm.annotation.prompts import label_prompt
from fakevlm.annotation.quality import AGGREGATE, Agreement, ClueQuality, named_kinds
from fakevlm.annotation.splits import plan
from fakevlm.config.params import Endpoint, Params, Released
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth
from fakevlm.data.records import FAKE, Record, read_frame, read_records
from fakevlm.errors import UserError
from fakevlm.inference.driver import Found, Task, annotate_all
from fakevlm.inference.endpoint import need_key
from fakevlm.inference.journal import Journal
from fakevlm.inference.protocol import Annotator, Outcome, name_of
from fakevlm.progress import track

_COLUMNS = ["id", "label", "category", "source", "generator", "item", "split", "sha256"]


def build(
    params: Params,
    *,
    collected: Path | None = None,
    categorized: Path | None = None,
    out: Path | None = None,
    journal: Path | None = None,
    annotators: list[Annotator] | None = None,
) -> FakeClue:
    """Runs the stage `annotate` and writes everything under `out`.

    Args:
        params: the profile; `params.annotate` and the seed are used.
        collected, categorized, out: stage folders; default `artifacts/{collect,categorize,annotate}`.
        journal: the journal's file; default `runs/annotate/journal.jsonl`.
        annotators: default those that the profile names.

    Raises:
        UserError: inputs or a key are missing or do not fit, or the back end lacks something.
    """
    settings = params.annotate
    if isinstance(settings, Released):
        return released.build(params, collected=collected, out=out)
    _need_keys([] if annotators else settings.annotators, settings.aggregator)
    collected = collected or paths.artifacts("collect")
    out = out or paths.artifacts("annotate")
    chosen, tasks = planned(params, collected, categorized)
    truths = read_ground_truth(collected / "truth.jsonl")
    annotators = annotators or make_annotators(settings.annotators, truths, params.seed)

    counted = _Counted(chosen, [name_of(annotator) for annotator in annotators], truths)
    with Journal(journal or paths.runs("annotate") / "journal.jsonl") as book:
        found = annotate_all(tasks, annotators, book, settings.concurrency, total=len(chosen))
        aggregator = make_aggregator(settings, params.seed, book, tasks)
        made = iter(aggregator.aggregate(_Captioned(chosen, found)))
        with (
            Writer(out) as fakeclue,
            CandidateWriter(out / "candidates.parquet") as candidates,
            (out / "not_aggregated.csv").open("w", encoding="utf-8", newline="") as lost,
        ):
            _write(tasks, found, made, counted, fakeclue, candidates, lost)
    if counted.failed and not counted.kept.any():
        raise UserError(
            f"none of {counted.failed.total()} images was aggregated; the last: {counted.last.outcome}, {counted.last.problem}",
            "correct the entry annotate.aggregator; with another model or revision all are asked again",
        )
    chosen = counted.images()
    quality, agreed = counted.quality.table(), counted.agreement.table()
    quality.to_csv(out / "clue_quality.csv", index=False, float_format="%.6f")
    agreed.to_csv(out / "agreement.csv", index=False, float_format="%.6f")
    metrics = _metrics(chosen, counted, quality, agreed)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return FakeClue(chosen, counted.table(), quality, agreed, metrics)


def _need_keys(annotators: Sequence[Any], aggregator: Any) -> None:
    """All keys, the aggregator's too: its first request comes after all captions.

    Raises:
        UserError: one is not set.
    """
    for specs, entry in ((annotators, "annotate.annotators[]"), ([aggregator], "annotate.aggregator")):
        for spec in specs:
            if isinstance(spec, Endpoint):
                need_key(spec, entry)


class Tasks:
    """The images to annotate with their prompts, read from the records each time they are walked through.

    Args:
        records: the folder of records.
        chosen: the images to take, in the order of the records; columns row (its number among the records), category, split.
        tagged_sources: whose fakes get the tag that lets an annotator refrain.
    """

    def __init__(self, records: Path, chosen: pd.DataFrame, tagged_sources: Collection[str]) -> None:
        self._records, self._chosen = records, chosen
        self._tagged = frozenset(tagged_sources)

    def records(self) -> Iterator[tuple[Record, str, str]]:
        """The images' records, each with its category and split."""
        rows = zip(self._chosen["row"], self._chosen["category"], self._chosen["split"], strict=True)
        wanted = next(rows, None)
        for n, record in enumerate(read_records(self._records)):
            if wanted is None:
                return
            if n == wanted[0]:
                yield record, *wanted[1:]
                wanted = next(rows, None)

    def __iter__(self) -> Iterator[Task]:
        for record, category, _ in self.records():
            tagged = record.label == FAKE and record.source in self._tagged
            yield Task(record.id, record.path, record.image, label_prompt(category, record.label, tagged))


class _Captioned:
    """What was said about the images, those left out of which nobody said anything usable; walked through any number of times."""

    def __init__(self, chosen: pd.DataFrame, found: Found) -> None:
        self._chosen, self._found = chosen, found

    def __iter__(self) -> Iterator[Candidates]:
        known = zip(self._chosen["category"], self._chosen["label"], strict=True)
        for (category, label), (key, outcomes) in zip(known, self._found.by_task(), strict=True):
            if captions := _captions(outcomes):
                yield Candidates(key, category, int(label), captions)


class _Counted:
    """Everything that is counted image by image: what becomes of it, and a few numbers of each.

    Args:
        chosen: see `Tasks`.
        annotators: their names.
        truths: what is known, by path.
    """

    def __init__(self, chosen: pd.DataFrame, annotators: list[str], truths: dict[str, GroundTruth]) -> None:
        self._chosen, self._annotators, self._truths = chosen, annotators, truths
        self.kept = np.zeros(len(chosen), bool)
        self.annotators, self.families = np.zeros((2, len(chosen)), np.int8)
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.failed: Counter[str] = Counter()
        self.last: Annotation | None = None  # that failed
        self.silent = self.fakes_without_clue = self.critical = self.clues = 0
        self.quality = ClueQuality([*annotators, AGGREGATE])
        self.agreement = Agreement(annotators)

    def asked(self, n: int, outcomes: dict[str, Outcome]) -> None:
        """Counts what the annotators said about image n."""
        self.outcomes.update((name, outcome.status) for name, outcome in outcomes.items())
        self.annotators[n] = sum(outcome.status == "ok" for outcome in outcomes.values())

    def add(self, n: int, record: Record, captions: dict[str, str], made: Annotation) -> None:
        """Counts image n, which is in FakeClue."""
        self.kept[n] = True
        self.families[n] = made.text.count(": ")
        self.clues += len(made.clues)
        self.critical += sum(point.critical for point in made.clues)
        self.fakes_without_clue += record.label == FAKE and not made.clues
        truth = self._truths.get(record.path)
        if truth is None and record.label != FAKE:
            return
        named = named_kinds({**captions, AGGREGATE: made.text})
        if record.label == FAKE:
            self.agreement.add(named)
        if truth is not None:
            self.quality.add(truth, named)

    def images(self) -> pd.DataFrame:
        """The images of FakeClue; see `FakeClue.images`."""
        numbered = self._chosen.drop(columns="row").assign(annotators=self.annotators, families=self.families)
        return numbered[self.kept].reset_index(drop=True)

    def table(self) -> pd.DataFrame:
        """See `FakeClue.outcomes`."""
        counts = pd.Series(self.outcomes).rename_axis(["annotator", "outcome"])
        return counts.unstack(fill_value=0).reindex(self._annotators)


def _captions(outcomes: dict[str, Outcome]) -> dict[str, str]:
    return {name: outcome.caption for name, outcome in outcomes.items() if outcome.usable}


def _write(
    tasks: Tasks,
    found: Found,
    answers: Iterator[Annotation],
    counted: _Counted,
    fakeclue: Writer,
    candidates: CandidateWriter,
    lost: TextIO,
) -> None:
    """Writes every image's captions, and the image with its answer or why it has none."""
    reasons = csv.writer(lost, lineterminator="\n")
    reasons.writerow(["id", "outcome", "problem"])
    both = zip(tasks.records(), found.by_task(), strict=True)
    for n, ((record, category, split), (key, outcomes)) in enumerate(
        track(both, "aggregate", len(counted.kept))
    ):
        for name, outcome in outcomes.items():
            candidates.add(key, name, outcome.status, outcome.text)
        counted.asked(n, outcomes)
        captions = _captions(outcomes)
        # An image of which nobody said anything usable has no explanation to learn from: left out, and counted.
        if not captions:
            counted.silent += 1
            continue
        made = next(answers)
        if not record.id == key == made.id:
            raise RuntimeError(f"out of step: {record.id}, {key}, {made.id}")
        # Nor has one whose captions a served model did not aggregate: left out, and listed with the reason.
        if made.outcome != "ok":
            counted.failed[made.outcome] += 1
            counted.last = made
            reasons.writerow([made.id, made.outcome, made.problem])
            continue
        counted.add(n, record, captions, made)
        fakeclue.add(record, category, split, made.text)


def planned(
    params: Params, collected: Path | None = None, categorized: Path | None = None
) -> tuple[pd.DataFrame, Tasks]:
    """What the stage will annotate: the chosen images (see `splits.plan`) in the order of the records, `row`, and the tasks.

    Raises:
        UserError: inputs are missing or do not fit.
    """
    settings = params.annotate
    records = (collected or paths.artifacts("collect")) / "records"
    frame = read_frame(records, _COLUMNS)
    chosen = plan(
        frame.assign(row=np.arange(len(frame))),
        _categories(categorized or paths.artifacts("categorize")),
        val_fraction=settings.val_fraction,
        test_fraction=settings.test_fraction,
        balanced=settings.balance,
        seed=params.seed,
    ).sort_values("row", ignore_index=True)
    return chosen, Tasks(records, chosen, settings.tagged_sources)


def _categories(folder: Path) -> pd.DataFrame:
    file = folder / "categories.parquet"
    if not file.is_file():
        raise UserError(f"{file} is missing", "run the stage before this one: `dvc repro categorize`")
    return pq.read_table(file, columns=["id", "category"]).to_pandas()


def _metrics(chosen: pd.DataFrame, counted: _Counted, quality: pd.DataFrame, agreed: pd.DataFrame) -> dict:
    outcomes: Counter[str] = Counter()
    for (_, status), n in counted.outcomes.items():
        outcomes[status] += n
    metrics = {
        **numbers(chosen),
        "outcomes": dict(sorted(outcomes.items())),
        "left_out_without_caption": counted.silent,
        "left_out_not_aggregated": dict(sorted(counted.failed.items())),
        "fakes_without_agreed_artifact": counted.fakes_without_clue,
        "points_kept_from_one_witness": counted.critical,
        "points_per_image": round(counted.clues / max(len(chosen), 1), 4),
        "agreement_jaccard": round(float(agreed["jaccard"].mean()), 6) if len(agreed) else None,
        "agreement_kappa": round(float(agreed["kappa"].mean()), 6) if len(agreed) else None,
    }
    if len(quality):
        f1 = quality.set_index("annotator")["f1"]
        metrics["clue_f1_aggregate"] = round(float(f1[AGGREGATE]), 6)
        metrics["clue_f1_best_annotator"] = round(float(f1.drop(AGGREGATE).max()), 6)
    return metrics
