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
from fakevlm.cache import model_version
from fakevlm.config.params import Params, Training
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


def freeze(model: LlavaForConditionalGeneration, training: Training) -> None:
    """Freeze those of vision tower, projector and language model that are not trained.

    Raises:
        UserError: nothing is left to train.
    """
    inner = model.model
    inner.vision_tower.requires_grad_(training.train_vision)
    inner.multi_modal_projector.requires_grad_(training.train_projector)
    inner.language_model.requires_grad_(training.train_llm)
    # The linear head replaces the head for words, and is always trained.
    model.lm_head.requires_grad_(training.train_llm and not isinstance(model, LlavaForVerdict))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(
            "training: vision tower, projector and language model are all frozen",
            "set at least one of train_vision, train_projector and train_llm",
        )


class Run:
    """One training: its data, its length, and the folder of its checkpoints.

    Killed at any time and trained again, it goes on from the last complete checkpoint and ends in the same
    bytes as an undisturbed one (several ranks: the same but for rounding).

    Args:
        params: the profile; of it `seed`, `base`, `training` and `finetune.epochs`.
        objective: `explanation` (answer: the first of `references`), `label` (`Fake` or `Real`) or `head`.
        train: records to learn; each is asked its own `question` or the standard one.
        val: records for the loss at every checkpoint and at the end (`VAL_LIMIT` of them, if more).
        work: folder for the run's own folder. All nodes must see it.
        steps: optimizer steps; None: `finetune.epochs` decides.

    Raises:
        UserError: no such objective, or no such base model.
    """

    def __init__(
        self,
        params: Params,
        objective: str,
        train: Sequence[Record],
        val: Sequence[Record],
        work: Path,
        steps: int | None = None,
    ) -> None:
        if objective not in OBJECTIVES:
            raise UserError(f"no objective {objective!r}", f"choose one of: {', '.join(OBJECTIVES)}")
        self.params, self.objective = params, objective
        self.length = {"max_steps": steps} if steps else {"num_train_epochs": params.finetune.epochs}
        self.train_records, self.val_records = train, draw(val, VAL_LIMIT, params.seed)
        self.folder = ranks.agree(lambda: checkpoints.run_folder(work, objective, *self._key()))
        self.folder.mkdir(parents=True, exist_ok=True)

    def _key(self) -> list[Any]:
        """Return all, beside the code, that decides the weights and whether a checkpoint can be continued."""
        # These two decide no weight, and are what one changes after a kill.
        settings = self.params.training.model_dump(exclude={"checkpoint_every", "gradient_checkpointing"})
        if deepspeed := self.params.training.deepspeed:
            # Each rank keeps a part of the optimizer's state, cut differently by each stage.
            settings["deepspeed"] = [deepspeed.stage, deepspeed.ranks]
        data = [
            checkpoints.data_digest(part, self.objective) for part in (self.train_records, self.val_records)
        ]
        return [self.params.seed, settings, self.length, model_version(self.params.base), data]

    def train(self) -> None:
        """Train up to the last step, in all ranks; return at once where that is done.

        Raises:
            UserError: nothing to train, no answers, a prompt too long, another number of ranks than
                params.yaml names, …
        """
        training, head, seed = self.params.training, self.objective == "head", self.params.seed
        if training.ranks != ranks.count() or bool(training.deepspeed) != ranks.distributed.is_initialized():
            raise UserError(
                f"training.deepspeed says {training.ranks} process(es), and {ranks.count()} were started",
                "let the notebook start them, or give the launcher the numbers in params.yaml",
            )
        if ranks.rank() == 0:
            checkpoints.remove_torn(self.folder)
        resume, done = ranks.agree(lambda: (checkpoints.last(self.folder), checkpoints.finished(self.folder)))
        if done:
            return
        processes = training.deepspeed.processes if training.deepspeed else 1
        collator = Collator(load_processor(self.params.base), training.max_length, for_generation=head)
        memory, mirror = IN_MEMORY // processes, seed if training.mirror else None
        train_set = Examples(self.train_records, collator, self.objective, memory, "encode train", mirror)
        val_set = Examples(self.val_records, collator, self.objective, memory, "encode val")
        # Encoded examples cost less to batch than to hand over between processes.
        workers = 0 if train_set.items is not None else min(8, max(1, (os.cpu_count() or 1) // processes))
        args = trainer.arguments(training, self.folder, seed=seed, workers=workers, **self.length)
        model = self._model(resume or self.params.base)
        batches = Batches(collator, self.objective)
        with trainer.products(training):
            trainer.train(model, train_set, val_set, batches, args, resume, training.vision_learning_rate)

    def _model(self, weights: str | Path) -> LlavaForConditionalGeneration:
        """Return the model to train, with the weights in a folder or on the hub."""
        set_seed(self.params.seed)  # the linear head starts from random weights
        training = self.params.training
        # Under DeepSpeed the engine holds the 32-bit master weights, otherwise the model does.
        dtype = "bfloat16" if training.deepspeed and training.precision == "bf16" else "float32"
        head = self.objective == "head"
        kind = LlavaForVerdict if head else LlavaForConditionalGeneration
        new = ("score.weight", "score.bias") if head else ()
        model = load_model(weights, dtype=dtype, device="cpu", kind=kind, new=new)
        freeze(model, training)
        if training.deepspeed is None:
            for tensor in (*model.parameters(), *model.buffers()):
                # The file's buffer is aligned as the file is, which decides the last bit of some products.
                tensor.data = tensor.data.clone()
        if training.precision == "bf16" and not torch.cuda.is_available():
            # On CPUs fused attention is several times slower than products of bf16 factors.
            model.set_attn_implementation("eager")
        return model

    def export(self, out: Path) -> pd.DataFrame:
        """Write `out/model/` (HF format, processor) and `out/log.csv` of a finished run.

        Returns:
            The log: step, epoch, loss, learning_rate, val_loss.
        """
        checkpoint = checkpoints.finished(self.folder)
        if checkpoint is None:
            raise RuntimeError(f"{self.folder} holds no finished training")
        log, folder = checkpoints.read_log(checkpoint), out / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in (file for pattern in MODEL_FILES for file in sorted(checkpoint.glob(pattern))):
            shutil.copyfile(file, folder / file.name)
        if not any(folder.glob("model*.safetensors")):
            raise UserError(
                f"{checkpoint} holds no safetensors weights",
                "remove that folder, and the training goes on from the checkpoint before it",
            )
        publish_names(folder)  # a base's own names are kept, and not all have the published ones
        load_processor(self.params.base).save_pretrained(folder)
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
    return Run(params, objective, Records(data / "train"), Records(data / "val"), work, steps)


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
        params: a profile as params.yaml has it.
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
    deepspeed = params.training.deepspeed
    if deepspeed is None:
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
        launch.start(deepspeed, arguments, run.folder)
    return run.export(out)
