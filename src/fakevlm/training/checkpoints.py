"""Name a training run after everything that decides its weights, and tell complete checkpoints from others.

A checkpoint counts once it is marked complete, which is written last.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from fakevlm.cache import code_version
from fakevlm.data.records import Record
from fakevlm.data.shards import without_images

MARK = "complete"
# The code that decides the weights: what stage `finetune` depends on in dvc.yaml.
CODE = (
    "fakevlm.data.records",
    "fakevlm.data.shards",
    "fakevlm.model.build",
    "fakevlm.model.chat",
    "fakevlm.model.collate",
    "fakevlm.model.head",
    "fakevlm.model.llava",
    "fakevlm.training",
)
LIBRARIES = ("torch", "transformers", "accelerate", "deepspeed")


def data_digest(records: Sequence[Record], objective: str) -> str:
    """Return the hash of images, labels, questions and (for `explanation`) answers, in order."""
    digest = hashlib.sha256()
    for record in without_images(records):
        answers = record.references[:1] if objective == "explanation" else []
        digest.update(json.dumps([record.sha256, record.label, record.question, answers]).encode())
    return digest.hexdigest()


def run_folder(work: Path, objective: str, *parts: Any) -> Path:
    """Return `<work>/<objective>-<hash>`, the hash over `parts` (as JSON), the code and the libraries."""
    everything = [*parts, code_version(*CODE), [version(name) for name in LIBRARIES]]
    digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()
    return work / f"{objective}-{digest[:16]}"


def mark(checkpoint: Path) -> None:
    """Mark a checkpoint as complete."""
    (checkpoint / MARK).touch()


def last(run: Path) -> Path | None:
    """Return the complete checkpoint of the most steps, if there is one."""
    complete = [mark.parent for mark in run.glob(f"checkpoint-*/{MARK}")]
    return max(complete, key=lambda folder: int(folder.name.split("-")[1]), default=None)


def _state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))


def finished(run: Path) -> Path | None:
    """Return the complete checkpoint of the last step, if there is one."""
    checkpoint = last(run)
    if checkpoint is None:
        return None
    reached = _state(checkpoint)
    return checkpoint if reached["global_step"] >= reached["max_steps"] else None


def read_log(checkpoint: Path) -> pd.DataFrame:
    """Return the log: step, epoch, loss, learning_rate, val_loss. A row has one of the losses."""
    columns = ["step", "epoch", "loss", "learning_rate", "eval_loss"]
    rows = [row for row in _state(checkpoint)["log_history"] if "loss" in row or "eval_loss" in row]
    log = pd.DataFrame(rows, columns=columns, dtype=float)
    return log.rename(columns={"eval_loss": "val_loss"}).astype({"step": int})


def remove_torn(run: Path) -> None:
    """Remove checkpoints that were never completed."""
    for path in run.glob("checkpoint-*"):
        if not (path / MARK).is_file():
            shutil.rmtree(path)
