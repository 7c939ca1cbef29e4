"""The five benchmarks, the methods that are compared on them, and the whole of one evaluation.

FakeClue's test split, LOKI, DMimage, DD-VQA's test questions and frames of FF++'s test videos; README.md says
which tables each fills. DD-VQA's records have questions of their own, all others get the standard one.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fakevlm import paths
from fakevlm.cache import kept, model_version
from fakevlm.config.params import Method, Params
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth
from fakevlm.data.records import Record
from fakevlm.data.shards import Records, columns_of, take, without_images
from fakevlm.errors import UserError
from fakevlm.evaluation import metrics
from fakevlm.evaluation.baselines import baseline
from fakevlm.evaluation.detectors import Answers, detector, published
from fakevlm.evaluation.explanations import KIND_NAMES, asks_about_part, clue_tables, css, rouge_l
from fakevlm.evaluation.metrics import Metric
from fakevlm.inference import ray_cluster
from fakevlm.inference.predict import predict

BENCHMARKS = ("fakeclue", "loki", "dmimage", "ddvqa", "ffpp")
FAKEVLM, UNTUNED, HEAD = "FakeVLM", "LLaVA (untuned)", "LLaVA + Linear Head"
# FakeVLM once more, asked as its authors ask their released weights, whatever `evaluate.prompt` says.
AUTHORS = "FakeVLM (authors' prompt)"
FAMILIES = ("all", "label", "category", "generator", "kind")  # of subsets that are scored
EXPERTS = {"CNNSpot": "cnnspot", "UnivFD": "univfd", "Frequency": "frequency"}
Encode = Callable[[list[str]], np.ndarray]
_TYPES = {"label": pa.int8(), "p_fake": pa.float64(), "forced": pa.bool_()}  # all other columns are text


def schema(*names: str) -> pa.Schema:
    """Return the schema of columns; one whose name ends in `?` may be null."""
    columns = [(name.removesuffix("?"), name.endswith("?")) for name in names]
    return pa.schema([pa.field(name, _TYPES.get(name, pa.string()), nullable) for name, nullable in columns])


# The columns of predictions.parquet: one row a method and record. `group` is what the bootstrap draws; `text`
# is null for detectors, `question` where it is the standard one; `p_fake` is null for models behind servers,
# who give words alone, and `outcome` (ok, refused, …) for all others; `verdict_forced` is the forced choice
# where the text gives no verdict (null if there was none), else the verdict; `forced` marks a P(fake) that
# the text itself does not give; `reference` holds the references, one a line.
SCHEMA = schema(
    "method", "id", "group", "label", "category?", "generator?", "question?", "text?", "p_fake?", "verdict",
    "verdict_forced?", "forced", "outcome?", "reference",
)  # fmt: skip


def folder(benchmark: str) -> Path:
    """Return where a benchmark's records lie; raise a UserError where there is no such benchmark."""
    if benchmark == "fakeclue":
        return paths.artifacts("annotate", "fakeclue", "test")
    place = paths.artifacts("collect", "benchmarks", benchmark)
    if benchmark not in BENCHMARKS and not place.is_dir():
        raise UserError(f"no benchmark {benchmark!r}", f"choose one of: {', '.join(BENCHMARKS)}")
    return place


def sample(records: Sequence[Record], limit: int | None, seed: int) -> Sequence[Record]:
    """Return at most `limit` random images, in their old order, each with all its questions.

    The order of the draw depends on the seed alone, so a larger limit adds images and drops none.
    """
    if limit is None:
        return records
    images, names = pd.factorize(columns_of(records, ["id"])["id"].str.split("#").str[0])
    if len(names) <= limit:
        return records
    drawn = np.random.default_rng(seed).permutation(len(names))[:limit]
    return take(records, np.flatnonzero(np.isin(images, drawn)))


def load(params: Params, benchmark: str) -> Sequence[Record]:
    """Return a benchmark's records, read when they are needed; none where the profile leaves it out.

    Raises a UserError where the stage that makes them has not run, or there is no such benchmark.
    """
    return sample(Records(folder(benchmark)), params.evaluate.limit, params.seed)


def meant_for(entries: Sequence[Any], benchmark: str) -> list[Any]:
    """Return the entries of `evaluate.experts` or `.baselines` that name a benchmark, or name none."""
    return [entry for entry in entries if entry.benchmarks is None or benchmark in entry.benchmarks]


def tuned(params: Params) -> str | Path:
    """Return FakeVLM's weights, of `evaluate.model` or stage finetune; raise a UserError without either."""
    if params.evaluate.model is None and params.finetune is None:
        raise UserError(
            f"{params.profile}: FakeVLM has no weights, for the profile leaves stage finetune out",
            f"give {params.profile}.finetune in params.yaml, or name weights in evaluate.model",
        )
    return params.evaluate.model or paths.made_by("finetune@explanation", "model")


def method(name: Method, params: Params, verdict_tokens: int | None = None) -> Answers:
    """Return who answers for a method of `evaluate.methods`.

    FakeVLM answers behind `evaluate.servers` where there are some: they serve it, with its chat template. All
    else is computed here or on the profile's cluster. With `verdict_tokens` words end where their verdict
    stands, or after so many tokens. Raises a UserError where its model is not there yet, or the servers' key
    is not set.
    """
    from fakevlm.evaluation import experts
    from fakevlm.inference import generate
    from fakevlm.model import head

    settings, precision = params.evaluate, params.evaluate.precision
    if name == HEAD or name in EXPERTS:
        maker = ("finetune@head", "model") if name == HEAD else ("experts", EXPERTS[name])
        folder = paths.made_by(*maker)
        key = [name, model_version(folder), precision]
        if name == "UnivFD":  # it sees through the base
            key.append(model_version(params.base))
        load = partial(head.load_head, precision=precision) if name == HEAD else experts.load_expert
        return detector(name, partial(load, folder), key, params)
    weights = params.base if name == UNTUNED else tuned(params)
    prompt = "bare" if name == AUTHORS else settings.prompt
    longest = verdict_tokens or settings.max_new_tokens
    if name == FAKEVLM and settings.servers:
        from fakevlm.inference.served import Served

        served = Served(settings.servers, name, weights, longest, prompt)
        return lambda records, cache: served.predict(records)
    options = {"max_new_tokens": longest, "until_verdict": verdict_tokens is not None, "prompt": prompt}
    options |= {"batch_size": settings.batch_size, "compiled": settings.compile}
    words = generate.predictor(weights, precision, **options)
    return partial(predict, words, cluster=params.cluster, desc=name)


def forced_verdicts(answered: pd.DataFrame) -> pd.Series:
    """Return the verdicts, where there is none that of P(fake), or None without P(fake)."""
    p_fake = answered["p_fake"]
    choice = pd.Series(np.where(p_fake >= 0.5, "fake", "real"), answered.index).where(p_fake.notna(), None)
    return answered["verdict"].where(answered["verdict"] != "unparsed", choice)


class _Scorer:
    """One method's answers, prepared once and scored on any rows."""

    def __init__(self, frame: pd.DataFrame, ground_truths: Mapping[str, GroundTruth], encode: Encode) -> None:
        has_text = frame["text"].notna().to_numpy()
        texts = frame["text"].where(has_text, "").tolist()
        self.label, self.p_fake = frame["label"].to_numpy(), frame["p_fake"].to_numpy(dtype=float)
        self.verdict, self.forced = metrics.codes(frame["verdict"].to_numpy()), None
        if "verdict_forced" in frame and has_text.any() and frame["verdict_forced"].notna().all():
            self.forced = metrics.codes(frame["verdict_forced"].to_numpy())
        self.decides = ~frame["question"].fillna("").map(asks_about_part).to_numpy(dtype=bool)
        groups = [[line for line in cell.split("\n") if line.strip()] for cell in frame["reference"]]
        self.explains = has_text & np.array([bool(group) for group in groups], dtype=bool)
        self.rouge, self.css = np.zeros(len(frame)), np.zeros(len(frame))
        rows = np.flatnonzero(self.explains)
        self.rouge[rows] = [rouge_l(texts[n], groups[n]) for n in rows]
        self.css[rows] = css([texts[n] for n in rows], [groups[n] for n in rows], encode)
        paths = frame["id"].str.split("#").str[0].tolist()
        annotated, self.true, self.named = clue_tables(paths, texts, ground_truths)
        self.has_clues, self.hits = annotated & has_text & self.decides, self.true & self.named

    def metrics(self, rows: np.ndarray, against: np.ndarray) -> Iterator[Metric]:
        """Yield the metrics of a subset; see `metrics.subsets`."""
        inside, both = np.flatnonzero(rows & self.decides), np.flatnonzero(against & self.decides)
        if len(inside):
            yield from metrics.detection(self.label, self.verdict, self.p_fake, inside, both)
            if self.forced is not None:
                yield from metrics.verdict_metrics(self.label, self.forced, inside, both, "_forced")
        inside = np.flatnonzero(rows & self.explains)
        yield "rouge_l", inside, partial(metrics.mean, self.rouge[inside])
        yield "css", inside, partial(metrics.mean, self.css[inside])
        inside = np.flatnonzero(rows & self.has_clues)
        hits, named, true = (table[inside].sum(axis=1) for table in (self.hits, self.named, self.true))
        yield "clue_precision", inside, partial(metrics.ratio, hits, named)
        yield "clue_recall", inside, partial(metrics.ratio, hits, true)
        yield "clue_f1", inside, partial(metrics.ratio, 2 * hits, named + true)

    def kind_metrics(self, column: int) -> Iterator[Metric]:
        """Yield recall and precision of the clues of one kind."""
        for name, table in ("clue_recall", self.true), ("clue_precision", self.named):
            inside = np.flatnonzero(self.has_clues & table[:, column])
            yield name, inside, partial(metrics.mean, self.hits[inside, column])


def score(
    predictions: pd.DataFrame,
    ground_truths: Mapping[str, GroundTruth],
    params: Params,
    benchmark: str,
    *,
    families: tuple[str, ...] = FAMILIES,
    encode: Encode | None = None,
) -> pd.DataFrame:
    """Return all metrics of all methods, with 95 % intervals from `params.evaluate.bootstrap` draws.

    They have the columns `metrics.COLUMNS` and a row for each method, subset and metric, in the order of
    `predictions` and `FAMILIES`. `ground_truths` are known artifacts by path; `encode` (sentences → unit
    rows, for CSS) is by default the encoder of `params.evaluate.encoder`.
    """
    if encode is None:
        from fakevlm.model import sentence_encoder

        encode = partial(sentence_encoder.encode, name=params.evaluate.encoder)
    vectors: dict[str, np.ndarray] = {}  # all methods have the same references

    def encode_once(sentences: list[str]) -> np.ndarray:
        new = [sentence for sentence in sentences if sentence not in vectors]
        vectors.update(zip(new, encode(new), strict=True))
        return np.array([vectors[sentence] for sentence in sentences])

    rows: list[tuple] = []
    for method, frame in predictions.groupby("method", sort=False):
        scorer = _Scorer(frame, ground_truths, encode_once)
        groups = pd.factorize(frame["group"])[0]
        parts = [(name, scorer.metrics(*masks)) for name, *masks in metrics.subsets(frame, families)]
        if "kind" in families:
            parts += [(f"kind={kind}", scorer.kind_metrics(n)) for n, kind in enumerate(KIND_NAMES)]
        for subset, several in parts:
            draws = params.evaluate.bootstrap, params.seed
            estimates = metrics.estimates(several, scorer.label, groups, *draws)
            rows += [(method, benchmark, subset, *estimate) for estimate in estimates]
    return pd.DataFrame(rows, columns=metrics.COLUMNS)


def write(out: Path, schema: pa.Schema, predictions: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Write `predictions.parquet` and `scores.csv` to a folder; return the predictions as stored."""
    out.mkdir(parents=True, exist_ok=True)
    stored = pa.Table.from_pandas(predictions, schema, preserve_index=False).replace_schema_metadata()
    pq.write_table(stored, out / "predictions.parquet")
    scores.to_csv(out / "scores.csv", index=False, float_format="%.6f", lineterminator="\n")
    return stored.to_pandas()


def evaluate(params: Params, benchmark: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run `params.evaluate`'s methods on a benchmark and write `artifacts/evaluate/<benchmark>/`.

    Returns predictions and scores as written. Interrupted, it goes on where it stopped: see `fakevlm.cache`.
    Raises a UserError where records or a model are not there yet, which names the stage that makes them.
    """
    records, settings = load(params, benchmark), params.evaluate
    predictions, frames = SCHEMA.empty_table().to_pandas(), []
    scores = pd.DataFrame(columns=metrics.COLUMNS)
    if len(records):
        with kept("predictions") as cache, ray_cluster.connected(params.cluster):
            # A missing model, file or key is known before any method answers.
            methods = {name: method(name, params) for name in settings.methods}
            methods |= {spec.name: published(spec, params) for spec in meant_for(settings.experts, benchmark)}
            for spec in meant_for(settings.baselines, benchmark):
                methods[spec.name] = baseline(spec, params.seed)
            frame = columns_of(records, ["id", "group", "label", "category", "generator", "question"])
            lines = ([" ".join(r.split()) for r in each.references] for each in without_images(records))
            texts = pa.array(map("\n".join, lines), pa.string(), size=len(records))
            frame["reference"] = texts.to_pandas()
            frame = frame.astype({"label": int}).assign(outcome=None)
            for name, answers in methods.items():
                answered = frame.assign(method=name, **answers(records, cache))
                if "verdict_forced" not in answered:
                    answered["verdict_forced"] = forced_verdicts(answered)
                frames.append(answered)
        predictions = pd.concat(frames)[SCHEMA.names]
        predictions = predictions.sort_values(["method", "id"], kind="stable", ignore_index=True)
        ground_truths = read_ground_truth(paths.artifacts("collect", "ground_truth.jsonl"))
        scores = score(predictions, ground_truths, params, benchmark)
    out = paths.artifacts("evaluate", benchmark)
    stored = write(out, SCHEMA, predictions, scores)
    rows = scores[(scores["method"] == FAKEVLM) & (scores["subset"] == "all")]
    # For `dvc metrics` and `dvc exp show`.
    values = {row.metric: round(row.value, 6) for row in rows.itertuples()}
    (out / "metrics.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return stored, scores
