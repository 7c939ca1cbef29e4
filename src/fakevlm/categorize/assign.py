"""Give every collected record a category: its source's, or the classifier's if the source has none."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from fakevlm import paths
from fakevlm.cache import Cache, code_version, model_version, work
from fakevlm.categorize import eva, person
from fakevlm.categorize.synsets import FOUR, nature_category, true_category
from fakevlm.config.params import Params, Person
from fakevlm.data.ground_truth import read_ground_truth
from fakevlm.data.records import Record, read_records
from fakevlm.data.shards import Records, columns_of, without_images
from fakevlm.errors import UserError
from fakevlm.inference.predict import Predictor, predict

_TYPES = {"id": pa.string(), "category": pa.string(), "confidence": pa.float32(), "origin": pa.string()}
SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in _TYPES.items()])
_NONE = {"best": np.empty(0, int), "sure": np.empty(0), "overruled": np.empty(0, bool)}


@dataclass(frozen=True)
class Outcome:
    """The results of the stage.

    Metrics: accuracy, n and recall by category (of the confusion), n_model, n_source; of a model that
    `eva.train` made accuracy_validation, n_validation, n_train; with `categorize.person` n_human_by_person,
    the images that the classifier took for something else.
    """

    categories: pd.DataFrame  # by id: category, confidence (1 from a source), origin (source or model)
    confusion: pd.DataFrame  # true, predicted, n: of judged images not trained on with a known category
    metrics: dict
    log: pd.DataFrame  # epoch, loss, accuracy of a model that `eva.train` made; else empty


class Sorter:
    """Sort images by the classifier and, with `categorize.person`, by the judge of people."""

    def __init__(self, model: str | Path, people: Person | None) -> None:
        self.classifier = eva.load(model)
        self.judge = people and person.JUDGES[people.kind](people)

    def __call__(self, images: list[Image.Image]) -> dict[str, np.ndarray]:
        """Return columns: `best` (index in `FOUR`), `sure` (probability), `overruled` (by the judge)."""
        probabilities = self.classifier.probabilities(images)
        best, sure = probabilities.argmax(1), probabilities.max(1)
        human = self.judge(images) if self.judge else np.zeros(len(images), sure.dtype)
        return {
            "best": np.where(human > 0, person.HUMAN, best),
            "sure": np.where(human > 0, human, sure),
            "overruled": (human > 0) & (best != person.HUMAN),
        }


def classify(
    records: Sequence[Record], model: str | Path, params: Params, cache: Cache
) -> tuple[pd.DataFrame, int]:
    """Return id, category and confidence of records, and how many only the judge of people calls human."""
    settings = params.categorize
    people = settings.person and [settings.person.model_dump(), model_version(settings.person.model)]
    load = partial(Sorter, model, settings.person)
    code = code_version("fakevlm.categorize", "fakevlm.data.records")
    predictor = Predictor(load, [model_version(model), people, code], settings.batch_size)
    columns = predict(predictor, records, cache, cluster=params.cluster, desc="categorize: EVA-02") or _NONE
    table = columns_of(records, ["id"]).assign(category=np.array(FOUR)[columns["best"]])
    table["confidence"] = columns["sure"].astype(np.float64)
    return table, int(columns["overruled"].sum())


def confusion(true: Sequence[str], predicted: Sequence[str]) -> pd.DataFrame:
    """Return true, predicted, n: how often each category was taken for each, zeros too."""
    pairs = pd.MultiIndex.from_product([FOUR, FOUR], names=["true", "predicted"])
    n = pd.DataFrame({"true": true, "predicted": predicted}).value_counts()
    return n.reindex(pairs, fill_value=0).rename("n").reset_index()


def measure(table: pd.DataFrame) -> dict:
    """Return accuracy, n and recall by category of a `confusion` table; None for a ratio of nothing."""
    right = table[table.true == table.predicted].set_index("true").n
    total = table.groupby("true").n.sum()
    n = int(total.sum())
    recall = {name: float(right[name] / total[name]) if total[name] else None for name in FOUR}
    return {"accuracy": float(right.sum() / n) if n else None, "n": n, "recall": recall}


def assign(params: Params, folder: Path, ground_truth: Path | None, out: Path) -> Outcome:
    """Run the stage: write `categories.parquet`, `confusion.csv`, `metrics.json`, `log.csv`, `model/`.

    Without `params.categorize.model` the small classifier is trained. `folder` has the record shards of
    `collect`; only the miniature has `ground_truth`. Raises `UserError` without records, if a model does not
    load, with too few photographs to train on, and if two records have one id.
    """
    settings, model = params.categorize, params.categorize.model
    log, trained_on, metrics = pd.DataFrame(), set(), {}
    if model is None:
        named = [(r, category) for r in read_records(folder) if (category := nature_category(r))]
        names = [category for _, category in named]
        classifier, log = eva.train([r.pil() for r, _ in named], names, settings, params.seed)
        photographs = {"id": [r.id for r, _ in named], "held_out": eva.split(names, params.seed)}
        model = out / "model"  # classify with what is stored
        eva.save(classifier, model)
        log.to_csv(model / "log.csv", index=False)
        pd.DataFrame(photographs).to_csv(model / "photographs.csv", index=False)
    if (file := paths.resolve(model) / "photographs.csv").is_file():
        log = pd.read_csv(file.with_name("log.csv"), float_precision="round_trip")
        photographs = pd.read_csv(file)
        trained_on = set(photographs.id[~photographs.held_out])
        metrics = {
            "accuracy_validation": float(log.accuracy.iloc[-1]),
            "n_validation": int(photographs.held_out.sum()),
            "n_train": len(trained_on),
        }

    records = Records(folder)
    ids = columns_of(records, ["id", "category"])
    if len(twice := ids.id[ids.id.duplicated()]):
        raise UserError(f"two records are called {twice.iloc[0]!r}", "rerun collect")
    unsorted = records.take(np.flatnonzero(ids.category.isna()))
    with work() as cache:
        judged, overruled = classify(unsorted, model, params, cache)
    given = ids.dropna().assign(confidence=1.0, origin="source")
    categories = pd.concat([given, judged.assign(origin="model")]).sort_values("id", ignore_index=True)

    ground_truths = read_ground_truth(ground_truth)
    tested = [
        (true, predicted)
        for record, predicted in zip(without_images(unsorted), judged.category, strict=True)
        if record.id not in trained_on and (true := true_category(record, ground_truths))
    ]
    table = confusion([true for true, _ in tested], [predicted for _, predicted in tested])
    people = {} if settings.person is None else {"n_human_by_person": overruled}
    metrics = measure(table) | {"n_model": len(judged), "n_source": len(given)} | people | metrics

    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(categories, SCHEMA, preserve_index=False), out / "categories.parquet")
    table.to_csv(out / "confusion.csv", index=False)
    log.to_csv(out / "log.csv", index=False)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return Outcome(categories, table, metrics, log)
