"""The training loop: Hugging Face's Trainer with this project's parameters, progress lines and complete checkpoints."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME

from fakevlm import progress
from fakevlm.config.params import Finetune
from fakevlm.training import checkpoints, ranks, zero
from fakevlm.training.data import Batches, Examples

LOG_EVERY = 10  # steps


def log_interval(checkpoint_every: int) -> int:
    """Steps between log lines: at most `LOG_EVERY`, and such that a checkpoint never falls between two of them.

    The loss is averaged over the steps since the last line, and this running sum is not part of a checkpoint.
    """
    return max(n for n in range(1, LOG_EVERY + 1) if checkpoint_every % n == 0)


def total_steps(examples: int, tune: Finetune) -> int:
    """Optimizer steps of the whole training, by as many ranks as `tune` says."""
    an_epoch = math.ceil(examples / (tune.batch_size * tune.gradient_accumulation * tune.ranks))
    return max(1, math.ceil(tune.epochs * an_epoch))


@contextmanager
def products(tune: Finetune) -> Iterator[None]:
    """How matrix products are computed meanwhile: with `bf16` on a CPU, from factors rounded to 16 bit.

    Weights, sums and all else stay 32-bit. A CPU with bf16 instructions trains about twice as fast so, one without them
    computes as in `fp32`; autocast, which serves GPUs, is slower than `fp32` on both.
    """
    before = torch.get_float32_matmul_precision()
    if tune.precision == "bf16" and not torch.cuda.is_available():
        torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def arguments(tune: Finetune, run: Path, *, steps: int, seed: int, workers: int) -> TrainingArguments:
    """What the Trainer is told; see params.yaml for the values.

    Args:
        tune: the section `finetune`.
        run: where checkpoints go.
        steps: optimizer steps in all.
        seed: of the order of the data and of all else that is drawn.
        workers: processes that prepare batches.
    """
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(run),
        max_steps=steps,
        per_device_train_batch_size=tune.batch_size,
        per_device_eval_batch_size=tune.batch_size,
        gradient_accumulation_steps=tune.gradient_accumulation,
        learning_rate=tune.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(tune.warmup_ratio * steps),
        weight_decay=tune.weight_decay,
        # Under DeepSpeed weights are 16-bit on CPUs as well: what runs there is what GPUs do.
        bf16=tune.precision == "bf16" and (on_gpu or tune.deepspeed is not None),
        use_cpu=not on_gpu,
        activation_checkpointing=tune.gradient_checkpointing or None,
        deepspeed=zero.config(tune.deepspeed, overlap=on_gpu) if tune.deepspeed else None,
        seed=seed,
        data_seed=seed,
        logging_steps=log_interval(tune.checkpoint_every),
        eval_strategy="steps",
        eval_steps=tune.checkpoint_every,
        prediction_loss_only=True,
        save_strategy="steps",
        save_steps=tune.checkpoint_every,
        save_total_limit=2,
        dataloader_num_workers=workers,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        disable_tqdm=True,
        report_to="none",
        log_level="error",
    )


class _Progress(TrainerCallback):
    """One bar for the whole training, with the loss, through `fakevlm.progress`."""

    def __init__(self, desc: str) -> None:
        self.desc, self.bar = desc, None

    def on_train_begin(self, args, state, control, **_: Any) -> None:
        if state.is_world_process_zero:
            self.bar = progress.bar(state.max_steps, self.desc, unit="step")
            # What an earlier process did counts as done, but not for the rate.
            self.bar.initial = self.bar.n = state.global_step

    def on_step_end(self, args, state, control, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update()

    def on_log(self, args, state, control, logs: dict | None = None, **_: Any) -> None:
        if self.bar is not None and logs and "loss" in logs:
            self.bar.set_postfix_str(f"loss {logs['loss']:.3f}", refresh=False)

    def on_train_end(self, args, state, control, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()


class _Epochs(TrainerCallback):
    """Tells the training examples which epoch begins."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def on_epoch_begin(self, args, state, control, **_: Any) -> None:
        self.examples.epoch = int(state.epoch or 0)


class _Often(TrainerCallback):
    """Keeps checkpoints as often as is said now: gone on from a checkpoint, the trainer would go by what was said then."""

    def on_train_begin(self, args, state, control, **_: Any) -> None:
        state.compute_steps(args, state.max_steps)


class _Mark(TrainerCallback):
    """Marks each checkpoint once all ranks have written their part of it."""

    def on_save(self, args, state, control, **_: Any) -> None:
        ranks.wait()
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle that nothing here reads
            checkpoints.mark(folder)


class _Trainer(Trainer):
    """A Trainer that is handed its model with the checkpoint's weights already in it, and a learning rate for its vision tower.

    Its own loading compares the names in the file with those in the model. LLaVA's differ (`save_pretrained` keeps the
    published ones), so it would go on with the base's weights and only warn (huggingface/transformers#43701). DeepSpeed's
    engine does load a checkpoint's weights: from its own files, by the model's names, and strictly.
    """

    vision_learning_rate: float | None = None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        pass

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        made = self.optimizer is not None
        optimizer = super().create_optimizer(model)
        if self.vision_learning_rate is not None and not made:
            tower = {id(p) for p in (model or self.model).model.vision_tower.parameters()}
            groups = list(optimizer.param_groups)
            for group in groups:
                its = [p for p in group["params"] if id(p) in tower]
                group["params"] = [p for p in group["params"] if id(p) not in tower]
                optimizer.add_param_group({**group, "params": its, "lr": self.vision_learning_rate})
            optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return optimizer


def train(
    model: torch.nn.Module,
    train_set: Examples,
    val_set: Examples,
    batches: Batches,
    args: TrainingArguments,
    resume: Path | None,
    vision_learning_rate: float | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> None:
    """Trains `model` in place up to `args.max_steps`.

    Args:
        model: with the weights of `resume`, if given.
        train_set: what is learned.
        val_set: what the validation loss is measured on.
        batches: their collator.
        args: from `arguments`.
        resume: a complete checkpoint, from whose optimizer, schedule, step and random state to go on.
        vision_learning_rate: of the vision tower; None: that of `args`, as all the rest.
        callbacks: further ones, of who measures.
    """
    trainer = _Trainer(
        model=model,
        args=args,
        data_collator=batches,
        train_dataset=train_set,
        eval_dataset=val_set,
        callbacks=[
            _Often(),
            _Mark(),
            _Epochs(train_set),
            _Progress(f"finetune {train_set.objective}"),
            *callbacks,
        ],
    )
    trainer.vision_learning_rate = vision_learning_rate
    trainer.remove_callback(PrinterCallback)
    # The Trainer writes its `use_cache` into the model's configuration; batches carry it instead.
    del model.config.use_cache
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
