"""Builds FakeClue (paper section 3.2): chosen images, candidate captions, their aggregate, shards and FakeClue's JSON.

Images are streamed throughout: only texts and the table without images are held in memory.
"""

import json
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakevlm import paths
from fakevlm.annotation import released
from fakevlm.annotation.aggregate import Annotation, Candidates
from fakevlm.annotation.aggregators import make_aggregator
from fakevlm.annotation.annotators import make_annotators
from fakevlm.annotation.dataset import CANDIDATES, FakeClue, numbers, write
from fakevlm.annotation.driver import Candidate, Task, annotate_all
from fakevlm.annotation.journal import Journal
from fakevlm.annotation.prompts import label_prompt
from fakevlm.annotation.protocol import Annotator, name_of
from fakevlm.annotation.quality import AGGREGATE, agreement, clue_quality
from fakevlm.annotation.splits import plan
from fakevlm.errors import UserError
from fakevlm.miniature.truth import read_truth
from fakevlm.params import Params, Released
from fakevlm.progress import track
from fakevlm.records import FAKE, read_frame, read_records

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
        UserError: inputs are missing or do not fit, or the back end lacks something.
    """
    settings = params.annotate
    if isinstance(settings, Released):
        return released.build(params, collected=collected, out=out)
    collected = collected or paths.artifacts("collect")
    out = out or paths.artifacts("annotate")
    chosen, tasks = planned(params, collected, categorized)
    truths = read_truth(collected / "truth.jsonl")
    annotators = annotators or make_annotators(settings.annotators, truths, params.seed)

    with Journal(journal or paths.runs("annotate") / "journal.jsonl") as book:
        found = annotate_all(tasks, annotators, book, settings.concurrency, total=len(chosen))
        captions = _captions(found)
        # An image of which nobody said anything usable has no explanation to learn from: left out, and counted.
        silent = [key for key in chosen.index if not captions.get(key)]
        chosen = chosen.drop(index=silent)
        images = (
            Candidates(key, row.category, int(row.label), captions[key])
            for key, row in zip(chosen.index, chosen.itertuples(), strict=True)
        )
        aggregator = make_aggregator(settings, params.seed, book, tasks)
        made = list(track(aggregator.aggregate(images), "aggregate", total=len(chosen)))
    candidates = _table(found)
    # Nor has one whose captions a served model did not aggregate: left out, and listed with the reason.
    aggregated, failed = [a for a in made if a.outcome == "ok"], [a for a in made if a.outcome != "ok"]
    if failed and not aggregated:
        raise UserError(
            f"none of {len(failed)} images was aggregated; the last: {failed[-1].outcome}, {failed[-1].problem}",
            "correct the entry annotate.aggregator; with another model or revision all are asked again",
        )
    chosen = chosen.drop(index=[annotation.id for annotation in failed])
    answers = {annotation.id: annotation.text for annotation in aggregated}
    chosen["answer"] = chosen.index.map(answers)
    write(chosen, collected / "records", out)
    pq.write_table(
        pa.Table.from_pandas(candidates, CANDIDATES, preserve_index=False), out / "candidates.parquet"
    )
    lost = pd.DataFrame([(a.id, a.outcome, a.problem) for a in failed], columns=["id", "outcome", "problem"])
    lost.to_csv(out / "not_aggregated.csv", index=False)

    texts = {
        name: {key: said[name] for key, said in captions.items() if name in said}
        for name in map(name_of, annotators)
    }
    known = {key: truths[_path(key)] for key in chosen.index if _path(key) in truths}
    quality = clue_quality({**texts, AGGREGATE: answers}, known)
    agreed = agreement(texts, sorted(chosen.index[chosen["label"] == FAKE]))
    quality.to_csv(out / "clue_quality.csv", index=False, float_format="%.6f")
    agreed.to_csv(out / "agreement.csv", index=False, float_format="%.6f")
    metrics = _metrics(chosen, found, aggregated, failed, quality, agreed, silent)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return FakeClue(chosen.reset_index(), candidates, quality, agreed, metrics)


class Tasks:
    """The images to annotate with their prompts, read from the records each time they are walked through.

    Args:
        records: the folder of records.
        chosen: the images to take, by id; column category.
        tagged_sources: whose fakes get the tag that lets an annotator refrain.
    """

    def __init__(self, records: Path, chosen: pd.DataFrame, tagged_sources: Collection[str]) -> None:
        self._records = records
        # One text a category, not one a record.
        self._category = dict(zip(chosen.index, map(sys.intern, chosen["category"]), strict=True))
        self._tagged = frozenset(tagged_sources)

    def __iter__(self) -> Iterator[Task]:
        for record in read_records(self._records):
            if record.id in self._category:
                tagged = record.label == FAKE and record.source in self._tagged
                prompt = label_prompt(self._category[record.id], record.label, tagged)
                yield Task(record.id, record.path, record.image, prompt)


def planned(
    params: Params, collected: Path | None = None, categorized: Path | None = None
) -> tuple[pd.DataFrame, Tasks]:
    """What the stage will annotate: the chosen images by id (see `splits.plan`) and the tasks.

    Raises:
        UserError: inputs are missing or do not fit.
    """
    settings = params.annotate
    records = (collected or paths.artifacts("collect")) / "records"
    chosen = plan(
        read_frame(records, _COLUMNS),
        _categories(categorized or paths.artifacts("categorize")),
        val_fraction=settings.val_fraction,
        test_fraction=settings.test_fraction,
        balanced=settings.balance,
        seed=params.seed,
    ).set_index("id")
    return chosen, Tasks(records, chosen, settings.tagged_sources)


def _path(key: str) -> str:
    return key.split("#")[0]


def _categories(folder: Path) -> pd.DataFrame:
    file = folder / "categories.parquet"
    if not file.is_file():
        raise UserError(f"{file} is missing", "run the stage before this one: `dvc repro categorize`")
    return pq.read_table(file, columns=["id", "category"]).to_pandas()


def _table(found: list[Candidate]) -> pd.DataFrame:
    rows = [(c.id, c.annotator, c.outcome.status, c.outcome.text) for c in found]
    return pd.DataFrame(rows, columns=CANDIDATES.names).sort_values(["id", "annotator"], ignore_index=True)


def _captions(found: list[Candidate]) -> dict[str, dict[str, str]]:
    captions: dict[str, dict[str, str]] = {}
    for candidate in found:
        if candidate.outcome.usable:
            captions.setdefault(candidate.id, {})[candidate.annotator] = candidate.outcome.caption
    return captions


def _metrics(
    chosen: pd.DataFrame,
    found: list[Candidate],
    aggregated: list[Annotation],
    failed: list[Annotation],
    quality: pd.DataFrame,
    agreed: pd.DataFrame,
    silent: list[str],
) -> dict:
    points = {annotation.id: annotation.points for annotation in aggregated}
    fakes = chosen.index[chosen["label"] == FAKE]
    counted = {
        **numbers(chosen),
        "outcomes": dict(sorted(Counter(c.outcome.status for c in found).items())),
        "left_out_without_caption": len(silent),
        "left_out_not_aggregated": dict(sorted(Counter(a.outcome for a in failed).items())),
        "fakes_without_agreed_artifact": sum(not points[key] for key in fakes),
        "points_kept_from_one_witness": sum(p.critical for kept in points.values() for p in kept),
        "points_per_image": round(sum(map(len, points.values())) / max(len(points), 1), 4),
        "agreement_jaccard": round(float(agreed["jaccard"].mean()), 6) if len(agreed) else None,
        "agreement_kappa": round(float(agreed["kappa"].mean()), 6) if len(agreed) else None,
    }
    if len(quality):
        f1 = quality.set_index("annotator")["f1"]
        counted["clue_f1_aggregate"] = round(float(f1[AGGREGATE]), 6)
        counted["clue_f1_best_annotator"] = round(float(f1.drop(AGGREGATE).max()), 6)
    return counted
