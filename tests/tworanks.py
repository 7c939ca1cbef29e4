"""One of two ranks that torchrun starts: `tworanks.py BASE FOLDER` leaves checkpoints in FOLDER/<name>."""

import sys
from pathlib import Path
from typing import Any

import tinyllava
from fakevlm.config.params import DeepSpeed
from fakevlm.training import ranks

STEPS = 4  # of 3 an epoch; checkpoints every 2 steps fall into and between epochs
SETTINGS: dict[str, Any] = {"checkpoint_every": 2, "mirror": True, "vision_learning_rate": 5e-3}
TUNES: dict[str, dict[str, Any]] = {
    "zero2": {"deepspeed": DeepSpeed(stage=2, processes=2)},
    "zero3": {"deepspeed": DeepSpeed(stage=3, processes=2, offload="parameters")},
    "zero3-bf16": {"deepspeed": DeepSpeed(stage=3, processes=2), "precision": "bf16"},
    "head": {"deepspeed": DeepSpeed(stage=3, processes=2)},
}


def run(base: Path, name: str, work: Path, **tune: Any) -> Any:
    """The training called `name`; its batches are those of one process with `batch_size` 8."""
    settings = {"batch_size": 2, "gradient_accumulation": 2, **SETTINGS, **TUNES.get(name, {}), **tune}
    objective = "head" if name == "head" else "explanation"
    data = tinyllava.records(24), tinyllava.records(8, 1)
    return tinyllava.run(base, work, objective, STEPS, data, **settings)


def main(base: Path, folder: Path) -> None:
    ranks.connect()
    for name in TUNES:
        run(base, name, folder / name).train()
    ranks.disconnect()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
    ranks.leave(0)
