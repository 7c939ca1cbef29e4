"""Cards for publishing: the dataset's with Croissant metadata, and the models'. Stage report writes them.

They are no part of the artifacts that other stages read, so that a better sentence retrains nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.data.records import FAKE, QUESTION, REAL
from fakevlm.data.shards import Records

TEMPLATES = Path(__file__).with_name("templates")
SPLITS = ("train", "val", "test")


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
    for objective in ("explanation", "head"):
        weights = paths.artifacts("finetune", objective, "model")
        if params.finetune and weights.is_dir():
            files.append(_model_card(params, objective, weights, counts, folder / f"model_{objective}"))
    return files


def _counts(shards: dict[str, Path]) -> pd.DataFrame:
    """Return the images by category (rows) and by split and label (columns)."""
    frames = [
        Records(folder).frame(["category", "label"]).assign(split=split) for split, folder in shards.items()
    ]
    table = pd.concat(frames, ignore_index=True)
    table["label"] = table["label"].map({FAKE: "fake", REAL: "real"})
    counts = pd.crosstab(table["category"].fillna("unknown"), [table["split"], table["label"]])
    columns = pd.MultiIndex.from_product([SPLITS, ("fake", "real")])
    return counts.reindex(columns=columns, fill_value=0)


def _markdown(counts: pd.DataFrame) -> str:
    flat = counts.set_axis([" ".join(column) for column in counts.columns], axis=1)
    flat.loc["total"] = flat.sum()
    return flat.rename_axis("category").to_markdown()


def _text(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def _dataset_card(params: Params, counts: pd.DataFrame, folder: Path) -> Path:
    metrics = json.loads(paths.artifacts("annotate", "metrics.json").read_text(encoding="utf-8"))
    body = _text(
        "dataset_card.md.j2", params=params, counts=_markdown(counts), metrics=metrics, question=QUESTION
    )
    data = DatasetCardData(
        language="en",
        license="cc-by-4.0",
        task_categories=["image-classification", "image-to-text"],
        pretty_name=f"FakeClue ({params.profile})",
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"{split}/*.parquet"} for split in SPLITS],
            }
        ],
    )
    return _save(DatasetCard(f"---\n{data.to_yaml()}\n---\n{body}"), folder)


def _model_card(params: Params, objective: str, weights: Path, counts: pd.DataFrame, folder: Path) -> Path:
    metrics = paths.artifacts("evaluate", "fakeclue", "metrics.json")
    scores = json.loads(metrics.read_text(encoding="utf-8")) if metrics.is_file() else {}
    log = pd.read_csv(paths.artifacts("finetune", objective, "log.csv"))
    body = _text(
        "model_card.md.j2",
        params=params,
        objective=objective,
        scores=scores if objective == "explanation" else {},
        steps=int(log["step"].max()),
        counts=_markdown(counts),
    )
    data = ModelCardData(
        language="en",
        license="cc-by-4.0",
        library_name="transformers",
        pipeline_tag="image-text-to-text" if objective == "explanation" else "image-classification",
    )
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
    return hashlib.sha256(file.read_bytes()).hexdigest()
