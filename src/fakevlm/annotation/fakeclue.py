"""Build FakeClue (paper section 3.2): choose images, ask for captions, aggregate them, write shards and JSON.

Images and texts are streamed: only the table without images and a few numbers an image are in memory.
"""

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from fakevlm import paths
from fakevlm.annotation import released
from fakevlm.annotation.aggregate import Annotation, Candidates
from fakevlm.annotation.aggregators import make_aggregator
from fakevlm.annotation.annotators import make_annotators
from fakevlm.annotation.dataset import FakeClue, Writer, counts
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
    """Run the stage `annotate`: write FakeClue and its tables under `out`.

    Args:
        params: the profile; `params.annotate` and the seed are used.
        collected, categorized, out: stage folders; default `artifacts/{collect,categorize,annotate}`.
        journal: the journal's file; default `runs/annotate/journal.jsonl`.
        annotators: default those of the profile.

    Raises:
        UserError: inputs or a key are missing or do not fit, a back end lacks something, or nothing was
            aggregated.
    """
    settings = params.annotate
    if isinstance(settings, Released):
        return released.build(params, collected=collected, out=out)
    _need_keys([] if annotators else settings.annotators, settings.aggregator)
    collected = collected or paths.artifacts("collect")
    out = out or paths.artifacts("annotate")
    chosen, tasks = planned(params, collected, categorized)
    ground_truth = read_ground_truth(collected / "truth.jsonl")
    annotators = annotators or make_annotators(settings.annotators, ground_truth, params.seed)
    results = _Results(chosen, [name_of(annotator) for annotator in annotators], ground_truth)
    with Journal(journal or paths.runs("annotate") / "journal.jsonl") as book:
        captions = annotate_all(tasks, annotators, book, settings.concurrency, total=len(chosen))
        aggregator = make_aggregator(settings, params.seed, book, tasks)
        aggregates = iter(aggregator.aggregate(_Captioned(chosen, captions)))
        _write(out, tasks, captions, aggregates, results)
    return results.finish(out)


def _need_keys(annotators: Sequence[Any], aggregator: Any) -> None:
    """Check all servers' keys at the start: the aggregator's first request comes after all captions.

    Raises:
        UserError: a key is not set.
    """
    for specs, entry in ((annotators, "annotate.annotators[]"), ([aggregator], "annotate.aggregator")):
        for spec in specs:
            if isinstance(spec, Endpoint):
                need_key(spec, entry)


class Tasks:
    """The images to annotate with their prompts, read from the records anew in each iteration.

    Args:
        records: the folder of records.
        chosen: the images, in the order of the records; columns row (a record's number), category, split.
        tagged_sources: sources whose fakes get the tag that lets an annotator refrain.
    """

    def __init__(self, records: Path, chosen: pd.DataFrame, tagged_sources: Collection[str]) -> None:
        self._records, self._chosen, self._tagged = records, chosen, frozenset(tagged_sources)

    def records(self) -> Iterator[tuple[Record, str, str]]:
        """Yield each image's record, category and split."""
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


def planned(
    params: Params, collected: Path | None = None, categorized: Path | None = None
) -> tuple[pd.DataFrame, Tasks]:
    """Return the chosen images (see `splits.plan`), with their record numbers as `row`, and their tasks.

    Raises:
        UserError: inputs are missing or do not fit.
    """
    settings = params.annotate
    records = (collected or paths.artifacts("collect")) / "records"
    frame = read_frame(records, _COLUMNS)
    file = (categorized or paths.artifacts("categorize")) / "categories.parquet"
    if not file.is_file():
        raise UserError(f"{file} is missing", "run the stage before this one: `dvc repro categorize`")
    chosen = plan(
        frame.assign(row=np.arange(len(frame))),
        pq.read_table(file, columns=["id", "category"]).to_pandas(),
        val_fraction=settings.val_fraction,
        test_fraction=settings.test_fraction,
        balanced=settings.balance,
        seed=params.seed,
    ).sort_values("row", ignore_index=True)
    return chosen, Tasks(records, chosen, settings.tagged_sources)


def _usable(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    return {name: outcome.caption for name, outcome in outcomes.items() if outcome.usable}


class _Captioned:
    """The images that have a usable caption, for the aggregator; can be iterated several times."""

    def __init__(self, chosen: pd.DataFrame, captions: Found) -> None:
        self._chosen, self._captions = chosen, captions

    def __iter__(self) -> Iterator[Candidates]:
        rows = zip(self._chosen["category"], self._chosen["label"], strict=True)
        for (category, label), (key, outcomes) in zip(rows, self._captions.by_task(), strict=True):
            if captions := _usable(outcomes):
                yield Candidates(key, category, int(label), captions)


def _write(
    out: Path, tasks: Tasks, captions: Found, aggregates: Iterator[Annotation], results: "_Results"
) -> None:
    """Write all captions, the images that have an answer, and why others have none; count in `results`."""
    with Writer(out) as writer, (out / "not_aggregated.csv").open("w", encoding="utf-8", newline="") as file:
        reasons = csv.writer(file, lineterminator="\n")
        reasons.writerow(["id", "outcome", "problem"])
        images = zip(tasks.records(), captions.by_task(), strict=True)
        for n, image in enumerate(track(images, "aggregate", len(results.kept))):
            (record, category, split), (key, outcomes) = image
            for name, outcome in outcomes.items():
                writer.add_caption(key, name, outcome.status, outcome.text)
            results.add_outcomes(n, outcomes)
            usable = _usable(outcomes)
            if not usable:  # nothing to learn an explanation from
                results.counts["left_out_without_caption"] += 1
                continue
            aggregate = next(aggregates)
            if not record.id == key == aggregate.id:
                raise RuntimeError(f"out of step: {record.id}, {key}, {aggregate.id}")
            if aggregate.outcome != "ok":
                results.failed[aggregate.outcome] += 1
                results.last_failure = aggregate
                reasons.writerow([aggregate.id, aggregate.outcome, aggregate.problem])
                continue
            results.add(n, record, usable, aggregate)
            writer.add(record, category, split, aggregate.text)


class _Results:
    """Counts, image by image.

    Args:
        chosen: see `Tasks`.
        annotators: their names.
        ground_truth: by path.
    """

    def __init__(
        self, chosen: pd.DataFrame, annotators: list[str], ground_truth: Mapping[str, GroundTruth]
    ) -> None:
        self._chosen, self._names, self._ground_truth = chosen, annotators, ground_truth
        self.kept = np.zeros(len(chosen), bool)
        self._annotators, self._families = np.zeros((2, len(chosen)), np.int8)
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self.failed: Counter[str] = Counter()
        self.last_failure: Annotation | None = None
        self.counts: Counter[str] = Counter()
        self._quality = ClueQuality([*annotators, AGGREGATE])
        self._agreement = Agreement(annotators)

    def add_outcomes(self, n: int, outcomes: Mapping[str, Outcome]) -> None:
        """Count the annotators' outcomes about image n."""
        self._outcomes.update((name, outcome.status) for name, outcome in outcomes.items())
        self._annotators[n] = sum(outcome.status == "ok" for outcome in outcomes.values())

    def add(self, n: int, record: Record, captions: dict[str, str], aggregate: Annotation) -> None:
        """Count image n, which is in FakeClue."""
        self.kept[n] = True
        self._families[n] = aggregate.text.count(": ")
        self.counts["clues"] += len(aggregate.clues)
        self.counts["critical"] += sum(clue.critical for clue in aggregate.clues)
        self.counts["fakes_without_clue"] += record.label == FAKE and not aggregate.clues
        truth = self._ground_truth.get(record.path)
        if truth is None and record.label != FAKE:
            return
        named = named_kinds({**captions, AGGREGATE: aggregate.text})
        if record.label == FAKE:
            self._agreement.add(named)
        if truth is not None:
            self._quality.add(truth, named)

    def finish(self, out: Path) -> FakeClue:
        """Write the tables and metrics.

        Raises:
            UserError: no image was aggregated.
        """
        if self.failed and not self.kept.any():
            last = self.last_failure
            raise UserError(
                f"none of {self.failed.total()} images was aggregated; the last: "
                f"{last.outcome}, {last.problem}",
                "correct the entry annotate.aggregator; with another model or revision all are asked again",
            )
        images = self._chosen.drop(columns="row").assign(
            annotators=self._annotators, families=self._families
        )[self.kept]
        outcomes = pd.Series(self._outcomes).rename_axis(["annotator", "outcome"])
        outcomes = outcomes.unstack(fill_value=0).reindex(self._names)
        quality, agreement = self._quality.table(), self._agreement.table()
        quality.to_csv(out / "clue_quality.csv", index=False, float_format="%.6f")
        agreement.to_csv(out / "agreement.csv", index=False, float_format="%.6f")
        metrics = self._metrics(images, quality, agreement)
        (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        return FakeClue(images.reset_index(drop=True), outcomes, quality, agreement, metrics)

    def _metrics(self, images: pd.DataFrame, quality: pd.DataFrame, agreement: pd.DataFrame) -> dict:
        outcomes: Counter[str] = Counter()
        for (_, status), n in self._outcomes.items():
            outcomes[status] += n
        metrics = {
            **counts(images),
            "outcomes": dict(sorted(outcomes.items())),
            "left_out_without_caption": self.counts["left_out_without_caption"],
            "left_out_not_aggregated": dict(sorted(self.failed.items())),
            "fakes_without_agreed_artifact": self.counts["fakes_without_clue"],
            "points_kept_from_one_witness": self.counts["critical"],
            "points_per_image": round(self.counts["clues"] / max(len(images), 1), 4),
        }
        for name in ("jaccard", "kappa"):
            mean = round(float(agreement[name].mean()), 6) if len(agreement) else None
            metrics[f"agreement_{name}"] = mean
        if len(quality):
            f1 = quality.set_index("annotator")["f1"]
            metrics["clue_f1_aggregate"] = round(float(f1[AGGREGATE]), 6)
            metrics["clue_f1_best_annotator"] = round(float(f1.drop(AGGREGATE).max()), 6)
        return metrics
