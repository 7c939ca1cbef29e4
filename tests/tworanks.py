"""One of two ranks, started by the tests through torchrun: trains tiny LLaVAs one after the other, so that all share the start.

    python -m torch.distributed.run --nproc-per-node=2 tests/tworanks.py BASE FOLDER

Leaves in FOLDER/<name>: `work/` with the run's checkpoints, and `logits.safetensors`, what the trained model says.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import tinyllava
from fakevlm.config.params import DeepSpeed, Params
from fakevlm.training import loop, ranks
from fakevlm.training.data import Batches, Examples
from fakevlm.training.finetune import Run

STEPS = 6  # of 3 an epoch; checkpoints every 2 steps fall into and between epochs
KILLED_AFTER = 14  # batches, those of validation included: after the second checkpoint, within an epoch
SETTINGS: dict[str, Any] = {"checkpoint_every": 2, "mirror": True, "vision_learning_rate": 5e-3}
TUNES: dict[str, dict[str, Any]] = {
    "zero2": {"deepspeed": DeepSpeed(stage=2, processes=2)},
    "zero3": {"deepspeed": DeepSpeed(stage=3, processes=2)},
    "zero3-bf16": {"deepspeed": DeepSpeed(stage=3, processes=2), "precision": "bf16"},
    "zero3-offload": {"deepspeed": DeepSpeed(stage=3, processes=2, offload="parameters")},
    "head": {"deepspeed": DeepSpeed(stage=3, processes=2)},
}
KILLED = {"zero2", "zero3-bf16"}


class Killed(BaseException):
    pass


def run(base: Path, name: str, work: Path, **tune: Any) -> Run:
    """The training called `name`; its batches are those of one process with `batch_size` 8."""
    settings = {**SETTINGS, **TUNES.get(name, {}), **tune}
    objective = "head" if name == "head" else "explanation"
    return Run(params(base, **settings), *data(), objective, work, steps=STEPS)


def params(base: Path, **settings: Any) -> Params:
    return tinyllava.params(base, **{"batch_size": 2, "gradient_accumulation": 2, **settings})


def data() -> tuple[list, list]:
    return tinyllava.records(24), tinyllava.records(8, 1)


def probe(run: Run) -> dict[str, Any]:
    """A batch to ask every model about."""
    examples = Examples(tinyllava.records(4, 2), run.collator, run.objective)
    return Batches(run.collator, run.objective)([examples[n] for n in range(4)])


def train(run: Run, folder: Path, killed_after: int | None) -> None:
    honest, batch, left = loop.train, Batches.__call__, [killed_after or 10**9]

    def watched(model: torch.nn.Module, *rest: Any) -> None:
        honest(model, *rest)
        model.eval()
        with torch.no_grad():
            said = model(
                **asked
            ).logits.float()  # ZeRO-3 gathers weights as they are needed, in all ranks at once
        if ranks.rank() == 0:
            save_file({"logits": said.contiguous()}, folder / "logits.safetensors")

    def dying(self: Batches, items: Any) -> dict[str, Any]:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return batch(self, items)

    asked = probe(run)
    asked["pixel_values"] = asked["pixel_values"].to(
        torch.bfloat16 if run.params.finetune.precision == "bf16" else torch.float32
    )
    loop.train, Batches.__call__ = watched, dying
    try:
        run.train()
    except Killed:
        assert killed_after
    finally:
        loop.train, Batches.__call__ = honest, batch


def main(base: Path, folder: Path) -> None:
    ranks.join()
    for name in TUNES:
        for killed in (False, True) if name in KILLED else (False,):
            own = folder / (f"{name}-killed" if killed else name)
            own.mkdir(parents=True, exist_ok=True)
            if killed:
                train(run(base, name, own / "work"), own, KILLED_AFTER)
                if ranks.rank() == 0:
                    (own / "reached").write_text(str(max(run_steps(own))))
                ranks.wait()
            train(run(base, name, own / "work"), own, None)
    ranks.wait()
    ranks.leave()


def run_steps(own: Path) -> list[int]:
    return [int(mark.parent.name.split("-")[1]) for mark in own.glob("work/*/checkpoint-*/complete")]


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
