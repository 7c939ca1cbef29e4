"""Pretraining of the miniature's base: the vision tower on dense targets, then the whole LLaVA on captions.

Each phase's result is cached in `runs/base/` and not repeated after a kill. The finished base is a Hugging
Face folder in 16-bit safetensors, as LLaVA-1.5 is published.
"""

import io
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from fakevlm import paths
from fakevlm.annotation.aggregate import NOTHING, VERDICT
from fakevlm.cache import Cache, code_version, key, model_version
from fakevlm.data.clues import KINDS, QUALITIES, SUBJECTS
from fakevlm.data.records import QUESTION
from fakevlm.errors import UserError
from fakevlm.model.build import build_llava, publish_names
from fakevlm.model.chat import conversation, prompt
from fakevlm.model.llava import load_processor
from fakevlm.progress import bar
from miniworld.pretraining.pool import GRID, Pool, render
from miniworld.pretraining.tower import DenseHeads, Norm, gate, normalised, whiten_patches

GATE = 0.93  # accuracy that a copy of the tower, tuned on labels, must reach in the last round
WHITEN_IMAGES = 2000  # whose patches set the tower's first layer
SLOTS = GRID**2  # tokens of an image


@dataclass(frozen=True)
class Round:
    """One pass through both phases, on renders of its own.

    Attributes:
        images: renders in the pool; in phase 1 every pass sees them mirrored at random.
        dense_steps, caption_steps: optimizer steps of the two phases, `Recipe.batch` images each.
        dense_rate, caption_rate, tower_rate: peak learning rates; the tower's in the second phase is its own.
    """

    images: int
    dense_steps: int
    caption_steps: int
    dense_rate: float = 2e-3
    caption_rate: float = 1.5e-3
    tower_rate: float = 6e-4


@dataclass(frozen=True)
class Recipe:
    """What the shipped base was made with.

    `make base` runs all rounds in today's world. The shipped base had its first round before the artifacts
    were made larger, and the second with `--start` (see its card).

    Attributes:
        rounds: one after the other, each on renders of its own.
        head_steps: if a round starts from a finished base, steps in which its new dense heads learn alone, so
            that their first, random errors do not reach the tower.
    """

    seed: int = 991
    batch: int = 64
    rounds: tuple[Round, ...] = (
        Round(images=80_000, dense_steps=3_600, caption_steps=1_300),
        Round(images=60_000, dense_steps=1_800, caption_steps=700, dense_rate=1.2e-3, caption_rate=1.2e-3),
    )
    head_steps: int = 150
    vision: tuple[tuple[str, int], ...] = (("hidden_size", 128), ("layers", 5), ("heads", 4), ("mlp", 512))
    text: tuple[tuple[str, int], ...] = (("hidden_size", 128), ("layers", 3), ("heads", 4), ("mlp", 352))
    vocab_size: int = 1_200


def tokenizer_texts(pool: Pool) -> Iterator[str]:
    """Yield what the tokenizer is trained on: descriptions, and the words of answers about artifacts."""
    for pair in pool.texts[:4000]:
        yield from pair
    for entry in (*KINDS.values(), *QUALITIES.values()):
        for phrase in entry.phrases:
            for subject in SUBJECTS.values():
                yield phrase.format(s=subject)
    for text in (QUESTION, *VERDICT.values(), *NOTHING.values()):
        yield from [text] * 50


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


class Trainer:
    """Trains the base and its dense heads on one pool of renders."""

    def __init__(
        self,
        model: LlavaForConditionalGeneration,
        processor: LlavaProcessor,
        heads: DenseHeads,
        recipe: Recipe,
    ) -> None:
        self.model, self.processor, self.heads, self.recipe = model, processor, heads, recipe
        self.tower = model.model.vision_tower
        images = processor.image_processor
        self.norm: Norm = (list(images.image_mean), list(images.image_std))

    def _minimise(
        self, loss: Callable[[np.ndarray], tuple[torch.Tensor, torch.Tensor]], groups: list[dict],
        pool: Pool, steps: int, decay: float, seed: int, title: str,
    ) -> None:  # fmt: skip
        """Take `steps` of AdamW.

        Args:
            loss: rows of the pool → (what to minimise, what the progress bar shows).
            groups: of parameters, each with its `peak` learning rate.
        """
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=decay, fused=True)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        recent: list[float] = []
        with bar(steps, f"base, {title}", "step") as progress:
            for step, rows in enumerate(batches(len(pool.pixels), self.recipe.batch, steps, seed)):
                for group in optimizer.param_groups:
                    group["lr"] = group["peak"] * schedule(step, steps)
                total, shown = loss(rows)
                optimizer.zero_grad()
                total.backward()
                nn.utils.clip_grad_norm_(weights, 1.0)
                optimizer.step()
                recent = [*recent[-99:], shown.item()]
                progress.set_postfix_str(f"{np.mean(recent):.4f}", refresh=False)
                progress.update()

    def dense(self, pool: Pool, steps: int, rate: float, *, only_heads: bool = False) -> None:
        """Phase 1: train the tower on dense targets; or with `only_heads` just the heads."""
        self.tower.requires_grad_(not only_heads)
        weights = [*(() if only_heads else self.tower.parameters()), *self.heads.parameters()]
        rng = np.random.default_rng(self.recipe.seed + 1)

        def loss(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            flip = rng.random(len(rows)) < 0.5
            x = normalised(pool.pixels[rows], self.norm, flip)
            features = self.tower(pixel_values=x).last_hidden_state[:, 1:]
            total = self.heads.loss(features, x, pool, rows, flip)
            return total, total

        groups = [{"params": weights, "peak": rate}]
        self._minimise(loss, groups, pool, steps, 0.02, self.recipe.seed, "phase 1: dense targets")
        self.tower.requires_grad_(True)

    def dense_phase(self, pool: Pool, plan: Round, *, prepare: bool, continued: bool) -> None:
        """Phase 1 of a round; `prepare` sets the first layer of a new tower, or trains new heads alone."""
        if prepare and continued:
            self.dense(pool, self.recipe.head_steps, 5e-3, only_heads=True)
        elif prepare:
            pixels = pool.pixels[:WHITEN_IMAGES]
            whiten_patches(self.tower, normalised(pixels, self.norm, np.zeros(len(pixels), bool)))
        self.dense(pool, plan.dense_steps, plan.dense_rate)

    def captions(self, pool: Pool, plan: Round) -> None:
        """Phase 2: train the whole model on questions and answers, and the tower on the dense loss too."""
        inner, head = self.model.model, self.model.lm_head
        projector, language = inner.multi_modal_projector, inner.language_model

        def loss(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            still = np.zeros(len(rows), bool)  # descriptions say left and right: no mirroring here
            x = normalised(pool.pixels[rows], self.norm, still)
            features = self.tower(pixel_values=x).last_hidden_state[:, 1:]
            ids, labels, first = self.caption_batch([pool.texts[row] for row in rows])
            words = language.get_input_embeddings()(ids)
            embeds = torch.cat([words[:, :first], projector(features), words[:, first + SLOTS :]], 1)
            hidden = language(inputs_embeds=embeds).last_hidden_state[:, first + SLOTS - 1 : -1]
            target = labels[:, first + SLOTS :]
            answer = target != -100
            caption = nn.functional.cross_entropy(head(hidden[answer]), target[answer])
            return caption + 0.5 * self.heads.loss(features, x, pool, rows, still), caption

        vision = [*self.tower.parameters(), *self.heads.parameters()]
        text = [*projector.parameters(), *language.parameters(), *head.parameters()]
        groups = [{"params": vision, "peak": plan.tower_rate}, {"params": text, "peak": plan.caption_rate}]
        seed = self.recipe.seed + 2
        self._minimise(loss, groups, pool, plan.caption_steps, 0.01, seed, "phase 2: descriptions")

    def caption_batch(self, texts: list[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Return token ids and labels (B, T) of questions and answers, and where the image starts."""

        def tokens(text: str) -> torch.Tensor:
            text = text.replace(self.processor.image_token, self.processor.image_token * SLOTS)
            encoded = self.processor.tokenizer(text, add_special_tokens=True, return_tensors="pt")
            return encoded["input_ids"][0]

        ids = [tokens(conversation(self.processor, *pair)) for pair in texts]
        labels = [row.clone() for row in ids]
        for row, (question, _) in zip(labels, texts, strict=True):
            row[: len(tokens(prompt(self.processor, question)))] = -100
        pad, first = nn.utils.rnn.pad_sequence, ids[0].tolist().index(self.processor.image_token_id)
        return pad(ids, True, self.processor.tokenizer.pad_token_id), pad(labels, True, -100), first


def pretrain(out: Path, recipe: Recipe, threads: int = 2, start: Path | None = None) -> None:
    """Train the base and write it to `out` (16-bit safetensors, processor, model card).

    Args:
        out: the folder.
        recipe: all numbers.
        threads: of the renderer.
        start: a finished base, to continue with the last round alone; None: all rounds from random weights.

    Raises:
        UserError: the tower fails the gate.
    """
    torch.manual_seed(recipe.seed)
    heads = DenseHeads(dict(recipe.vision)["hidden_size"])
    code = code_version("miniworld", "fakevlm.model")
    run = key(asdict(recipe), model_version(start) if start else None, code, threads)
    rounds = list(enumerate(recipe.rounds))[0 if start is None else -1 :]
    trainer, gates, minutes = None, [], []
    with Cache(paths.runs("base") / "cache.sqlite") as values:
        for number, plan in rounds:
            pool = render(sum(earlier.images for earlier in recipe.rounds[:number]), plan.images, threads)
            prepare = trainer is None
            if trainer is None:
                trainer = Trainer(*_load(recipe, pool, start), heads, recipe)
            dense = partial(trainer.dense_phase, pool, plan, prepare=prepare, continued=start is not None)
            least = GATE if plan is recipe.rounds[-1] else 0.0  # earlier rounds are only measured
            for phase, train in enumerate((dense, partial(trainer.captions, pool, plan)), 1):
                name = f"round {number + 1}, phase {phase}"
                minutes.append(_phase(trainer, train, values, key(run, name)))
                gates.append(_gate(trainer, values, key(run, name, "gate"), name, least))
    trainer.model.half().save_pretrained(out)
    publish_names(out)
    trainer.processor.save_pretrained(out)
    card = _card(recipe, gates, minutes, threads, continued=start is not None)
    (out / "README.md").write_text(card, encoding="utf-8")


def _load(
    recipe: Recipe, pool: Pool, start: Path | None
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Return model and processor: those of `start`, or a model of random weights with a new tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        if start is None:
            start, options = Path(folder), {"vision": dict(recipe.vision), "text": dict(recipe.text)}
            options |= {"vocab_size": recipe.vocab_size, "seed": recipe.seed}
            build_llava(start, tokenizer_texts(pool), image_size=96, patch_size=8, **options)
        processor = load_processor(start)
        options = {"dtype": torch.float32, "attn_implementation": "eager"}
        model = LlavaForConditionalGeneration.from_pretrained(start, **options)
    return model, processor


def _phase(trainer: Trainer, train: Callable[[], None], values: Cache, run: str) -> float:
    """Train a phase, or load what is cached of it; return the minutes that it took."""
    weights = nn.ModuleList([trainer.model, trainer.heads])
    if stored := values.get(run):
        state = torch.load(io.BytesIO(stored), weights_only=True)
        weights.load_state_dict(state["weights"])
        return state["minutes"]
    started = time.monotonic()
    train()
    minutes, buffer = (time.monotonic() - started) / 60, io.BytesIO()
    torch.save({"weights": weights.state_dict(), "minutes": minutes}, buffer)
    values.put(run, buffer.getvalue())
    return minutes


def _gate(trainer: Trainer, values: Cache, run: str, name: str, least: float) -> tuple[float, float]:
    """Return accuracy and AUC of the gate, measured once.

    Raises:
        UserError: the accuracy is below `least`.
    """
    if not values.get(run):
        values.put(run, json.dumps(gate(trainer.tower, trainer.norm)).encode())
    accuracy, auc = json.loads(values.get(run))
    if accuracy < least:
        raise UserError(
            f"the tower of {name}, tuned on labels, tells fake from real in {accuracy:.3f} of renders; "
            f"{least} is asked for",
            "give it more steps or images (Recipe in src/miniworld/pretraining/train.py)",
        )
    return accuracy, auc


def _card(
    recipe: Recipe, gates: list[tuple[float, float]], minutes: list[float], threads: int, *, continued: bool
) -> str:
    """Return the model card, from the templates card.md and card_continued.md."""
    names = ("card.md", "card_continued.md")
    template, earlier = (Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names)
    steps = [(plan.dense_steps, plan.caption_steps) for plan in recipe.rounds]
    dense, captions = (" + ".join(f"{count:,}" for count in phase) for phase in zip(*steps, strict=True))
    values = {"recipe": recipe, "vision": dict(recipe.vision), "text": dict(recipe.text), "gates": gates[-2:]}
    values |= {"images": sum(plan.images for plan in recipe.rounds), "rounds": len(recipe.rounds)}
    values |= {"passes": recipe.batch * sum(map(sum, steps)), "dense": dense, "captions": captions}
    values |= {"took": ", ".join(f"{m:.0f}" for m in minutes), "threads": threads}
    return template.format(continued=earlier if continued else "", **values)
