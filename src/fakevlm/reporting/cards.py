"""Cards for publishing: the dataset's with Croissant metadata, and the models'. Stage report writes them.

They are no part of the artifacts that other stages read, so that a better sentence retrains nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.data.records import QUESTION
from fakevlm.data.shards import Records
from fakevlm.reporting.inputs import OBJECTIVES, SPLITS
from fakevlm.reporting.texts import LABELS, environment


def write_cards(params: Params, folder: Path) -> list[Path]:
    """Write README.md and croissant.json of the dataset, and README.md of each trained model.

    Args:
        params: the profile.
        folder: gets `dataset/` and `model_<objective>/`; made.

    Returns:
        The files.
    """
    shards = {split: paths.artifacts("annotate", "fakeclue", split) for split in SPLITS}
    counts = _counts(shards)
    files = [_dataset_card(params, counts, folder / "dataset"), _croissant(shards, folder / "dataset")]
    for objective in OBJECTIVES:
        if params.finetune and paths.artifacts("finetune", objective, "model").is_dir():
            files.append(_model_card(params, objective, counts, folder / f"model_{objective}"))
    return files


def _counts(shards: dict[str, Path]) -> str:
    """Return a Markdown table of the images by category (rows) and by split and label (columns)."""
    frames = [
        Records(folder).frame(["category", "label"]).assign(split=split) for split, folder in shards.items()
    ]
    table = pd.concat(frames, ignore_index=True)
    columns = table["split"] + " " + table["label"].map(LABELS)
    wanted = [f"{split} {label}" for split in SPLITS for label in LABELS.values()]
    counts = pd.crosstab(table["category"].fillna("unknown"), columns).reindex(columns=wanted, fill_value=0)
    counts.loc["total"] = counts.sum()
    return counts.rename_axis("category").to_markdown()


def _text(template: str, **values: Any) -> str:
    return environment(trim_blocks=True).get_template(template).render(**values)


def _dataset_card(params: Params, counts: str, folder: Path) -> Path:
    metrics = json.loads(paths.artifacts("annotate", "metrics.json").read_text(encoding="utf-8"))
    body = _text("dataset_card.md.j2", params=params, counts=counts, metrics=metrics, question=QUESTION)
    files = [{"split": split, "path": f"{split}/*.parquet"} for split in SPLITS]
    data = DatasetCardData(
        language="en",
        license="cc-by-4.0",
        task_categories=["image-classification", "image-to-text"],
        pretty_name=f"FakeClue ({params.profile})",
        configs=[{"config_name": "default", "data_files": files}],
    )
    return _save(DatasetCard(f"---\n{data.to_yaml()}\n---\n{body}"), folder)


def _model_card(params: Params, objective: str, counts: str, folder: Path) -> Path:
    metrics = paths.artifacts("evaluate", "fakeclue", "metrics.json")
    explains = objective == "explanation"
    scores = json.loads(metrics.read_text(encoding="utf-8")) if explains and metrics.is_file() else {}
    steps = int(pd.read_csv(paths.artifacts("finetune", objective, "log.csv"))["step"].max())
    values = {"params": params, "objective": objective, "scores": scores, "steps": steps, "counts": counts}
    data = ModelCardData(
        language="en",
        license="cc-by-4.0",
        library_name="transformers",
        pipeline_tag="image-text-to-text" if explains else "image-classification",
    )
    body = _text("model_card.md.j2", **values)
    return _save(ModelCard(f"---\n{data.to_yaml()}\n---\n{body}"), folder)


def _save(card: ModelCard, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "README.md"
    file.write_text(str(card).rstrip() + "\n", encoding="utf-8")
    return file


def _croissant(shards: dict[str, Path], folder: Path) -> Path:
    """Write the Croissant 1.0 description of the shards (https://docs.mlcommons.org/croissant)."""
    files = [
        {"split": split, "name": part.name, "id": f"{split}-{part.stem}", "sha256": _digest(part)}
        for split, shard in shards.items()
        for part in sorted(shard.glob("*.parquet"))
    ]
    description = yaml.safe_load(_text("croissant.yaml.j2", files=files, splits=SPLITS))
    file = folder / "croissant.json"
    file.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return file


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
