"""Cards for publishing: the dataset's with Croissant metadata, and the models'. Stage report writes them.

They are no part of the artifacts that other stages read, so that a better sentence retrains nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.data.records import QUESTION
from fakevlm.data.shards import Records
from fakevlm.reporting.inputs import OBJECTIVES, SPLITS
from fakevlm.reporting.texts import LABELS, environment


def write_cards(params: Params, folder: Path) -> list[Path]:
    """Write the dataset's README.md and croissant.json and each trained model's README.md; return the files.

    Args:
        params: the profile.
        folder: gets `dataset/` and `model_<objective>/`; made.
    """
    shards = {split: paths.artifacts("annotate", "fakeclue", split) for split in SPLITS}
    facts = {"params": params, "counts": _counts(shards), "splits": SPLITS}
    metrics, dataset = _json(paths.artifacts("annotate", "metrics.json")), folder / "dataset"
    card = _text("dataset_card.md.j2", metrics=metrics, question=QUESTION, **facts)
    files = [_write(dataset / "README.md", card), _write(dataset / "croissant.json", _croissant(shards))]
    for objective in OBJECTIVES:
        if params.finetune and paths.artifacts("finetune", objective, "model").is_dir():
            log = pd.read_csv(paths.artifacts("finetune", objective, "log.csv"))
            metrics = paths.artifacts("evaluate", "fakeclue", "metrics.json")
            facts["scores"] = _json(metrics) if objective == "explanation" and metrics.is_file() else {}
            card = _text("model_card.md.j2", objective=objective, steps=int(log["step"].max()), **facts)
            files.append(_write(folder / f"model_{objective}" / "README.md", card))
    return files


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _text(template: str, **values: Any) -> str:
    return environment(trim_blocks=True).get_template(template).render(**values)


def _write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text.rstrip() + "\n", encoding="utf-8")
    return file


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


def _croissant(shards: dict[str, Path]) -> str:
    """Return the Croissant 1.0 description of the shards (https://docs.mlcommons.org/croissant)."""
    files = [
        {"split": split, "name": part.name, "id": f"{split}-{part.stem}", "sha256": _digest(part)}
        for split, shard in shards.items()
        for part in sorted(shard.glob("*.parquet"))
    ]
    return json.dumps(yaml.safe_load(_text("croissant.yaml.j2", files=files, splits=SPLITS)), indent=1)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
