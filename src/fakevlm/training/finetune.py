"""Fine-tuning (paper section 4.3): full-parameter instruction tuning of a LLaVA on FakeClue, resumable to the byte.

Three objectives with the same loop: `explanation` (the paper's), `label` (bare answers, for Fig. 3) and `head` (a linear head
instead of words, for Table 6).
"""

import json
import os
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from transformers import LlavaForConditionalGeneration, set_seed

from fakevlm import paths
from fakevlm.config.params import Finetune, Params
from fakevlm.data.records import Record
from fakevlm.data.shards import IN_MEMORY
from fakevlm.errors import UserError
from fakevlm.model.build import publish_names
from fakevlm.model.collate import Collator
from fakevlm.model.llava import load_model, load_processor
from fakevlm.training import checkpoints, loop, ranks
from fakevlm.training.data import OBJECTIVES, Batches, Examples, draw
from fakevlm.training.head import LlavaForVerdict

VAL_LIMIT = 1000  # validation records looked at whenever a checkpoint is made
MODEL_FILES = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json")


def _class(objective: str) -> type[LlavaForConditionalGeneration]:
    return LlavaForVerdict if objective == "head" else LlavaForConditionalGeneration


def freeze(model: LlavaForConditionalGeneration, tune: Finetune) -> None:
    """Leaves only those of vision tower, projector and language model trainable that `tune` names.

    Raises:
        UserError: nothing is left to train, or the frozen vision tower has a learning rate.
    """
    inner = model.model
    parts = [
        (inner.vision_tower, tune.train_vision),
        (inner.multi_modal_projector, tune.train_projector),
        (inner.language_model, tune.train_llm),
        # The linear head replaces the one for words, and is always trained.
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


def _model(params: Params, objective: str, weights: str | Path) -> LlavaForConditionalGeneration:
    tune = params.finetune
    set_seed(params.seed)  # the linear head starts from random weights
    # Under DeepSpeed the engine holds the 32-bit master weights, otherwise the model itself does.
    dtype = "bfloat16" if tune.deepspeed and tune.precision == "bf16" else "float32"
    new = ("score.weight", "score.bias") if objective == "head" else ()
    model = load_model(weights, dtype=dtype, device="cpu", kind=_class(objective), new=new)
    freeze(model, tune)
    if tune.deepspeed is None:
        for tensor in (*model.parameters(), *model.buffers()):
            # Out of the file's buffer, whose alignment depends on the file, and with it the last bit of some matrix products.
            tensor.data = tensor.data.clone()
    if tune.precision == "bf16" and not torch.cuda.is_available():
        # On CPUs the fused attention is several times slower than plain products of bf16 factors (`loop.products`).
        model.set_attn_implementation("eager")
    return model


def _workers(examples: Examples, processes: int) -> int:
    """Encoded examples cost less to batch than to hand over between processes."""
    return 0 if examples.items is not None else min(8, max(1, (os.cpu_count() or 1) // processes))


def read_log(checkpoint: Path) -> pd.DataFrame:
    """What the Trainer logged: step, epoch, loss, learning_rate, val_loss; a row has a training or a validation loss."""
    history = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    rows = [
        (row["step"], row["epoch"], row.get("loss"), row.get("learning_rate"), row.get("eval_loss"))
        for row in history
        if "loss" in row or "eval_loss" in row
    ]
    return pd.DataFrame(
        rows, columns=["step", "epoch", "loss", "learning_rate", "val_loss"], dtype=float
    ).astype({"step": int})


def _export(checkpoint: Path, params: Params, folder: Path) -> None:
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
    load_processor(params.base).save_pretrained(folder)


class Run:
    """One training: what it learns from, for how long, and where it keeps its checkpoints.

    Killed at any time and trained again, it goes on from the last complete checkpoint and ends in the same bytes as if it had
    never been disturbed (several ranks: the same but for rounding).

    Args:
        params: the profile; of it `seed`, `base` and `finetune`.
        records_train: what is learned; each is asked its own `question` or the standard one.
        records_val: the loss on these is logged at every checkpoint and at the end (on `VAL_LIMIT` of them, if more).
        objective: `explanation` (answer: the first of `references`), `label` (`Fake` or `Real`) or `head`.
        work: where runs keep their checkpoints; default `runs/finetune`. All nodes must see it.
        steps: optimizer steps; default: `params.finetune.epochs` times the data.

    Raises:
        UserError: no such objective, or no such base model.
    """

    def __init__(
        self,
        params: Params,
        records_train: Sequence[Record],
        records_val: Sequence[Record],
        objective: str,
        work: Path | None = None,
        *,
        steps: int | None = None,
    ) -> None:
        if objective not in OBJECTIVES:
            raise UserError(f"no objective {objective!r}", f"choose one of: {', '.join(OBJECTIVES)}")
        self.params, self.objective = params, objective
        self.train_records, self.val_records = records_train, draw(records_val, VAL_LIMIT, params.seed)
        self.steps = steps or loop.total_steps(len(records_train), params.finetune)
        work = work or paths.runs("finetune")
        self.folder = ranks.agree(lambda: checkpoints.run_folder(work, objective, self._parts()))
        self.folder.mkdir(parents=True, exist_ok=True)

    def _parts(self) -> list[Any]:
        """All that decides the weights, and whether a checkpoint can be gone on from."""
        tune = self.params.finetune
        # How often it is kept and what is kept in memory meanwhile decide no weight, and are what one changes after a kill.
        settings = tune.model_dump(exclude={"checkpoint_every", "gradient_checkpointing"})
        if tune.deepspeed:
            # Ranks keep a part each of the optimizer's state, cut in another way by each stage.
            settings["deepspeed"] = [tune.deepspeed.stage, tune.ranks]
        digests = [
            checkpoints.data_digest(part, self.objective) for part in (self.train_records, self.val_records)
        ]
        return [self.params.seed, settings, self.steps, checkpoints.base_digest(self.params.base), digests]

    @cached_property
    def collator(self) -> Collator:
        """Of the base's processor."""
        processor, length = load_processor(self.params.base), self.params.finetune.max_length
        return Collator(processor, length, for_generation=self.objective == "head")

    @cached_property
    def train_set(self) -> Examples:
        """What is learned, encoded where it fits into memory."""
        mirror = self.params.seed if self.params.finetune.mirror else None
        return self._examples(self.train_records, "encode train", mirror)

    def _examples(self, records: Sequence[Record], desc: str, mirror: int | None = None) -> Examples:
        return Examples(records, self.collator, self.objective, self._memory, desc, mirror)

    @property
    def _processes(self) -> int:
        """On this machine."""
        section = self.params.finetune.deepspeed
        return section.processes if section else 1

    @property
    def _memory(self) -> int:
        return IN_MEMORY // self._processes

    @property
    def done(self) -> bool:
        """Whether the last checkpoint is complete: there is nothing left to train."""
        return self.steps in checkpoints.completed(self.folder)

    def train(self) -> None:
        """Trains up to the last step, in all ranks; returns at once where that is done.

        Raises:
            UserError: nothing to train, no answers, a prompt too long, …
            UserError: params.yaml names another number of ranks than there are.
        """
        tune = self.params.finetune
        if tune.ranks != ranks.count() or bool(tune.deepspeed) != ranks.launched():
            raise UserError(
                f"finetune.deepspeed says {tune.ranks} process(es), and {ranks.count()} were started",
                "start them by `fakevlm.training.launch` (the notebook does), or with the launcher's numbers as in params.yaml",
            )
        done = ranks.agree(lambda: checkpoints.sweep(self.folder))
        train_set = self.train_set  # a mistake in the data shows even where nothing is left to train
        if self.steps in done:
            return
        val_set = self._examples(self.val_records, "encode val")
        args = loop.arguments(
            tune,
            self.folder,
            steps=self.steps,
            seed=self.params.seed,
            workers=_workers(train_set, self._processes),
        )
        resume = done[max(done)] if done else None
        model = _model(self.params, self.objective, resume or self.params.base)
        with loop.products(tune):
            batches = Batches(self.collator, self.objective)
            loop.train(model, train_set, val_set, batches, args, resume, tune.vision_learning_rate)

    def forget(self) -> None:
        """Removes this run's checkpoints, and no other's: next to it another profile may be training, under Slurm for one."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def export(self, out: Path) -> pd.DataFrame:
        """Writes `out/model/` (HF format, processor) and `out/log.csv` of a run that is `done`.

        Returns:
            The log: step, epoch, loss, learning_rate, val_loss.
        """
        last = checkpoints.completed(self.folder)[self.steps]
        log = read_log(last)
        _export(last, self.params, out / "model")
        log.to_csv(out / "log.csv", index=False, float_format="%.8g", lineterminator="\n")
        return log


def finetune(
    params: Params,
    records_train: Sequence[Record],
    records_val: Sequence[Record],
    objective: str,
    out: Path,
    work: Path | None = None,
    *,
    steps: int | None = None,
) -> pd.DataFrame:
    """Trains in this process and exports: see `Run`. Called after it has finished, it only exports again.

    Args:
        out: the stage's folder, which gets `model/` and `log.csv`.

    Returns:
        The log: step, epoch, loss, learning_rate, val_loss.

    Raises:
        UserError: nothing to train, no base model, no answers, a prompt too long, …
    """
    run = Run(params, records_train, records_val, objective, work, steps=steps)
    run.train()
    return run.export(out)
