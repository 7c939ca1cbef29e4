"""Cards for publishing: the dataset's with Croissant metadata, and the models'. Filled from the artifacts, written by stage report.

They are no part of the artifacts that other stages read, so that a better sentence retrains nothing.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from fakevlm import paths
from fakevlm.config.params import Params
from fakevlm.data.records import FAKE, QUESTION, REAL
from fakevlm.data.shards import Records

TEMPLATES = Path(__file__).with_name("templates")
SPLITS = ("train", "val", "test")
LICENSE = "https://creativecommons.org/licenses/by/4.0/"
COLUMNS = {
    "id": ("sc:Text", "Path of the image, relative to the image root; unique."),
    "label": ("sc:Integer", "1: real, 0: fake."),
    "category": ("sc:Text", "animal, human, object, scene, satellite, doc or deepfake."),
    "source": ("sc:Text", "The corpus that the image comes from."),
    "generator": ("sc:Text", "What made a fake; empty for real images."),
    "item": ("sc:Text", "Video or photograph that must stay on one side of a split."),
    "width": ("sc:Integer", "Pixels."),
    "height": ("sc:Integer", "Pixels."),
    "sha256": ("sc:Text", "Hash of the encoded image."),
}


def write_cards(params: Params, folder: Path) -> list[Path]:
    """Write README.md and croissant.json of the dataset, and README.md of every model that this profile trains.

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
    head = ["category", *flat.columns]
    rows = [head, ["---"] + ["---:"] * len(flat.columns), *([name, *row] for name, *row in flat.itertuples())]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


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
    files: list[dict[str, Any]] = []
    for split, shard in shards.items():
        for part in sorted(shard.glob("*.parquet")):
            files.append(
                {
                    "@type": "cr:FileObject",
                    "@id": f"{split}-{part.stem}",
                    "name": f"{split}-{part.stem}",
                    "contentUrl": f"{split}/{part.name}",
                    "encodingFormat": "application/x-parquet",
                    "sha256": hashlib.sha256(part.read_bytes()).hexdigest(),
                }
            )
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": f"{split}-files",
            "name": f"{split}-files",
            "encodingFormat": "application/x-parquet",
            "includes": f"{split}/*.parquet",
        }
        for split in SPLITS
    ]
    records = [
        {
            "@type": "cr:RecordSet",
            "@id": split,
            "name": split,
            "field": [
                {
                    "@type": "cr:Field",
                    "@id": f"{split}/{name}",
                    "name": name,
                    "description": description,
                    "dataType": kind,
                    "source": {"fileSet": {"@id": f"{split}-files"}, "extract": {"column": name}},
                }
                for name, (kind, description) in COLUMNS.items()
            ],
        }
        for split in SPLITS
    ]
    description = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "FakeClue",
        "description": "Real and synthetic images of seven categories, with explanations of the artifacts.",
        "license": LICENSE,
        "url": "https://arxiv.org/abs/2503.14905",
        "version": "1.0.0",
        "datePublished": "2025-10-16",
        "citeAs": "Wen et al.: Spot the Fake. NeurIPS 2025.",
        "distribution": [*files, *sets],
        "recordSet": records,
    }
    file = folder / "croissant.json"
    file.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return file


CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "samplingRate": "cr:samplingRate",
    "dct": "http://purl.org/dc/terms/",
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
