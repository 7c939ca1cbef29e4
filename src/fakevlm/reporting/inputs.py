"""What the report reads: the stages' artifacts. An error about a missing one names its stage."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.config.parts import left_out
from fakevlm.data.ground_truth import GroundTruth, read_ground_truth
from fakevlm.data.records import Record, read_frame
from fakevlm.data.shards import Records
from fakevlm.errors import UserError
from fakevlm.reporting.texts import BENCHMARKS, fill, layout

OBJECTIVES = ("explanation", "head")
SCORES = ["method", "benchmark", "subset", "metric", "value", "ci_low", "ci_high", "n"]
PREDICTIONS = ["method", "id", "item", "label", "category", "generator"]
PREDICTIONS += ["question", "text", "p_fake", "verdict", "reference"]


def need(stage: str, *parts: str) -> Path:
    """The path of an artifact.

    Raises:
        UserError: it is not there; names the stage to run.
    """
    path = paths.artifacts(*parts)
    if not path.exists():
        raise UserError(
            f"the report needs {'/'.join(('artifacts', *parts))}, which stage {stage} makes",
            f"run it first: dvc repro {stage}",
        )
    return path


def table(stage: str, columns: list[str], *parts: str) -> pd.DataFrame:
    """Return a stage's CSV or parquet table.

    Raises:
        UserError: it is not there or lacks one of `columns`; names the stage to run.
    """
    path = need(stage, *parts)
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    if missing := [c for c in columns if c not in frame]:
        raise UserError(
            f"{path.name} of stage {stage} lacks the columns {', '.join(missing)}",
            f"make it again: dvc repro -f {stage}",
        )
    # An empty table (of a benchmark that is left out) has no types: its names are text all the same.
    names = ("method", "benchmark", "subset", "metric", "id", "verdict")
    return frame.astype({c: object for c in names if frame.empty and c in frame})


def evaluated(benchmark: str) -> Path:
    """The folder with the records that a benchmark's predictions are about."""
    if benchmark == "fakeclue":
        return need("annotate", "annotate", "fakeclue", "test")
    return need("collect", "collect", "benchmarks", benchmark)


@dataclass(frozen=True)
class Inputs:
    """Everything the report is drawn from; images stay on disk until `fetch` takes a few.

    A table of a stage that the profile leaves out has no rows.

    Attributes:
        left_out: what the profile lacks (stage, benchmark, `annotators`, `ground_truth`) → a sentence.
        fakeclue: id, label, category, split of every FakeClue image.
        logs: objective → training log.
        scores: the scores of all benchmarks, tidy.
        predictions: benchmark → predictions.
        weights: how many weights FakeVLM has, None if its folder holds no safetensors.
        config: its config.json, empty where it is not on this machine.
    """

    params: Params
    left_out: dict[str, str]
    sources: pd.DataFrame
    quarantine: pd.DataFrame
    duplicates: pd.DataFrame
    leakage: pd.DataFrame
    ground_truth: dict[str, GroundTruth]
    confusion: pd.DataFrame
    fakeclue: pd.DataFrame
    candidates: pd.DataFrame
    clue_quality: pd.DataFrame
    agreement: pd.DataFrame
    study: pd.DataFrame
    logs: dict[str, pd.DataFrame]
    scores: pd.DataFrame
    predictions: dict[str, pd.DataFrame]
    robustness: pd.DataFrame
    weights: int | None
    config: dict[str, Any]


def fetch(folder: Path, ids: Iterable[str]) -> dict[str, Record]:
    """Return the records of a folder with these ids, image bytes included; no other image is read."""
    wanted, records = set(ids), Records(folder)
    rows = np.flatnonzero(records.frame(["id"])["id"].isin(wanted))
    by_id = {record.id: record for record in records.take(rows)}
    if missing := sorted(wanted - set(by_id)):
        raise UserError(
            f"{folder} lacks the record {missing[0]} that a prediction is about",
            "the stages are out of step: run `dvc repro`",
        )
    return by_id


def parameters(folder: Path) -> int | None:
    """Return how many weights a folder's safetensors hold, from their headers; None where there are none."""
    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as handle:
            header: dict[str, Any] = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        total += sum(math.prod(t["shape"]) for name, t in header.items() if name != "__metadata__")
    return total or None


def _config(folder: Path) -> dict[str, Any]:
    """Return a model folder's config.json, empty where there is none."""
    file = folder / "config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _weights(params: Params) -> Path | None:
    """Return FakeVLM's folder: of stage finetune, or as `evaluate.model` names it (a folder or cached)."""
    name = params.evaluate.model
    if name is None:
        if params.finetune is None:
            return None
        return need("finetune@explanation", "finetune", "explanation", "model")
    if paths.resolve(name).is_dir():
        return paths.resolve(name)
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def _left_out(
    params: Params, predictions: dict[str, pd.DataFrame], ground_truth: dict[str, GroundTruth]
) -> dict[str, str]:
    texts, reasons = layout()["left_out"], left_out(params)
    if not ground_truth:
        reasons["ground_truth"] = texts["ground_truth"]
    if not params.annotate.annotators:
        reasons["annotators"] = fill(texts["annotators"], profile=params.profile)
    for benchmark, frame in predictions.items():
        if frame.empty:
            reasons[benchmark] = fill(texts["benchmark"], name=BENCHMARKS[benchmark])
    return reasons


def load_inputs(params: Params) -> Inputs:
    """Reads every artifact that the report shows, of the stages that the profile has.

    Raises:
        UserError: one is missing or lacks a column; names the stage that makes it.
    """
    scores, predictions = [], {}
    for benchmark in BENCHMARKS:
        stage = f"evaluate@{benchmark}"
        scores.append(table(stage, SCORES, "evaluate", benchmark, "scores.csv"))
        predictions[benchmark] = table(stage, PREDICTIONS, "evaluate", benchmark, "predictions.parquet")
        evaluated(benchmark)
    splits = [
        read_frame(need("annotate", "annotate", "fakeclue", split), ["id", "label", "category"]).assign(
            split=split
        )
        for split in ("train", "val", "test")
    ]
    absent = left_out(params)

    def part(stage: str, columns: list[str], *parts: str) -> pd.DataFrame:
        return pd.DataFrame(columns=columns) if stage in absent else table(stage, columns, *parts)

    logs = {
        objective: table(
            f"finetune@{objective}", ["step", "loss", "learning_rate"], "finetune", objective, "log.csv"
        )
        for objective in (() if "finetune" in absent else OBJECTIVES)
    }
    candidates = table("annotate", ["id", "annotator", "outcome", "text"], "annotate", "candidates.parquet")
    weights, ground_truth = _weights(params), read_ground_truth(need("collect", "collect", "truth.jsonl"))
    quality = ["annotator", "precision", "recall", "f1", "n"]
    pair = ["annotator_a", "annotator_b", "jaccard", "kappa", "n"]
    return Inputs(
        params=params,
        left_out=_left_out(params, predictions, ground_truth),
        sources=table("collect", ["source", "label", "generator", "n"], "collect", "sources.csv"),
        quarantine=table("collect", ["corpus", "path", "reason"], "collect", "quarantine.csv"),
        duplicates=table("collect", ["sha256"], "collect", "duplicates.csv"),
        leakage=table("collect", ["benchmark", "kind"], "collect", "leakage.csv"),
        ground_truth=ground_truth,
        confusion=part("categorize", ["truth", "predicted", "n"], "categorize", "confusion.csv"),
        fakeclue=pd.concat(splits, ignore_index=True),
        candidates=candidates,
        clue_quality=table("annotate", quality, "annotate", "clue_quality.csv"),
        agreement=table("annotate", pair, "annotate", "agreement.csv"),
        study=part("study", SCORES, "study", "scores.csv"),
        logs=logs,
        scores=pd.concat(scores, ignore_index=True),
        predictions=predictions,
        robustness=part("robustness", SCORES, "robustness", "scores.csv"),
        weights=parameters(weights) if weights else None,
        config=_config(weights) if weights else {},
    )
