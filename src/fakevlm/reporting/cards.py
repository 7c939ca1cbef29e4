"""Cards for publishing: the dataset's with Croissant metadata, and the models'. Stage report writes them.

They are no part of the artifacts that other stages read, so that a better sentence retrains nothing.
"""

import json
from pathlib import Path

import pandas as pd
import yaml

from fakevlm import paths
from fakevlm.cache import file_digest
from fakevlm.config.params import Params
from fakevlm.data.records import QUESTION, read_frame
from fakevlm.reporting.inputs import OBJECTIVES, SPLITS
from fakevlm.reporting.texts import LABELS, render


def write_cards(params: Params, folder: Path) -> list[Path]:
    """Write `dataset/` (README.md, croissant.json) and `model_<objective>/README.md`; return the files."""
    shards = {split: paths.artifacts("annotate", "fakeclue", split) for split in SPLITS}
    facts = {"params": params, "counts": _counts(shards), "splits": SPLITS, "question": QUESTION}
    metrics = json.loads(paths.artifacts("annotate", "metrics.json").read_text(encoding="utf-8"))
    texts = {
        "dataset/README.md": render("dataset_card.md.j2", metrics=metrics, **facts),
        "dataset/croissant.json": _croissant(shards),
    }
    for objective in OBJECTIVES:
        if params.finetune and paths.artifacts("finetune", objective, "model").is_dir():
            steps = int(pd.read_csv(paths.artifacts("finetune", objective, "log.csv"))["step"].max())
            file, scores = paths.artifacts("evaluate", "fakeclue", "metrics.json"), {}
            if objective == "explanation" and file.is_file():
                scores = json.loads(file.read_text(encoding="utf-8"))
            card = render("model_card.md.j2", objective=objective, steps=steps, scores=scores, **facts)
            texts[f"model_{objective}/README.md"] = card
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text.rstrip() + "\n", encoding="utf-8")
    return [folder / name for name in texts]


def _counts(shards: dict[str, Path]) -> str:
    """Return a Markdown table of the images by category (rows) and by split and label (columns)."""
    frames = [read_frame(f, ["category", "label"]).assign(split=split) for split, f in shards.items()]
    table = pd.concat(frames, ignore_index=True)
    columns = table["split"] + " " + table["label"].map(LABELS)
    wanted = [f"{split} {label}" for split in SPLITS for label in LABELS.values()]
    counts = pd.crosstab(table["category"].fillna("unknown"), columns).reindex(columns=wanted, fill_value=0)
    counts.loc["total"] = counts.sum()
    return counts.rename_axis("category").to_markdown()


def _croissant(shards: dict[str, Path]) -> str:
    """Return the Croissant 1.0 description of the shards (https://docs.mlcommons.org/croissant)."""
    files = []
    for split, shard in shards.items():
        for part in sorted(shard.glob("*.parquet")):
            facts = {"id": f"{split}-{part.stem}", "sha256": file_digest(part)}
            files.append({"split": split, "name": part.name, **facts})
    return json.dumps(yaml.safe_load(render("croissant.yaml.j2", files=files, splits=SPLITS)), indent=1)
