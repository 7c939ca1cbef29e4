"""Gives every collected record a category: the source's own where it has one, the classifier's elsewhere."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakevlm.categorize import eva, person, train
from fakevlm.categorize.synsets import FOUR, nature_category, true_category
from fakevlm.errors import UserError
from fakevlm.miniature.truth import read_truth
from fakevlm.params import Params
from fakevlm.progress import bar
from fakevlm.records import Record, read_frame, read_headers, read_records

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


def classify(
    records: Iterable[Record],
    classifier: eva.Classifier,
    batch_size: int,
    total: int | None = None,
    people: person.Judge | None = None,
) -> tuple[pd.DataFrame, int]:
    """The classifier's category and its probability for each record, unless `people` sees people in it.

    Returns:
        id, category, confidence; and the number of images that only `people` calls human.
    """
    tables, overruled = [], 0
    with bar(total, "categorize: EVA-02") as progress:
        for batch in eva.batches(records, batch_size):
            images = [record.pil() for record in batch]
            scores = classifier.probabilities(images)
            best, sure = scores.argmax(1), scores.max(1)
            if people is not None:
                seen = people(images)
                overruled += int(((seen > 0) & (best != person.HUMAN)).sum())
                best, sure = np.where(seen > 0, person.HUMAN, best), np.where(seen > 0, seen, sure)
            found = [[r.id for r in batch], [FOUR[k] for k in best], [float(p) for p in sure]]
            tables.append(pa.table(dict(zip(JUDGED.names, found, strict=True)), JUDGED))
            progress.update(len(batch))
    return pa.concat_tables([JUDGED.empty_table(), *tables]).to_pandas(), overruled


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

    Args:
        params: `params.categorize.model` names the classifier, or None to train the small one.
        folder: record shards of `collect`; read twice, never held in memory as a whole.
        truth: the miniature's truth, None or a missing or empty file elsewhere.
        out: `artifacts/categorize`.

    Raises:
        UserError: no records, a model that does not load, too few photographs to train on, two records with one id.
    """
    settings, truths = params.categorize, read_truth(truth)
    if settings.model:
        classifier, log, seen, held = eva.load(settings.model), pd.DataFrame(), set(), 0
    else:
        classifier, log, seen, held = learn(read_records(folder), params)
        eva.save(classifier, out / "model")
        classifier = eva.load(out / "model")  # what is kept is what is used

    given = read_frame(folder, ["id", "category"])
    if given.id.duplicated().any():
        raise UserError(
            f"two records are called {given.id[given.id.duplicated()].iloc[0]!r}", "rerun collect"
        )
    unknown = (record for record in read_records(folder) if record.category is None)
    total = int(given.category.isna().sum())
    people = person.make_judge(settings.person)
    judged, overruled = classify(unknown, classifier, settings.batch_size, total, people)
    known = given.dropna().assign(confidence=1.0, origin="source")
    categories = pd.concat([known, judged.assign(origin="model")]).sort_values("id", ignore_index=True)

    tested = [
        (true, said)
        for record, said in zip(_uncategorized(folder), judged.category, strict=True)
        if record.id not in seen and (true := true_category(record, truths))
    ]
    table = confusion((true for true, _ in tested), (said for _, said in tested))
    metrics = measure(table) | {"n_model": len(judged), "n_source": len(known)}
    if people is not None:
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


def _uncategorized(folder: Path) -> Iterable[Record]:
    """The records whose source has no category, in order, without their images."""
    columns = ("id", "label", "source", "item", "category")
    for key, label, source, item, category in read_headers(folder, columns):
        if category is None:
            yield Record(key, b"", label, source, item)
