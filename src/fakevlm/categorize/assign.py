"""Gives every collected record a category: the source's own where it has one, the classifier's elsewhere."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fakevlm import paths
from fakevlm.categorize import eva, person, train
from fakevlm.categorize.synsets import FOUR, nature_category, true_category
from fakevlm.config.params import Params, Person
from fakevlm.data.ground_truth import read_ground_truth
from fakevlm.data.records import Record, read_records
from fakevlm.data.shards import Records, columns_of
from fakevlm.errors import UserError
from fakevlm.inference.batchwise import Viewer, fingerprint

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("category", pa.string(), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),  # source | model
    ]
)
JUDGED = pa.schema([("id", pa.string()), ("category", pa.string()), ("confidence", pa.float64())])


@dataclass(frozen=True)
class Outcome:
    """What the stage made.

    Attributes:
        categories: id, category, confidence (the model's probability; 1 where the source says), origin, sorted by id.
        confusion: truth, predicted, n: all sixteen pairs, over images that the model judged, was not trained on, and whose
            truth is known.
        metrics: accuracy and n (of the confusion), accuracy_validation, n_validation and n_train (of a model trained here),
            n_model, n_source, n_human_by_person (where `categorize.person` is set: images that the classifier took for something else),
            and the recall of each category.
        log: epoch, loss, accuracy of a model trained here; empty where one was named.
    """

    categories: pd.DataFrame
    confusion: pd.DataFrame
    metrics: dict
    log: pd.DataFrame


def learn(records: Iterable[Record], params: Params) -> tuple[eva.Classifier, pd.DataFrame, set[str], int]:
    """Trains the small EVA-02 on the records whose file names state an ImageNet synset.

    Returns:
        The classifier, its log, the ids it was trained on, and the number of images held out.
    """
    named = [(record, category) for record in records if (category := nature_category(record))]
    categories = [category for _, category in named]
    classifier, log = train.train([r.pil() for r, _ in named], categories, params.categorize, params.seed)
    held = train.split(categories, params.seed)
    return (
        classifier,
        log,
        {r.id for (r, _), out in zip(named, held, strict=True) if not out},
        int(held.sum()),
    )


class Sorter:
    """What looks at an image that has no category: the classifier and, where `categorize.person` is set, who sees people.

    Args:
        model: the classifier's folder or name.
        people: the setting, or None.
    """

    def __init__(self, model: str, people: Person | None) -> None:
        self.classifier, self.people = eva.load(model), person.make_judge(people)

    def __call__(self, images: list[Image.Image]) -> dict[str, np.ndarray]:
        """Columns of n rows: `best` (place in `FOUR`), `sure` (its probability), `overruled` (only `people` calls it human)."""
        scores = self.classifier.probabilities(images)
        best, sure = scores.argmax(1), scores.max(1)
        overruled = np.zeros(len(images), bool)
        if self.people is not None:
            seen = self.people(images)
            overruled = (seen > 0) & (best != person.HUMAN)
            best, sure = np.where(seen > 0, person.HUMAN, best), np.where(seen > 0, seen, sure)
        return {"best": best, "sure": sure, "overruled": overruled}


def classify(
    records: Sequence[Record], model: str | Path, params: Params, journal: Path | None = None
) -> tuple[pd.DataFrame, int]:
    """A category and its probability for each record, by the profile's cluster or in this process.

    Args:
        records: n of them, on disk until they are looked at.
        model: the classifier's folder or name.
        params: of these, cluster and `categorize`.
        journal: folder for work in progress.

    Returns:
        id, category, confidence; and the number of images that only `categorize.person` calls human.
    """
    settings, folder = params.categorize, paths.resolve(model)
    name = str(folder) if folder.is_dir() else str(model)
    key = [fingerprint(folder) if folder.is_dir() else name, settings.person and settings.person.model_dump()]
    viewer = Viewer(partial(Sorter, name, settings.person), key, settings.batch_size, params.cluster)
    seen = viewer.look(records, journal, "categorize: EVA-02")
    if not seen:
        return JUDGED.empty_table().to_pandas(), 0
    ids = columns_of(records, ["id"])["id"]
    found = [ids, [FOUR[k] for k in seen["best"]], seen["sure"].astype(np.float64)]
    table = pa.table(dict(zip(JUDGED.names, found, strict=True)), JUDGED)
    return table.to_pandas(), int(seen["overruled"].sum())


def confusion(truth: Iterable[str], predicted: Iterable[str]) -> pd.DataFrame:
    """How often each category was taken for each: truth, predicted, n; all sixteen pairs, zeros too."""
    pairs = Counter(zip(truth, predicted, strict=True))
    return pd.DataFrame(
        [(t, p, pairs[t, p]) for t in FOUR for p in FOUR], columns=["truth", "predicted", "n"]
    )


def measure(table: pd.DataFrame) -> dict:
    """Accuracy, n and the recall of each category of a `confusion` table; None where there is nothing to divide by."""
    right = table[table.truth == table.predicted].set_index("truth").n
    asked = table.groupby("truth").n.sum()
    ratio = lambda part, whole: float(part / whole) if whole else None  # noqa: E731
    return {
        "accuracy": ratio(right.sum(), asked.sum()),
        "n": int(asked.sum()),
        "recall": {category: ratio(right[category], asked[category]) for category in FOUR},
    }


def assign(params: Params, folder: Path, truth: Path | None, out: Path) -> Outcome:
    """Runs the stage: writes `categories.parquet`, `confusion.csv`, `metrics.json`, `log.csv` and, trained here, `model/`.

    Interrupted, it goes on where it was (`runs/categorize/<profile>/`, until `paths.forget`).

    Args:
        params: `params.categorize.model` names the classifier, or None to train the small one.
        folder: record shards of `collect`; never held in memory as a whole.
        truth: the miniature's truth, None or a missing or empty file elsewhere.
        out: `artifacts/categorize`.

    Raises:
        UserError: no records, a model that does not load, too few photographs to train on, two records with one id.
    """
    settings, truths = params.categorize, read_ground_truth(truth)
    if settings.model:
        model, log, seen, held = settings.model, pd.DataFrame(), set(), 0
    else:
        classifier, log, seen, held = learn(read_records(folder), params)
        model = out / "model"  # what is kept is what is used
        eva.save(classifier, model)

    records = Records(folder)
    given = records.frame(["id", "category"])
    if given.id.duplicated().any():
        raise UserError(
            f"two records are called {given.id[given.id.duplicated()].iloc[0]!r}", "rerun collect"
        )
    unknown = records.take(np.flatnonzero(given.category.isna()))
    judged, overruled = classify(unknown, model, params, paths.runs("categorize", params.profile))
    known = given.dropna().assign(confidence=1.0, origin="source")
    categories = pd.concat([known, judged.assign(origin="model")]).sort_values("id", ignore_index=True)

    tested = [
        (true, said)
        for record, said in zip(unknown.without_images(), judged.category, strict=True)
        if record.id not in seen and (true := true_category(record, truths))
    ]
    table = confusion((true for true, _ in tested), (said for _, said in tested))
    metrics = measure(table) | {"n_model": len(judged), "n_source": len(known)}
    if settings.person is not None:
        metrics |= {"n_human_by_person": overruled}
    if len(log):
        metrics |= {
            "accuracy_validation": float(log.accuracy.iloc[-1]),
            "n_validation": held,
            "n_train": len(seen),
        }

    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(categories, SCHEMA, preserve_index=False), out / "categories.parquet")
    table.to_csv(out / "confusion.csv", index=False)
    log.to_csv(out / "log.csv", index=False)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return Outcome(categories, table, metrics, log)
