"""Build FakeClue (paper section 3.2): choose images, ask for captions, aggregate them, write shards and JSON.

Images are streamed; the captions and the table without images are in memory.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from fakevlm import paths
from fakevlm.annotation import released
from fakevlm.annotation.aggregate import Annotation, Candidates
from fakevlm.annotation.annotators import make_aggregator, make_annotators
from fakevlm.annotation.dataset import FakeClue, counts, write_captions, write_images
from fakevlm.annotation.prompts import label_prompt
from fakevlm.annotation.quality import AGGREGATE, agreement, clue_quality, kinds_row
from fakevlm.annotation.splits import plan
from fakevlm.cache import Cache, answers
from fakevlm.config.params import Endpoint, Params, Released
from fakevlm.data.clues import KINDS, kinds_named
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth
from fakevlm.data.records import FAKE, Record, read_frame
from fakevlm.data.shards import Records
from fakevlm.errors import UserError
from fakevlm.inference.ask import Annotator, Outcome, Request, ask_all, name_of
from fakevlm.inference.predict import Columns
from fakevlm.inference.servers import need_key
from fakevlm.progress import track

_COLUMNS = ["id", "label", "category", "source", "generator", "item", "split", "sha256"]


def build(
    params: Params,
    *,
    collected: Path | None = None,
    categorized: Path | None = None,
    out: Path | None = None,
    store: Cache | None = None,
    annotators: list[Annotator] | None = None,
) -> FakeClue:
    """Run the stage `annotate`: write FakeClue and its tables under `out`.

    Args:
        params: the profile; `params.annotate` and the seed are used.
        collected, categorized, out: stage folders; default `artifacts/{collect,categorize,annotate}`.
        store: the cache of answers; default that of all servers.
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
    chosen, requests = planned(params, collected, categorized)
    ground_truth = read_ground_truth(collected / "truth.jsonl")
    annotators = annotators or make_annotators(settings.annotators, ground_truth, params.seed)
    results = _Results(chosen, [name_of(annotator) for annotator in annotators], ground_truth)
    with nullcontext(store) if store else answers() as store:
        columns = ask_all(requests, annotators, store, concurrency=settings.concurrency)
        write_captions(out, chosen["id"], columns)
        captions = Captions(chosen, columns)
        aggregator = make_aggregator(settings, params.seed, store, requests.picture)
        write_images(out, _answered(requests, captions, iter(aggregator.aggregate(captions)), results))
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


class Requests(Sequence[Request]):
    """The images to annotate with their prompts, read when they are indexed.

    Args:
        records: the folder of records.
        chosen: the images, in the order of the records; columns id, row (a record's number), category, split.
        tagged_sources: sources whose fakes get the tag that lets an annotator refrain.
    """

    def __init__(self, records: Path, chosen: pd.DataFrame, tagged_sources: Collection[str]) -> None:
        self.records = Records(records).take(chosen["row"])
        self._categories, self._tagged = chosen["category"].tolist(), frozenset(tagged_sources)
        self._rows = {key: n for n, key in enumerate(chosen["id"])}

    def __len__(self) -> int:
        return len(self._categories)

    def __getitem__(self, n: int) -> Request:
        record = self.records[n]
        tagged = record.label == FAKE and record.source in self._tagged
        prompt = label_prompt(self._categories[n], record.label, tagged)
        return Request(record.id, record.path, record.image, prompt)

    def picture(self, key: str) -> bytes:
        """Return an image's encoded bytes by its id."""
        return self.records[self._rows[key]].image


def planned(
    params: Params, collected: Path | None = None, categorized: Path | None = None
) -> tuple[pd.DataFrame, Requests]:
    """Return the chosen images (see `splits.plan`), with their record numbers as `row`, and their requests.

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
    return chosen, Requests(records, chosen, settings.tagged_sources)


class Captions:
    """The annotators' answers about the images; iterates the images that have a usable caption.

    Args:
        chosen: see `Requests`.
        columns: by annotator, status and text of each answer.
    """

    def __init__(self, chosen: pd.DataFrame, columns: Mapping[str, Columns]) -> None:
        self._chosen, self._columns = chosen[["id", "category", "label"]], columns

    def of(self, n: int) -> dict[str, Outcome]:
        """Return the outcomes about image n, by annotator."""
        return {name: Outcome(each["status"][n], each["text"][n]) for name, each in self._columns.items()}

    def __iter__(self) -> Iterator[Candidates]:
        for n, row in enumerate(self._chosen.itertuples(index=False)):
            if captions := usable(self.of(n)):
                yield Candidates(row.id, row.category, int(row.label), captions)


def usable(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Return what the aggregation may read, by annotator."""
    return {name: outcome.caption for name, outcome in outcomes.items() if outcome.usable}


def _answered(
    requests: Requests, captions: Captions, aggregates: Iterator[Annotation], results: "_Results"
) -> Iterator[Record]:
    """Yield the images that have an answer, with it; count all in `results`."""
    images = results.images
    rows = zip(requests.records, images["category"], images["split"], strict=True)
    for n, (record, category, split) in enumerate(track(rows, "aggregate", len(images))):
        outcomes = captions.of(n)
        texts = usable(outcomes)
        aggregate = next(aggregates) if texts else None  # without captions there is nothing to explain
        if aggregate and aggregate.id != record.id:
            raise RuntimeError(f"out of step: {record.id}, {aggregate.id}")
        results.add(n, record, outcomes, texts, aggregate)
        if aggregate and aggregate.outcome == "ok":
            yield replace(record, category=category, split=split, references=[aggregate.text])


class _Results:
    """Counts of what became of each image.

    Args:
        chosen: see `Requests`.
        annotators: their names.
        ground_truth: by path.
    """

    def __init__(
        self, chosen: pd.DataFrame, annotators: list[str], ground_truth: Mapping[str, GroundTruth]
    ) -> None:
        self.images, self._ground_truth = chosen.drop(columns="row"), ground_truth
        self._authors = [*annotators, AGGREGATE]
        self._status = np.full(len(chosen), "no caption", object)  # or the aggregate's outcome
        self._annotators, self._families, self._clues, self._critical = np.zeros((4, len(chosen)), np.int16)
        self._measured = np.zeros(len(chosen), bool)  # images with ground truth
        self._named = np.zeros((len(chosen), len(self._authors), len(KINDS)), bool)
        self._truth = np.zeros((len(chosen), len(KINDS)), bool)
        self._outcomes: Counter[tuple[str, str]] = Counter()
        self._failures: list[tuple[str, str, str]] = []

    def add(
        self,
        n: int,
        record: Record,
        outcomes: Mapping[str, Outcome],
        captions: Mapping[str, str],
        aggregate: Annotation | None,
    ) -> None:
        """Count image n: its annotators' outcomes, usable captions and aggregate."""
        self._outcomes.update((name, outcome.status) for name, outcome in outcomes.items())
        self._annotators[n] = sum(outcome.status == "ok" for outcome in outcomes.values())
        if aggregate is None:
            return
        self._status[n] = aggregate.outcome
        if aggregate.outcome != "ok":
            self._failures.append((aggregate.id, aggregate.outcome, aggregate.problem))
            return
        self._families[n] = aggregate.text.count(": ")
        self._clues[n] = len(aggregate.clues)
        self._critical[n] = sum(clue.critical for clue in aggregate.clues)
        texts = {**captions, AGGREGATE: aggregate.text}
        if truth := self._ground_truth.get(record.path):
            self._measured[n], self._truth[n] = True, kinds_row(truth.kinds)
        if truth or record.label == FAKE:
            self._named[n] = [kinds_row(kinds_named(texts.get(author, ""))) for author in self._authors]

    def finish(self, out: Path) -> FakeClue:
        """Write the tables and metrics.

        Raises:
            UserError: no image was aggregated.
        """
        kept, names = self._status == "ok", self._authors[:-1]
        if self._failures and not kept.any():
            _, outcome, problem = self._failures[-1]
            raise UserError(
                f"none of {len(self._failures)} images was aggregated; the last: {outcome}, {problem}",
                "correct the entry annotate.aggregator; with another model or revision all are asked again",
            )
        images = self.images.assign(annotators=self._annotators, families=self._families)[kept]
        outcomes = pd.Series(self._outcomes).rename_axis(["annotator", "outcome"])
        outcomes = outcomes.unstack(fill_value=0).reindex(names)
        labels, measured = self.images["label"].to_numpy(), kept & self._measured
        quality = clue_quality(self._authors, self._named[measured], self._truth[measured], labels[measured])
        fakes = kept & (labels == FAKE)
        pairs = agreement(names, self._named[fakes, :-1])
        quality.to_csv(out / "clue_quality.csv", index=False, float_format="%.6f")
        pairs.to_csv(out / "agreement.csv", index=False, float_format="%.6f")
        failures = pd.DataFrame(self._failures, columns=["id", "outcome", "problem"])
        failures.to_csv(out / "not_aggregated.csv", index=False)
        metrics = {
            **counts(images),
            "outcomes": {status: int(n) for status, n in outcomes.sum().sort_index().items()},
            "left_out_without_caption": int((self._status == "no caption").sum()),
            "left_out_not_aggregated": failures["outcome"].value_counts().sort_index().to_dict(),
            "fakes_without_agreed_artifact": int((self._clues[fakes] == 0).sum()),
            "points_kept_from_one_witness": int(self._critical.sum()),
            "points_per_image": round(int(self._clues.sum()) / max(len(images), 1), 4),
        }
        for name in ("jaccard", "kappa"):
            metrics[f"agreement_{name}"] = round(float(pairs[name].mean()), 6) if len(pairs) else None
        if len(quality):
            f1 = quality.set_index("annotator")["f1"]
            metrics["clue_f1_aggregate"] = round(float(f1[AGGREGATE]), 6)
            metrics["clue_f1_best_annotator"] = round(float(f1.drop(AGGREGATE).max()), 6)
        (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
        return FakeClue(images.reset_index(drop=True), outcomes, quality, pairs, metrics)
