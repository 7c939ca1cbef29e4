"""Hugging Face's Trainer with this project's settings, progress bar and checkpoints.

A checkpoint counts once it is marked complete, which is written last.
"""

import json
import math
from collections import ChainMap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME

from fakevlm import progress
from fakevlm.cache import damage, digests
from fakevlm.data.shards import columns_of, take
from fakevlm.errors import UserError
from fakevlm.model.llava import multiply_in_16_bits
from fakevlm.model.weights import multiplies_16_bits
from fakevlm.progress import say
from fakevlm.training import ranks
from fakevlm.training.data import Examples

if TYPE_CHECKING:
    from fakevlm.config.params import DeepSpeed, Training

LOG_EVERY = 10  # steps, at most
COMPLETE = "complete"  # the file that marks a checkpoint: the digests of all others
# How the Trainer calls it; transformers 5.17 has the older name.
_NEW, _OLD = "activation_checkpointing", "gradient_checkpointing"
_CHECKPOINTING = _NEW if hasattr(TrainingArguments, _NEW) else _OLD


def steps(checkpoint: Path) -> int:
    """Return after how many steps a checkpoint was written."""
    return int(checkpoint.name.split("-")[1])


def last(run: Path) -> Path | None:
    """Return the checkpoint of the most steps in a run's folder whose files are as they were written.

    Those that a kill left incomplete or a disk damaged are named and passed over.
    """
    for folder in sorted(run.glob("checkpoint-*"), key=steps, reverse=True):
        if (damaged := damage(folder, folder / COMPLETE)) is None:
            return folder
        say(f"{folder} is incomplete or damaged ({damaged}); the one before it counts")
    return None


def _state(checkpoint: Path) -> dict[str, Any]:
    return json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))


def is_last(checkpoint: Path) -> bool:
    """Whether nothing is left to be trained after a checkpoint."""
    state = _state(checkpoint)
    return state["global_step"] >= state["max_steps"]


def finished(run: Path) -> Path | None:
    """Return the checkpoint of the last step, if it is as it was written."""
    checkpoint = last(run)
    return checkpoint if checkpoint and is_last(checkpoint) else None


def read_log(checkpoint: Path) -> pd.DataFrame:
    """Return the log: step, epoch, loss, learning_rate, val_loss. A row has one of the losses."""
    columns = ["step", "epoch", "loss", "learning_rate", "eval_loss"]
    rows = [row for row in _state(checkpoint)["log_history"] if "loss" in row or "eval_loss" in row]
    log = pd.DataFrame(rows, columns=columns, dtype=float)
    return log.rename(columns={"eval_loss": "val_loss"}).astype({"step": int})


def zero(section: "DeepSpeed") -> dict[str, Any]:
    """Return DeepSpeed's configuration; the Trainer fills in what is "auto".

    The optimizer is torch's, also where its state is offloaded, so that no rank has to compile DeepSpeed's.
    """
    options: dict[str, Any] = {
        "stage": section.stage,
        "overlap_comm": torch.cuda.is_available(),
        "reduce_bucket_size": "auto",
    }
    if section.stage == 3:
        options |= {
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            # Checkpoints hold whole 16-bit weights beside the ranks' parts: these are exported.
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if section.offload is not None:
        options["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if section.offload == "parameters":
        options["offload_param"] = {"device": "cpu", "pin_memory": True}
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    return {
        **dict.fromkeys((*sizes, "gradient_clipping"), "auto"),
        "bf16": {"enabled": "auto"},
        "zero_optimization": options,
        "zero_force_ds_cpu_optimizer": False,
    }


def arguments(
    training: "Training", folder: Path, *, seed: int, workers: int, **length: float
) -> TrainingArguments:
    """Return the Trainer's arguments; `length` is its `num_train_epochs` or `max_steps`."""
    on_gpu, every = torch.cuda.is_available(), training.checkpoint_every
    # The loss is averaged over the steps since the last line of the log, and a checkpoint does not hold this
    # running sum: so the interval divides that of the checkpoints.
    log_every = max(n for n in range(1, LOG_EVERY + 1) if every % n == 0)
    return TrainingArguments(
        output_dir=str(folder),
        **length,
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=training.warmup_ratio,  # below 1: a share of all steps
        weight_decay=training.weight_decay,
        # Under DeepSpeed weights are 16-bit on CPUs too: tests there run what GPUs run.
        bf16=training.precision == "bf16" and (on_gpu or training.deepspeed is not None),
        use_cpu=not on_gpu,
        **{_CHECKPOINTING: training.gradient_checkpointing or None},
        deepspeed=zero(training.deepspeed) if training.deepspeed else None,
        seed=seed,
        data_seed=seed,
        logging_steps=log_every,
        eval_strategy="steps",
        eval_steps=every,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        dataloader_num_workers=workers,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        logging_nan_inf_filter=False,  # it would log 0; see `_diverged`
        log_level="error",
    )


class _Callback(TrainerCallback):
    """Shows progress, tells the examples their epoch, marks complete checkpoints."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def on_train_begin(self, args, state, control, **_: Any) -> None:
        # A checkpoint's state has the intervals of then, not of now.
        state.compute_steps(args, state.max_steps)
        desc, shown = f"finetune {self.examples.objective}", state.is_world_process_zero
        self.bar = progress.bar(state.max_steps, desc, unit="step", shown=shown)
        # Steps of an earlier process count as done, but not for the rate.
        self.bar.initial = self.bar.n = state.global_step

    def on_epoch_begin(self, args, state, control, **_: Any) -> None:
        self.examples.epoch = int(state.epoch or 0)

    def on_pre_optimizer_step(self, args, state, control, model: Any, lr_scheduler: Any, **_: Any) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]  # DeepSpeed keeps its own
        if gradients and not (norm := torch.nn.utils.get_total_norm(gradients)).isfinite():
            raise _diverged(f"the gradient's norm is {norm}", args, state, lr_scheduler, self.examples)

    def on_step_end(self, args, state, control, **_: Any) -> None:
        self.bar.update()

    def on_log(self, args, state, control, logs: dict | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)

    def on_save(self, args, state, control, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle that nothing here reads
        ranks.wait()  # all have written their part
        parts = ranks.gather(digests(folder, slice(ranks.rank(), None, ranks.count())))
        if state.is_world_process_zero:
            (folder / COMPLETE).write_text(json.dumps(dict(ChainMap(*parts)), indent=1), encoding="utf-8")

    def on_train_end(self, args, state, control, **_: Any) -> None:
        self.bar.close()


class _Order(torch.utils.data.Sampler[int]):
    """The examples in random order; those of a step are sorted by length, so that batches hold less padding.

    A step's examples are what they would be anyway, and so are its gradients.
    """

    def __init__(self, examples: Examples, step: int, seed: int) -> None:
        self.examples, self.step, self.seed = examples, step, seed

    def __len__(self) -> int:
        return len(self.examples)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.examples.epoch)
        for step in torch.randperm(len(self), generator=generator).split(self.step):
            yield from sorted(step.tolist(), key=self.examples.lengths.__getitem__)


def _diverged(what: str, args: Any, state: Any, schedule: Any, examples: Examples | None) -> UserError:
    """Return the error of a loss or gradient that is no number; `examples` are named unless in validation."""
    if examples is not None:
        size = args.train_batch_size * args.gradient_accumulation_steps * ranks.count()
        start = state.global_step % math.ceil(len(examples) / size) * size
        rows = list(_Order(examples, size, args.seed))[start : start + size]
        ids = columns_of(take(examples.records, rows), ["id"])["id"]
        what += f" for the records {', '.join(ids[:8])}{', …' if len(ids) > 8 else ''}"
    return UserError(
        f"{what} after {state.global_step} steps, at learning rate {schedule.get_last_lr()[0]:.3g}",
        "lower training.learning_rate, which begins the training anew, or take a damaged record out",
    )


class _Trainer(Trainer):
    """A Trainer whose vision tower may have its own learning rate, and whose batches hold like lengths."""

    vision_learning_rate: float | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> _Order:
        args, examples = self.args, train_dataset or self.train_dataset
        step = args.train_batch_size * args.gradient_accumulation_steps * ranks.count()
        return _Order(examples, step, args.seed)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Do nothing: the model has the weights. The Trainer finds none by LLaVA's published names, and only
        warns (huggingface/transformers#43701); DeepSpeed loads them from its own files."""

    def compute_loss(self, model: Any, inputs: Any, *flags: Any, **options: Any) -> Any:
        result = super().compute_loss(model, inputs, *flags, **options)
        loss = result[0] if isinstance(result, tuple) else result
        if not loss.isfinite():
            what = f"the {'loss' if model.training else 'validation loss'} is {loss.item()}"
            examples = self.train_dataset if model.training else None
            raise _diverged(what, self.args, self.state, self.lr_scheduler, examples)
        return result

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        first = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if self.vision_learning_rate is not None and first:
            tower = {id(p) for p in (model or self.model).model.vision_tower.parameters()}
            for group in list(optimizer.param_groups):
                in_tower = [p for p in group["params"] if id(p) in tower]
                group["params"] = [p for p in group["params"] if id(p) not in tower]
                optimizer.add_param_group({**group, "params": in_tower, "lr": self.vision_learning_rate})
            optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer


def train(
    model: torch.nn.Module,
    train_set: Examples,
    val_set: Examples,
    training: "Training",
    args: TrainingArguments,
    resume: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Train `model` in place. It has the weights of the checkpoint `resume`, whose state is continued.

    With `precision: bf16`, on a CPU with instructions for it, linear layers multiply in 16 bits.
    """
    trainer = _Trainer(
        model=model,
        args=args,
        data_collator=train_set.collate,
        train_dataset=train_set,
        eval_dataset=val_set,
        callbacks=[_Callback(train_set), *callbacks],
    )
    trainer.vision_learning_rate = training.vision_learning_rate
    trainer.remove_callback(PrinterCallback)
    del model.config.use_cache  # the Trainer's; batches carry it instead
    if training.compile:
        for layer in model.model.language_model.layers:
            layer.compile(dynamic=True)
    if training.precision == "bf16" and not args.bf16 and multiplies_16_bits():
        multiply_in_16_bits(model)
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
