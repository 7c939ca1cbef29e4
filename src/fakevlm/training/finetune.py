"""Fine-tuning (paper section 4.3): full-parameter instruction tuning of a LLaVA on FakeClue.

Three objectives with the same loop: `explanation` (the paper's), `label` (bare answers, for Fig. 3) and
`head` (a linear head instead of words, for Table 6).
"""

import hashlib
import json
import math
import os
import shlex
import shutil
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from transformers import LlavaForConditionalGeneration, set_seed

from fakevlm import cache, paths, progress
from fakevlm.config.params import Params, Training
from fakevlm.data.shards import IN_MEMORY, Records, without_images
from fakevlm.errors import UserError
from fakevlm.model.build import publish_names
from fakevlm.model.collate import Collator
from fakevlm.model.head import LlavaForVerdict
from fakevlm.model.llava import load_model, load_processor
from fakevlm.model.weights import write_sums
from fakevlm.training import ranks, trainer
from fakevlm.training.data import OBJECTIVES, Examples, random_subset

VAL_LIMIT = 1000  # validation records that the loss is measured on, at most
VAL_SHARE = 0.05  # the same, for each training record
MODEL_FILES = ("config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json")
# The code that decides the weights: what stage `finetune` depends on in dvc.yaml.
_MODEL = [f"fakevlm.model.{name}" for name in ("build", "chat", "collate", "head", "llava", "weights")]
CODE = ("fakevlm.data.records", "fakevlm.data.shards", *_MODEL, "fakevlm.training")
LIBRARIES = ("torch", "transformers", "accelerate", "deepspeed")


def freeze(model: LlavaForConditionalGeneration, training: Training) -> None:
    """Freeze those of vision tower, projector and language model that are not trained.

    Raises:
        UserError: these are all frozen.
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
        data: folder with the shards of `train` and `val`; None: FakeClue as stage `annotate` made it. The
            validation loss is measured on at most `VAL_LIMIT` records of `val`, and `VAL_SHARE` for each of
            `train`.
        work: folder for the run's own folder, which all nodes must see; None: the stage's.
        steps: optimizer steps; None: `finetune.epochs` decides.

    Raises:
        UserError: no such objective, no data, or no such base model.
    """

    def __init__(
        self,
        params: Params,
        objective: str,
        data: Path | None = None,
        work: Path | None = None,
        steps: int | None = None,
    ) -> None:
        if objective not in OBJECTIVES:
            raise UserError(f"no objective {objective!r}", f"choose one of: {', '.join(OBJECTIVES)}")
        self.params, self.objective = params, objective
        self.length = {"max_steps": steps} if steps else {"num_train_epochs": params.finetune.epochs}
        data = data or paths.artifacts("annotate", "fakeclue")
        # The stage runner removes it once the stage has succeeded, whoever trained: notebook, ranks or Slurm.
        work = work or paths.runs("work", params.profile, f"05_finetune_{objective}")
        self.train_records = Records(data / "train")
        limit = min(VAL_LIMIT, math.ceil(VAL_SHARE * len(self.train_records)))
        self.val_records = random_subset(Records(data / "val"), limit, params.seed)
        self.folder = ranks.agree(lambda: work / f"{objective}-{self._key()}")
        self.folder.mkdir(parents=True, exist_ok=True)

    def _key(self) -> str:
        """Return a hash of all that decides the weights, and whether a checkpoint can be continued."""
        # These two decide no weight, and are what one changes after a kill.
        settings = self.params.training.model_dump(exclude={"checkpoint_every", "gradient_checkpointing"})
        if deepspeed := self.params.training.deepspeed:
            # Each rank keeps a part of the optimizer's state, cut differently by each stage.
            settings["deepspeed"] = [deepspeed.stage, deepspeed.ranks]
        data = hashlib.sha256()
        for name, records in ("train", self.train_records), ("val", self.val_records):
            for record in without_images(records):
                answers = record.references[:1] if self.objective == "explanation" else []
                row = [name, record.sha256, record.label, record.question, answers]
                data.update(json.dumps(row).encode())
        weights, code = cache.model_version(self.params.base), cache.code_version(*CODE)
        libraries = [version(name) for name in LIBRARIES]
        parts = self.params.seed, settings, self.length, weights, data.hexdigest(), code, libraries
        return cache.key(*parts)[:16]

    def train(self) -> None:
        """Train up to the last step, in all ranks; return at once where that is done.

        Raises:
            UserError: nothing to train, no answers, a prompt too long, a wrong number of ranks, …
        """
        training, head, seed = self.params.training, self.objective == "head", self.params.seed
        if training.ranks != ranks.count() or bool(training.deepspeed) != ranks.distributed.is_initialized():
            raise UserError(
                f"training.deepspeed says {training.ranks} process(es), and {ranks.count()} were started",
                "let the notebook start them, or give the launcher the numbers in params.yaml",
            )
        resume = ranks.agree(lambda: trainer.last(self.folder))
        if resume and trainer.is_last(resume):
            return
        if ranks.rank() == 0:
            self.say_what_is_left()
            for checkpoint in self.folder.glob("checkpoint-*"):
                if resume is None or trainer.steps(checkpoint) > trainer.steps(resume):
                    shutil.rmtree(checkpoint)  # half-written or damaged
        processes = training.deepspeed.processes if training.deepspeed else 1
        collator = Collator(load_processor(self.params.base), training.max_length, for_generation=head)
        memory, mirror = IN_MEMORY // processes, seed if training.mirror else None
        train_set = Examples(self.train_records, collator, self.objective, memory, "encode train", mirror)
        val_set = Examples(self.val_records, collator, self.objective, memory, "encode val")
        # Encoded examples cost less to batch than to hand over between processes.
        workers = 0 if train_set.items is not None else min(8, max(1, (os.cpu_count() or 1) // processes))
        args = trainer.arguments(training, self.folder, seed=seed, workers=workers, **self.length)
        model = self._model(resume or self.params.base)
        trainer.train(model, train_set, val_set, training, args, resume)

    def say_what_is_left(self) -> None:
        """Say that the training begins anew, and how to remove what an earlier one left, if that is so."""
        others = {file.parent for file in self.folder.parent.glob(f"{self.objective}-*/checkpoint-*")}
        if others and self.folder not in others:
            files = [file for other in others for file in other.rglob("*") if file.is_file()]
            size, names = sum(file.stat().st_size for file in files), shlex.join(map(str, sorted(others)))
            progress.say(
                f"{self.objective}: training begins anew; an interrupted one has other settings or code.\n"
                f"  → undo that change to go on with it, or free {size / 1e9:.1f} GB: rm -r {names}"
            )

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
        return model

    def export(self, out: Path) -> pd.DataFrame:
        """Write `out/model/` and `out/log.csv` of a finished run; return the log (see `trainer.read_log`)."""
        checkpoint = trainer.finished(self.folder)
        if checkpoint is None:
            raise RuntimeError(f"{self.folder} holds no finished training")
        log, folder = trainer.read_log(checkpoint), out / "model"
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
        write_sums(folder)
        log.to_csv(out / "log.csv", index=False, float_format="%.8g", lineterminator="\n")
        return log


def finetune(
    params: Params,
    objective: str,
    out: Path,
    *,
    data: Path | None = None,
    work: Path | None = None,
    steps: int | None = None,
) -> pd.DataFrame:
    """Tune `params.base` and write `out/model/` (HF format, processor) and `out/log.csv`; return the log.

    Killed and called again, it goes on from the last complete checkpoint; finished, it only exports again.

    Raises:
        UserError: see `Run`, `Run.train` and `ranks.start`.
        RuntimeError: a rank failed.
    """
    run, deepspeed = Run(params, objective, data, work, steps), params.training.deepspeed
    if deepspeed is None:
        run.train()
    elif trainer.finished(run.folder) is None:
        run.say_what_is_left()
        options = {"profile": params.profile, "objective": objective}
        options |= {"data": data, "work": work, "steps": steps}
        arguments = [f"--{name}={value}" for name, value in options.items() if value is not None]
        ranks.start(deepspeed, arguments, run.folder)
    return run.export(out)
