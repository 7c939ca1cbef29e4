"""The cards for publishing."""

import json
import shutil
from pathlib import Path

import mlcroissant
import pytest
from huggingface_hub import DatasetCard, ModelCard

import madeup
from fakevlm import paths
from fakevlm.config.params import load_params
from fakevlm.data.shards import Records
from fakevlm.reporting.cards import write_cards


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    madeup.make(tmp_path)
    madeup.params(tmp_path)
    monkeypatch.setenv("FAKEVLM_ROOT", str(tmp_path))
    artifacts = tmp_path / "artifacts"
    (artifacts / "finetune/head/model").mkdir()
    metrics = {"points_per_image": 2.5, "agreement_jaccard": None, "clue_f1_aggregate": None}
    (artifacts / "annotate/metrics.json").write_text(json.dumps(metrics))
    (artifacts / "evaluate/fakeclue/metrics.json").write_text(json.dumps({"acc": 0.9123}))
    write_cards(load_params("mini"), tmp_path / "cards")
    return tmp_path / "cards"


def test_croissant_is_valid_and_reads_the_shards(cards: Path) -> None:
    for split in ("train", "val", "test"):
        shutil.copytree(paths.artifacts("annotate", "fakeclue", split), cards / "dataset" / split)
    dataset = mlcroissant.Dataset(jsonld=str(cards / "dataset/croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    read = [row["test/id"].decode() for row in dataset.records("test")]
    assert read == Records(paths.artifacts("annotate", "fakeclue", "test")).frame(["id"])["id"].tolist()


def test_dataset_card_counts_the_images(cards: Path) -> None:
    card = DatasetCard.load(cards / "dataset/README.md")
    assert card.data.license == "cc-by-4.0"
    total = next(line for line in card.text.splitlines() if line.startswith("| total "))
    counts = [int(cell) for cell in total.strip("| ").split("|")[1:]]
    for n, split in enumerate(("train", "val", "test")):
        assert sum(counts[2 * n : 2 * n + 2]) == len(Records(paths.artifacts("annotate", "fakeclue", split)))
    assert "**drawn**" in card.text


def test_model_cards_hold_the_run_and_its_metrics(cards: Path) -> None:
    text = ModelCard.load(cards / "model_explanation/README.md").text
    assert "| acc | 0.912 |" in text
    assert "| optimizer steps | 200 |" in text
    assert "| acc |" not in ModelCard.load(cards / "model_head/README.md").text
