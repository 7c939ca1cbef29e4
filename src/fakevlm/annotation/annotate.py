"""Build FakeClue (paper section 3.2): choose images, ask for captions, aggregate them, write shards and JSON.

Images are streamed; captions, answers and the table without images are in memory.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from fakevlm import paths
from fakevlm.annotation import released
from fakevlm.annotation.aggregate import Annotation, Candidates, EmbeddingAggregator
from fakevlm.annotation.aggregate_llm import LLMAggregator
from fakevlm.annotation.dataset import FakeClue, compare_ids, counts, write_captions, write_images
from fakevlm.annotation.prompts import label_prompt
from fakevlm.annotation.quality import AGGREGATE, agreement, clue_quality, kinds_row
from fakevlm.annotation.splits import plan
from fakevlm.cache import Cache, answers
from fakevlm.config.params import Endpoint, Params, Released, ServedAggregator
from fakevlm.data.clues import KINDS, kinds_named
from fakevlm.data.csv_files import write_csv
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth
from fakevlm.data.records import FAKE, read_frame
from fakevlm.data.shards import Records
from fakevlm.errors import UserError
from fakevlm.inference.ask import Annotator, Outcome, Request, ask_all
from fakevlm.inference.predict import Columns
from fakevlm.inference.servers import Client, need_key
from fakevlm.plugins import ANNOTATORS, load
from fakevlm.progress import track

_COLUMNS = ["id", "label", "category", "source", "generator", "group", "split", "sha256"]


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

    Stage folders default to `artifacts/{collect,categorize,annotate}`, the store to that of all servers,
    annotators to the profile's. Raises `UserError` if inputs or a key are missing or do not fit, a back end
    lacks something, or nothing was aggregated.
    """
    settings = params.annotate
    if isinstance(settings, Released):
        return released.build(params, collected=collected, out=out)
    # The aggregator's first request comes after all captions: its key is needed now.
    asked = [(spec, "annotate.annotators[]") for spec in ([] if annotators else settings.annotators)]
    for spec, entry in [*asked, (settings.aggregator, "annotate.aggregator")]:
        if isinstance(spec, Endpoint):
            need_key(spec, entry)
    collected = collected or paths.artifacts("collect")
    out = out or paths.artifacts("annotate")
    chosen, requests = planned(params, collected, categorized)
    ground_truths = read_ground_truth(collected / "ground_truth.jsonl")
    annotators = annotators or make_annotators(settings.annotators, ground_truths, params.seed)
    with nullcontext(store) if store else answers() as store:
        answered = ask_all(requests, annotators, store, concurrency=settings.concurrency)
        write_captions(out, chosen["id"], answered)
        columns = [[Outcome(*row) for row in zip(*each.values(), strict=True)] for each in answered.values()]
        captions = [usable(dict(zip(answered, row, strict=True))) for row in zip(*columns, strict=True)]
        spec, least = settings.aggregator, settings.min_annotators
        if isinstance(spec, ServedAggregator):
            aggregator = LLMAggregator(
                spec, least, params.seed, store, requests.picture, settings.concurrency
            )
        else:
            aggregator = EmbeddingAggregator(spec, least)
        rows = zip(chosen["id"], chosen["category"], chosen["label"], captions, strict=True)
        candidates = [Candidates(*row) for row in rows if row[-1]]
        by_id = {one.id: one for one in track(aggregator.aggregate(candidates), "aggregate", len(candidates))}
    annotations = [by_id.get(key) for key in chosen["id"]]  # None without captions: nothing to explain
    chosen = chosen.drop(columns="row").assign(
        status=[one.outcome if one else "no caption" for one in annotations],
        annotators=sum((each["status"] == "ok").astype(int) for each in answered.values()),
        families=[one.text.count(": ") if one else 0 for one in annotations],
    )
    rows = zip(requests.records, chosen["category"], chosen["split"], annotations, strict=True)
    good = (row for row in rows if row[3] and row[3].outcome == "ok")
    write_images(out, (replace(r, category=c, split=s, references=[one.text]) for r, c, s, one in good))
    return _measure(out, settings.expected, chosen, answered, captions, annotations, ground_truths)


def served(spec: Endpoint, ground_truths: Mapping[str, GroundTruth], seed: int) -> Annotator:
    """Return the annotator behind servers (`backend: endpoint`)."""
    return Client(spec, seed)


def make_annotators(specs: Sequence, ground_truths: Mapping[str, GroundTruth], seed: int) -> list[Annotator]:
    """Return the annotators of `annotate.annotators`. Raises `UserError` for what a back end lacks."""
    references = [getattr(spec, "object", spec.backend) for spec in specs]
    makers = [load(reference, ANNOTATORS, "annotate.annotators[].backend") for reference in references]
    return [make(spec, ground_truths, seed) for make, spec in zip(makers, specs, strict=True)]


class Requests(Sequence[Request]):
    """The images to annotate with their prompts, read when they are indexed.

    `chosen` are the images, in the order of the records, with columns id, row (a record's number), category.
    Fakes of `tagged_sources` get the tag that lets an annotator refrain.
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

    Raises `UserError` if inputs are missing or do not fit.
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


def usable(outcomes: Mapping[str, Outcome]) -> dict[str, str]:
    """Return what the aggregation may read, by annotator."""
    return {name: outcome.caption for name, outcome in outcomes.items() if outcome.caption}


def _measure(
    out: Path,
    expected: str | None,
    chosen: pd.DataFrame,
    answered: Mapping[str, Columns],
    captions: list[dict[str, str]],
    annotations: list[Annotation | None],
    ground_truths: Mapping[str, GroundTruth],
) -> FakeClue:
    """Write the tables and metrics. Raises `UserError` if no image was aggregated, or the list is missing."""
    ok = (chosen["status"] == "ok").to_numpy()
    rows = [(one.id, one.outcome, one.problem) for one in annotations if one and one.outcome != "ok"]
    failures = pd.DataFrame(rows, columns=["id", "outcome", "problem"])
    if len(failures) and not ok.any():
        what = f"none of {len(failures)} images was aggregated; the last: {', '.join(rows[-1][1:])}"
        cure = "correct the entry annotate.aggregator; with another model or revision all are asked again"
        raise UserError(what, cure)
    write_csv(failures, out / "not_aggregated.csv")
    images = chosen[ok].drop(columns="status").reset_index(drop=True)
    write_csv(images[["id", "split"]], out / "ids.csv")
    answers = [one for one in annotations if one and one.outcome == "ok"]
    names, authors = list(answered), [*answered, AGGREGATE]
    each = [ground_truths.get(key) for key in images["id"]]
    measured = np.array([one is not None for one in each], bool)
    fakes = (images["label"] == FAKE).to_numpy()
    named = np.zeros((len(images), len(authors), len(KINDS)), bool)
    for n, row in enumerate(np.flatnonzero(ok)):
        if fakes[n] or measured[n]:
            texts = {**captions[row], AGGREGATE: answers[n].text}
            named[n] = [kinds_row(kinds_named(texts.get(author, ""))) for author in authors]
    true = np.array([kinds_row(one.kinds) for one in each if one]).reshape(-1, len(KINDS))
    quality = clue_quality(authors, named[measured], true, images["label"].to_numpy()[measured])
    pairs = agreement(names, named[fakes, :-1])
    quality.to_csv(out / "clue_quality.csv", index=False, float_format="%.6f")
    pairs.to_csv(out / "agreement.csv", index=False, float_format="%.6f")
    counted = {name: pd.Series(each["status"]).value_counts() for name, each in answered.items()}
    outcomes = pd.DataFrame(counted).T.fillna(0).astype(int).sort_index(axis=1)
    outcomes = outcomes.rename_axis(index="annotator", columns="outcome")
    clues = np.array([len(one.clues) for one in answers], int)
    metrics = {
        **counts(images),
        **({"ids": compare_ids(images, paths.resolve(expected), out)} if expected else {}),
        "outcomes": {status: int(n) for status, n in outcomes.sum().items()},
        "left_out_without_caption": int((chosen["status"] == "no caption").sum()),
        "left_out_not_aggregated": failures["outcome"].value_counts().sort_index().to_dict(),
        "fakes_without_agreed_artifact": int((clues[fakes] == 0).sum()),
        "points_kept_from_one_witness": sum(clue.critical for one in answers for clue in one.clues),
        "points_per_image": round(int(clues.sum()) / max(len(images), 1), 4),
    }
    for name in ("jaccard", "kappa"):
        metrics[f"agreement_{name}"] = round(float(pairs[name].mean()), 6) if len(pairs) else None
    if len(quality):
        f1 = quality.set_index("annotator")["f1"]
        metrics["clue_f1_aggregate"] = round(float(f1[AGGREGATE]), 6)
        metrics["clue_f1_best_annotator"] = round(float(f1.drop(AGGREGATE).max()), 6)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return FakeClue(images, outcomes, quality, pairs, metrics)
