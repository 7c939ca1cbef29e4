"""Pretraining of the miniature's base.

First the vision tower on dense targets, then the whole LLaVA on descriptions.

Each phase leaves its result in `runs/base/` and is not repeated after a kill. The finished base is a Hugging
Face folder in 16-bit safetensors, as LLaVA-1.5 is published."""

import contextlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlavaForConditionalGeneration

from fakevlm import paths
from fakevlm.annotation.aggregate import NOTHING, VERDICT
from fakevlm.data.clues import KINDS, QUALITIES, SUBJECTS
from fakevlm.data.records import QUESTION
from fakevlm.errors import UserError
from fakevlm.model.build import build_llava, publish_names
from fakevlm.model.chat import conversation, prompt
from fakevlm.model.llava import load_processor
from fakevlm.progress import bar
from miniworld.pretraining import dense
from miniworld.pretraining.card import card
from miniworld.pretraining.gate import supervised
from miniworld.pretraining.pool import Norm, Pool, normalised, render
from miniworld.pretraining.recipe import Recipe, Round

GATE = 0.93  # accuracy that a copy of the tower, tuned on labels, must reach in the last round
WHITEN_IMAGES = 2000  # whose patches set the tower's first layer


def tokenizer_texts(pool: Pool) -> Iterator[str]:
    """Yield what the tokenizer is trained on: descriptions, and the words of answers about artifacts."""
    for question, answer in pool.texts[:4000]:
        yield question
        yield answer
    for entry in (*KINDS.values(), *QUALITIES.values()):
        for phrase in entry.phrases:
            for subject in SUBJECTS.values():
                yield phrase.format(s=subject)
    yield from [QUESTION] * 50
    yield from [text for text in (*VERDICT.values(), *NOTHING.values()) for _ in range(50)]


def schedule(step: int, steps: int, warmup: int = 150, floor: float = 0.03) -> float:
    """Return the factor on the learning rate: linear warm-up, then cosine to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def batches(count: int, batch: int, steps: int, seed: int) -> Iterator[np.ndarray]:
    """Yield rows in seeded order, every row once before any comes again."""
    rng = np.random.default_rng(seed)
    rows = np.empty(0, np.int64)
    for _ in range(steps):
        if len(rows) < batch:
            rows = np.concatenate([rows, rng.permutation(count)])
        yield rows[:batch]
        rows = rows[batch:]


def _optimise(loss: torch.Tensor, optimizer: torch.optim.Optimizer, weights: list[nn.Parameter]) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()


def train_dense(
    model: LlavaForConditionalGeneration, heads: dense.DenseHeads, pool: Pool, recipe: Recipe, steps: int,
    rate: float, norm: Norm, *, only_heads: bool = False,
) -> None:  # fmt: skip
    """Phase 1: train the tower on dense targets; or with `only_heads` just the heads."""
    tower = model.model.vision_tower
    tower.requires_grad_(not only_heads)
    weights = [*(() if only_heads else tower.parameters()), *heads.parameters()]
    optimizer = torch.optim.AdamW(weights, rate, betas=(0.9, 0.95), weight_decay=0.02, fused=True)
    rng = np.random.default_rng(recipe.seed + 1)
    recent: list[float] = []
    with bar(steps, "base, phase 1: dense targets", "step") as progress:
        for step, rows in enumerate(batches(len(pool.pixels), recipe.batch, steps, recipe.seed)):
            for group in optimizer.param_groups:
                group["lr"] = rate * schedule(step, steps)
            flip = rng.random(len(rows)) < 0.5
            x = normalised(pool.pixels[rows], norm, flip)
            loss = dense.loss(heads, tower(pixel_values=x).last_hidden_state[:, 1:], x, pool, rows, flip)
            _optimise(loss, optimizer, weights)
            recent = [*recent[-199:], loss.item()]
            progress.set_postfix_str(f"{np.mean(recent):.4f}", refresh=False)
            progress.update()
    tower.requires_grad_(True)


def caption_batch(processor, pool: Pool, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return token ids and labels (B, T) of questions and answers, and where the image starts."""
    tokenizer, image = processor.tokenizer, processor.image_token
    ids, labels = [], []
    slots = dense.GRID**2
    for row in rows:
        question, answer = pool.texts[row]
        start = prompt(processor, question)
        before = tokenizer(start.replace(image, image * slots), add_special_tokens=True)["input_ids"]
        whole = conversation(processor, question, answer).replace(image, image * slots)
        full = tokenizer(whole, add_special_tokens=True)["input_ids"]
        ids.append(full)
        labels.append([-100] * len(before) + full[len(before) :])
    longest = max(map(len, ids))
    pad = tokenizer.pad_token_id
    first = ids[0].index(processor.image_token_id)
    return (
        torch.tensor([row + [pad] * (longest - len(row)) for row in ids]),
        torch.tensor([row + [-100] * (longest - len(row)) for row in labels]),
        first,
    )


def train_captions(
    model: LlavaForConditionalGeneration, heads: dense.DenseHeads, processor, pool: Pool, recipe: Recipe,
    plan: Round, norm: Norm,
) -> None:  # fmt: skip
    """Phase 2: train the whole model on questions and answers, and the tower on the dense loss too."""
    inner = model.model
    tower, projector, language = inner.vision_tower, inner.multi_modal_projector, inner.language_model
    vision = [*tower.parameters(), *heads.parameters()]
    text = [*projector.parameters(), *language.parameters(), *model.lm_head.parameters()]
    groups = [{"params": vision, "peak": plan.tower_rate}, {"params": text, "peak": plan.caption_rate}]
    optimizer = torch.optim.AdamW(groups, plan.caption_rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    slots = dense.GRID**2
    recent: list[float] = []
    with bar(plan.caption_steps, "base, phase 2: descriptions", "step") as progress:
        order = batches(len(pool.pixels), recipe.batch, plan.caption_steps, recipe.seed + 2)
        for step, rows in enumerate(order):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * schedule(step, plan.caption_steps)
            still = np.zeros(len(rows), bool)  # descriptions say left and right: no mirroring here
            x = normalised(pool.pixels[rows], norm, still)
            features = tower(pixel_values=x).last_hidden_state[:, 1:]
            ids, labels, first = caption_batch(processor, pool, rows)
            words = language.get_input_embeddings()(ids)
            embeds = torch.cat([words[:, :first], projector(features), words[:, first + slots :]], 1)
            hidden = language(inputs_embeds=embeds).last_hidden_state[:, first + slots - 1 : -1]
            target = labels[:, first + slots :]
            keep = target != -100
            caption = nn.functional.cross_entropy(model.lm_head(hidden[keep]), target[keep])
            loss = caption + 0.5 * dense.loss(heads, features, x, pool, rows, still)
            _optimise(loss, optimizer, [*vision, *text])
            recent = [*recent[-99:], caption.item()]
            progress.set_postfix_str(f"{np.mean(recent):.4f}", refresh=False)
            progress.update()


def pretrain(out: Path, recipe: Recipe, threads: int = 2, start: Path | None = None) -> None:
    """Train the base and write it to `out` (16-bit safetensors, processor, model card).

    Args:
        out: the folder.
        recipe: all numbers.
        threads: of the renderer.
        start: a finished base, to continue with the last round alone; None: all rounds from random weights.
    """
    torch.manual_seed(recipe.seed)
    work = paths.runs("base")
    stamp = work / "recipe.json"
    wanted = {**asdict(recipe), "start": str(start) if start else None}
    if not stamp.exists() or json.loads(stamp.read_text()) != json.loads(json.dumps(wanted)):
        shutil.rmtree(work)
        work.mkdir()
        stamp.write_text(json.dumps(wanted))
    origin = work / "start"
    if start is not None and not origin.exists():
        shutil.copytree(start, origin)
    heads = dense.DenseHeads(dict(recipe.vision)["hidden_size"])
    model = both = processor = norm = None
    rendered, gates, minutes = 0, [], []
    for number, plan in enumerate(recipe.rounds):
        first_render, rendered = rendered, rendered + plan.images
        if start is not None and number < len(recipe.rounds) - 1:
            continue
        pool = render(first_render, plan.images, threads)
        fresh = model is None
        if fresh:
            if start is None:
                sizes = {
                    "vision": dict(recipe.vision),
                    "text": dict(recipe.text),
                    "vocab_size": recipe.vocab_size,
                }
                build_llava(
                    origin, tokenizer_texts(pool), image_size=96, patch_size=8, seed=recipe.seed, **sizes
                )
            processor = load_processor(origin)
            norm = (list(processor.image_processor.image_mean), list(processor.image_processor.image_std))
            model = LlavaForConditionalGeneration.from_pretrained(
                origin, dtype=torch.float32, attn_implementation="eager"
            )
            both = nn.ModuleDict({"model": model, "heads": heads})
        name = f"round {number + 1}"
        first, second = work / f"dense_{number}.safetensors", work / f"captions_{number}.safetensors"
        if not first.exists():
            with _timed(first.with_suffix(".json")):
                if fresh and start is None:
                    first_images = pool.pixels[:WHITEN_IMAGES]
                    still = np.zeros(len(first_images), bool)
                    dense.whiten_patches(model.model.vision_tower, normalised(first_images, norm, still))
                elif fresh:
                    train_dense(model, heads, pool, recipe, recipe.head_steps, 5e-3, norm, only_heads=True)
                train_dense(model, heads, pool, recipe, plan.dense_steps, plan.dense_rate, norm)
            _save(both, first)
        both.load_state_dict(load_file(first))
        least = GATE if plan is recipe.rounds[-1] else 0.0  # earlier rounds are only measured
        gates.append(_gate(model, norm, work / f"gate_dense_{number}.json", f"{name}, phase 1", least))
        if not second.exists():
            with _timed(second.with_suffix(".json")):
                train_captions(model, heads, processor, pool, recipe, plan, norm)
            _save(both, second)
        both.load_state_dict(load_file(second))
        gates.append(_gate(model, norm, work / f"gate_{number}.json", name, least))
        minutes += [json.loads(file.with_suffix(".json").read_text()) for file in (first, second)]
    model.half().save_pretrained(out)
    publish_names(out)
    processor.save_pretrained(out)
    text = card(recipe, gates, minutes, threads, continued=start is not None)
    (out / "README.md").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _timed(file: Path) -> Iterator[None]:
    """Store the minutes that the block takes, for the card."""
    started = time.monotonic()
    yield
    file.write_text(json.dumps((time.monotonic() - started) / 60))


def _gate(
    model: LlavaForConditionalGeneration, norm: Norm, file: Path, which: str, least: float
) -> tuple[float, float]:
    """Return accuracy and AUC of the gate, measured once and stored in `file`.

    Raises:
        UserError: the accuracy is below `least`.
    """
    if not file.exists():
        accuracy, auc = supervised(model.model.vision_tower, norm)
        file.write_text(json.dumps({"accuracy": accuracy, "auc": auc}))
    accuracy, auc = (json.loads(file.read_text())[key] for key in ("accuracy", "auc"))
    if accuracy < least:
        raise UserError(
            f"the tower of {which}, tuned on labels, tells fake from real in {accuracy:.3f} of renders; "
            f"{least} is asked for",
            "give it more steps or images (Recipe in src/miniworld/pretraining/recipe.py)",
        )
    return accuracy, auc


def _save(module: nn.Module, file: Path) -> None:
    part = file.with_suffix(".part")
    save_file({k: v.contiguous().clone() for k, v in module.state_dict().items()}, part)
    part.replace(file)
