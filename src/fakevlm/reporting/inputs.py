"""What the report reads: the stages' artifacts."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.config.parts import left_out
from fakevlm.data.csv_files import read_csv
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth
from fakevlm.data.records import read_frame
from fakevlm.errors import UserError
from fakevlm.evaluation.metrics import COLUMNS, auc, draws, interval
from fakevlm.paths import made_by
from fakevlm.reporting.texts import BENCHMARKS, MANIPULATIONS, fill, layout

SPLITS = ("train", "val", "test")
OBJECTIVES = ("explanation", "head")
PREDICTIONS = ["method", "id", "group", "label", "category", "generator"]
PREDICTIONS += ["question", "text", "p_fake", "verdict", "reference"]
TABLES = {  # of `Inputs`: stage, file, columns that must be there
    "sources": ("collect", "sources.csv", ["source", "label", "generator", "n"]),
    "quarantine": ("collect", "quarantine.csv", ["corpus", "path", "reason"]),
    "duplicates": ("collect", "duplicates.csv", ["sha256"]),
    "leakage": ("collect", "leakage.csv", ["benchmark", "kind"]),
    "confusion": ("categorize", "confusion.csv", ["true", "predicted", "n"]),
    "candidates": ("annotate", "candidates.parquet", ["id", "annotator", "outcome", "text"]),
    "clue_quality": ("annotate", "clue_quality.csv", ["annotator", "precision", "recall", "f1", "n"]),
    "agreement": ("annotate", "agreement.csv", ["annotator_a", "annotator_b", "jaccard", "kappa", "n"]),
    "study": ("study", "scores.csv", COLUMNS),
    "robustness": ("robustness", "scores.csv", COLUMNS),
}


@dataclass(frozen=True)
class Inputs:
    """Everything the report is drawn from; a table of a stage that the profile leaves out has no rows."""

    params: Params
    left_out: dict[str, str]  # what is missing (stage, benchmark, `annotators`, `ground_truth`) → a sentence
    sources: pd.DataFrame
    quarantine: pd.DataFrame
    duplicates: pd.DataFrame
    leakage: pd.DataFrame
    ground_truths: dict[str, GroundTruth]
    confusion: pd.DataFrame
    fakeclue: pd.DataFrame  # id, label, category, split of every image
    candidates: pd.DataFrame
    annotation: dict[str, Any]  # metrics.json of stage annotate
    clue_quality: pd.DataFrame
    agreement: pd.DataFrame
    study: pd.DataFrame
    logs: dict[str, pd.DataFrame]  # by objective
    scores: pd.DataFrame  # of all benchmarks, tidy
    predictions: dict[str, pd.DataFrame]  # by benchmark
    average: pd.DataFrame  # Table 5's Average, tidy (`average_auc`)
    robustness: pd.DataFrame
    weights: int | None  # how many FakeVLM has, None if its folder holds no safetensors
    config: dict[str, Any]  # its config.json, empty where it is not on this machine


def table(stage: str, file: str, columns: list[str]) -> pd.DataFrame:
    """Return a stage's CSV or parquet table; raise a UserError where it or one of `columns` is missing."""
    path = made_by(stage, file)
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else read_csv(path)
    if missing := [c for c in columns if c not in frame]:
        message = f"{path.name} of stage {stage} lacks the columns {', '.join(missing)}"
        raise UserError(message, f"make it again: dvc repro -f {stage}")
    return frame


def evaluated(benchmark: str) -> Path:
    """Return the folder with the records that a benchmark's predictions are about."""
    if benchmark == "fakeclue":
        return made_by("annotate", "fakeclue", "test")
    return made_by("collect", "benchmarks", benchmark)


def parameters(folder: Path) -> int | None:
    """Return how many weights a folder's safetensors hold; None where there are none."""
    total = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "numpy") as weights:
            names = weights.keys()  # it cannot be iterated itself
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    return total or None


def _model_folder(params: Params) -> Path | None:
    """Return FakeVLM's folder: of stage finetune, or what `evaluate.model` names; None if not here."""
    name = params.evaluate.model
    if name is None:
        return made_by("finetune@explanation", "model") if params.finetune else None
    if paths.resolve(name).is_dir():
        return paths.resolve(name)
    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def average_auc(predictions: pd.DataFrame, bootstrap: int, seed: int) -> pd.DataFrame:
    """Return Table 5's Average: each method's mean AUC over the manipulations, each against all real frames.

    Its interval is its own, for the four share the real frames: `bootstrap` draws of videos (`group`). Scores
    are tidy (ffpp, Average, auc; n counts frames); methods without P(fake) or a manipulation are left out.
    """
    rows = []
    for method, frame in predictions.groupby("method"):
        label, p_fake = frame.label.to_numpy(), frame.p_fake.to_numpy(dtype=float)
        masks = [(label == 1) | (frame.generator == name).to_numpy() for name in MANIPULATIONS.values()]
        if np.isnan(p_fake).any() or not all(len(set(label[mask])) == 2 for mask in masks):
            continue

        def mean(weights: np.ndarray | None, label=label, p_fake=p_fake, masks=masks) -> np.ndarray:
            parts = [auc(label[m], p_fake[m], None if weights is None else weights[..., m]) for m in masks]
            return np.mean(parts, axis=0)

        videos = pd.factorize(frame["group"])[0]
        rows.append((method, *interval(mean, draws(label, videos, bootstrap, seed)), len(frame)))
    scores = pd.DataFrame(rows, columns=["method", "value", "ci_low", "ci_high", "n"])
    return scores.assign(benchmark="ffpp", subset="Average", metric="auc")


def load_inputs(params: Params) -> Inputs:
    """Return every artifact that the report shows, of the stages that the profile has.

    Raises `UserError`, which names the stage that makes it, if one is missing or lacks a column.
    """
    scores, predictions, reasons = [], {}, left_out(params)
    for benchmark in BENCHMARKS:
        stage = f"evaluate@{benchmark}"
        scores.append(table(stage, "scores.csv", COLUMNS))
        predictions[benchmark] = table(stage, "predictions.parquet", PREDICTIONS)
        evaluated(benchmark)  # raises where it is missing
    shards = {split: made_by("annotate", "fakeclue", split) for split in SPLITS}
    images = [read_frame(f, ["id", "label", "category"]).assign(split=split) for split, f in shards.items()]
    tables = {
        name: pd.DataFrame(columns=columns) if stage in reasons else table(stage, file, columns)
        for name, (stage, file, columns) in TABLES.items()
    }
    objectives = () if "finetune" in reasons else OBJECTIVES
    logs = {o: table(f"finetune@{o}", "log.csv", ["step", "loss", "learning_rate"]) for o in objectives}
    ground_truths = read_ground_truth(made_by("collect", "ground_truth.jsonl"))
    texts = layout()["left_out"]
    if not ground_truths:
        reasons["ground_truth"] = texts["ground_truth"]
    if not params.annotate.annotators:
        reasons["annotators"] = fill(texts["annotators"], profile=params.profile)
    for benchmark, frame in predictions.items():
        if frame.empty:
            reasons[benchmark] = fill(texts["benchmark"], name=BENCHMARKS[benchmark])
    model = _model_folder(params)
    config = model / "config.json" if model else None
    return Inputs(
        params=params,
        left_out=reasons,
        ground_truths=ground_truths,
        annotation=json.loads(made_by("annotate", "metrics.json").read_text(encoding="utf-8")),
        fakeclue=pd.concat(images, ignore_index=True),
        logs=logs,
        scores=pd.concat(scores, ignore_index=True),
        predictions=predictions,
        average=average_auc(predictions["ffpp"], params.evaluate.bootstrap, params.seed),
        weights=parameters(model) if model else None,
        config=json.loads(config.read_text(encoding="utf-8")) if config and config.is_file() else {},
        **tables,
    )
