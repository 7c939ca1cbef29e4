"""Fine-tuning (paper section 4.3): full-parameter instruction tuning of a LLaVA on FakeClue.

Three objectives with the same loop: `explanation` (the paper's), `label` (bare answers, for Fig. 3) and
`head` (a linear head instead of words, for Table 6).
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import LlavaForConditionalGeneration, set_seed

from fakevlm import paths
from fakevlm.config.params import Finetune, Params
from fakevlm.data.records import Record
from fakevlm.data.shards import IN_MEMORY, Records
from fakevlm.errors import UserError
from fakevlm.model.build import publish_names
from fakevlm.model.collate import Collator
from fakevlm.model.head import LlavaForVerdict
from fakevlm.model.llava import load_model, load_processor
from fakevlm.training import checkpoints, launch, ranks, trainer
from fakevlm.training.data import OBJECTIVES, Batches, Examples, draw

VAL_LIMIT = 1000  # validation records that the loss is measured on
MODEL_FILES = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json")


def freeze(model: LlavaForConditionalGeneration, tune: Finetune) -> None:
    """Freeze those of vision tower, projector and language model that `tune` does not train.

    Raises:
        UserError: nothing is left to train, or the frozen vision tower has a learning rate.
    """
    inner = model.model
    parts = [
        (inner.vision_tower, tune.train_vision),
        (inner.multi_modal_projector, tune.train_projector),
        (inner.language_model, tune.train_llm),
        # The linear head replaces the head for words, and is always trained.
        (model.lm_head, tune.train_llm and not isinstance(model, LlavaForVerdict)),
    ]
    for part, trained in parts:
        part.requires_grad_(trained)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            "finetune: vision tower, projector and language model are all frozen",
            "set at least one of train_vision, train_projector and train_llm",
        )
    if tune.vision_learning_rate is not None and not tune.train_vision:
        raise UserError(
            "finetune: vision_learning_rate is set, but the vision tower is frozen",
            "set train_vision: true, or vision_learning_rate: null",
        )


def _load(tune: Finetune, seed: int, objective: str, weights: str | Path) -> LlavaForConditionalGeneration:
    """Return the model to train, with the weights in a folder or on the hub."""
    set_seed(seed)  # the linear head starts from random weights
    # Under DeepSpeed the engine holds the 32-bit master weights, otherwise the model does.
    dtype = "bfloat16" if tune.deepspeed and tune.precision == "bf16" else "float32"
    head = objective == "head"
    kind = LlavaForVerdict if head else LlavaForConditionalGeneration
    new = ("score.weight", "score.bias") if head else ()
    model = load_model(weights, dtype=dtype, device="cpu", kind=kind, new=new)
    freeze(model, tune)
    if tune.deepspeed is None:
        for tensor in (*model.parameters(), *model.buffers()):
            # The file's buffer is aligned as the file is, which decides the last bit of some matrix products.
            tensor.data = tensor.data.clone()
    if tune.precision == "bf16" and not torch.cuda.is_available():
        # On CPUs fused attention is several times slower than products of bf16 factors (`trainer.products`).
        model.set_attn_implementation("eager")
    return model


def read_log(checkpoint: Path) -> pd.DataFrame:
    """Return the log: step, epoch, loss, learning_rate, val_loss. A row has a training or a validation
    loss."""
    rows = [
        (row["step"], row["epoch"], row.get("loss"), row.get("learning_rate"), row.get("eval_loss"))
        for row in checkpoints.state(checkpoint)["log_history"]
        if "loss" in row or "eval_loss" in row
    ]
    columns = ["step", "epoch", "loss", "learning_rate", "val_loss"]
    return pd.DataFrame(rows, columns=columns, dtype=float).astype({"step": int})


def _export(checkpoint: Path, base: str, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for pattern in MODEL_FILES:
        for file in sorted(checkpoint.glob(pattern)):
            shutil.copyfile(file, folder / file.name)
    if not any(folder.glob("model*.safetensors")):
        raise UserError(
            f"{checkpoint} holds no safetensors weights",
            "remove that folder, and the training goes on from the checkpoint before it",
        )
    publish_names(folder)  # a base's own names are kept, and not all have the published ones
    load_processor(base).save_pretrained(folder)


class Run:
    """One training: its data, its length, and the folder of its checkpoints.

    Killed at any time and trained again, it goes on from the last complete checkpoint and ends in the same
    bytes as if it had never been disturbed (several ranks: the same but for rounding).

    Args:
        tune: the section `finetune`.
        base: folder or hub name of the model that is tuned.
        seed: of the profile.
        train: records to learn; each is asked its own `question` or the standard one.
        val: records for the loss at every checkpoint and at the end (`VAL_LIMIT` of them, if more).
        objective: `explanation` (answer: the first of `references`), `label` (`Fake` or `Real`) or `head`.
        work: folder for the run's own folder. All nodes must see it.
        steps: optimizer steps; None: `tune.epochs`.

    Raises:
        UserError: no such objective, or no such base model.
    """

    def __init__(
        self,
        tune: Finetune,
        base: str,
        seed: int,
        train: Sequence[Record],
        val: Sequence[Record],
        objective: str,
        work: Path,
        steps: int | None = None,
    ) -> None:
        if objective not in OBJECTIVES:
            raise UserError(f"no objective {objective!r}", f"choose one of: {', '.join(OBJECTIVES)}")
        self.tune, self.base, self.seed, self.objective, self.steps = tune, base, seed, objective, steps
        self.train_records, self.val_records = train, draw(val, VAL_LIMIT, seed)
        self.folder = ranks.agree(lambda: checkpoints.run_folder(work, objective, *self._parts()))
        self.folder.mkdir(parents=True, exist_ok=True)

    def _parts(self) -> list[Any]:
        """Return all, beside the code, that decides the weights and whether a checkpoint can be continued."""
        # These decide no weight, and are what one changes after a kill.
        exclude = {"checkpoint_every", "gradient_checkpointing"} | ({"epochs"} if self.steps else set())
        settings = self.tune.model_dump(exclude=exclude)
        if self.tune.deepspeed:
            # Each rank keeps a part of the optimizer's state, cut differently by each stage.
            settings["deepspeed"] = [self.tune.deepspeed.stage, self.tune.ranks]
        data = [
            checkpoints.data_digest(part, self.objective) for part in (self.train_records, self.val_records)
        ]
        return [self.seed, settings, self.steps, checkpoints.base_digest(self.base), data]

    def train(self) -> None:
        """Train up to the last step, in all ranks; return at once where that is done.

        Raises:
            UserError: nothing to train, no answers, a prompt too long, another number of ranks than
                params.yaml names, …
        """
        tune, head = self.tune, self.objective == "head"
        if tune.ranks != ranks.count() or bool(tune.deepspeed) != ranks.distributed.is_initialized():
            raise UserError(
                f"finetune.deepspeed says {tune.ranks} process(es), and {ranks.count()} were started",
                "let the notebook start them, or give the launcher the numbers in params.yaml",
            )
        if ranks.rank() == 0:
            checkpoints.remove_torn(self.folder)
        resume, done = ranks.agree(
            lambda: (checkpoints.last(self.folder), checkpoints.finished(self.folder) is not None)
        )
        if done:
            return
        processes = tune.deepspeed.processes if tune.deepspeed else 1
        collator = Collator(load_processor(self.base), tune.max_length, for_generation=head)
        memory = IN_MEMORY // processes
        mirror = self.seed if tune.mirror else None
        train_set = Examples(self.train_records, collator, self.objective, memory, "encode train", mirror)
        val_set = Examples(self.val_records, collator, self.objective, memory, "encode val")
        # Encoded examples cost less to batch than to hand over between processes.
        workers = 0 if train_set.items is not None else min(8, max(1, (os.cpu_count() or 1) // processes))
        args = trainer.arguments(tune, self.folder, seed=self.seed, steps=self.steps, workers=workers)
        model = _load(tune, self.seed, self.objective, resume or self.base)
        batches = Batches(collator, self.objective)
        with trainer.products(tune):
            trainer.train(model, train_set, val_set, batches, args, resume, tune.vision_learning_rate)

    def export(self, out: Path) -> pd.DataFrame:
        """Write `out/model/` (HF format, processor) and `out/log.csv` of a finished run.

        Returns:
            The log: step, epoch, loss, learning_rate, val_loss.
        """
        checkpoint = checkpoints.finished(self.folder)
        if checkpoint is None:
            raise RuntimeError(f"{self.folder} holds no finished training")
        log = read_log(checkpoint)
        _export(checkpoint, self.base, out / "model")
        log.to_csv(out / "log.csv", index=False, float_format="%.8g", lineterminator="\n")
        return log


def open_run(
    params: Params,
    objective: str,
    data: Path | None = None,
    work: Path | None = None,
    steps: int | None = None,
) -> Run:
    """Return the run on the shards in `data`; see `finetune` for the arguments."""
    data = data or paths.artifacts("annotate", "fakeclue")
    # Where the stage runner removes it once the stage has succeeded, whoever trained: notebook, ranks or a
    # Slurm job.
    work = work or paths.runs("work", params.profile, f"05_finetune_{objective}")
    train, val = (Records(data / split) for split in ("train", "val"))
    return Run(params.finetune, params.base, params.seed, train, val, objective, work, steps)


def finetune(
    params: Params,
    objective: str,
    out: Path,
    *,
    data: Path | None = None,
    work: Path | None = None,
    steps: int | None = None,
) -> pd.DataFrame:
    """Tune `params.base` on FakeClue and write `out/model/` (HF format, processor) and `out/log.csv`.

    Interrupted or killed and called again, it goes on from the last complete checkpoint. Called after it has
    finished, it only exports again.

    Args:
        params: a profile as params.yaml has it; of it `seed`, `base` and `finetune`.
        objective: `explanation`, `label` or `head`.
        out: the stage's folder.
        data: folder with the shards of `train` and `val`; default: FakeClue as stage `annotate` made it.
        work: folder for checkpoints; default: in `runs/work/`.
        steps: optimizer steps; default: `finetune.epochs`.

    Returns:
        The log: step, epoch, loss, learning_rate, val_loss.

    Raises:
        UserError: nothing to train, no base model, no answers, a prompt too long, a hostfile too small, …
        RuntimeError: a rank failed.
    """
    run = open_run(params, objective, data, work, steps)
    if params.finetune.deepspeed is None:
        run.train()
    elif checkpoints.finished(run.folder) is None:
        options = {
            "profile": params.profile,
            "objective": objective,
            "data": data,
            "work": work,
            "steps": steps,
        }
        arguments = [f"--{name}={value}" for name, value in options.items() if value is not None]
        launch.start(params.finetune.deepspeed, arguments, run.folder)
    return run.export(out)
