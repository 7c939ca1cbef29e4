"""Name a training run after everything that decides its weights, and tell complete checkpoints from others.

With other settings, data, base, code or libraries it is another run. A checkpoint counts once it is marked
complete, which is written last; what a kill left half-written is removed.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from fakevlm.cache import code_version
from fakevlm.data.records import Record
from fakevlm.data.shards import without_images
from fakevlm.errors import UserError
from fakevlm.model.llava import locate

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


def base_digest(base: str) -> str:
    """Return the hash of a base model's files, or its commit where it comes from the hub.

    Raises:
        UserError: there is no such model.
    """
    folder = Path(locate(base))
    if not folder.is_dir():
        try:
            return str(AutoConfig.from_pretrained(base)._commit_hash)
        except (OSError, ValueError) as error:
            raise UserError(
                f"no model could be loaded from {base!r}: {error}",
                "name a folder in Hugging Face format or a model of the hub in `base`",
            ) from error
    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".json", ".jinja", ".safetensors", ".model"):
            with file.open("rb") as stream:
                digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def data_digest(records: Sequence[Record], objective: str) -> str:
    """Return the hash of images, labels, questions and (for the objective `explanation`) answers, in
    order."""
    digest = hashlib.sha256()
    for record in without_images(records):
        answers = record.references[:1] if objective == "explanation" else []
        digest.update(json.dumps([record.sha256, record.label, record.question, answers]).encode())
    return digest.hexdigest()


def run_folder(work: Path, objective: str, *parts: Any) -> Path:
    """Return `<work>/<objective>-<hash>`, the hash over `parts` (as JSON has them), the code and the
    libraries."""
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


def state(checkpoint: Path) -> dict[str, Any]:
    """Return the Trainer's state: `global_step`, `max_steps`, `log_history`, …"""
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))


def finished(run: Path) -> Path | None:
    """Return the complete checkpoint of the last step, if there is one."""
    checkpoint = last(run)
    if checkpoint is None:
        return None
    reached = state(checkpoint)
    return checkpoint if reached["global_step"] >= reached["max_steps"] else None


def remove_torn(run: Path) -> None:
    """Remove checkpoints that were never completed."""
    for path in run.glob("checkpoint-*"):
        if not (path / MARK).is_file():
            shutil.rmtree(path)
