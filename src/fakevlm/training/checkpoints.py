"""Where a training run lives, and which of its checkpoints can be trusted.

A run's folder is named after everything that decides its weights: with other parameters, data or base it is another run. A
checkpoint counts only once it is marked complete, which is the last thing written; what a kill left half-written goes.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fakevlm.data.records import Record
from fakevlm.data.shards import without_images
from fakevlm.model.llava import locate

MARK = "complete"
_NAME = re.compile(r"checkpoint-(\d+)")


def base_digest(base: str) -> str:
    """Hash of a base model's files, or of its name where it comes from the hub."""
    folder = Path(locate(base))
    digest = hashlib.sha256(b"" if folder.is_dir() else base.encode())
    if folder.is_dir():
        for file in sorted(folder.iterdir()):
            if file.suffix in (".json", ".jinja", ".safetensors", ".model"):
                with file.open("rb") as stream:
                    digest.update(file.name.encode() + hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def data_digest(records: Sequence[Record], objective: str) -> str:
    """Hash of what a run learns from: images, labels, questions and (unless only labels are learned) answers, in order."""
    digest = hashlib.sha256()
    for record in without_images(records):
        told = record.references[:1] if objective == "explanation" else []
        digest.update(json.dumps([record.sha256, record.label, record.question, told]).encode())
    return digest.hexdigest()


def run_folder(work: Path, objective: str, parts: Iterable[Any]) -> Path:
    """`<work>/<objective>-<hash>`, the hash over `parts` (anything JSON holds)."""
    digest = hashlib.sha256(json.dumps(list(parts), sort_keys=True).encode()).hexdigest()
    return work / f"{objective}-{digest[:16]}"


def mark(checkpoint: Path) -> None:
    """Says that a checkpoint is complete."""
    (checkpoint / MARK).touch()


def completed(run: Path) -> dict[int, Path]:
    """Step → folder of the complete checkpoints, in order of steps."""
    found = {
        int(match[1]): path for path in run.glob("checkpoint-*") if (match := _NAME.fullmatch(path.name))
    }
    return {step: found[step] for step in sorted(found) if (found[step] / MARK).is_file()}


def sweep(run: Path) -> dict[int, Path]:
    """Removes checkpoints that were never completed; returns those that were, as `completed` does."""
    whole = completed(run)
    for path in run.glob("checkpoint-*"):
        if path not in whole.values():
            shutil.rmtree(path)
    return whole
