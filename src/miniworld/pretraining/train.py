"""Pretraining of the miniature's base: the vision tower on dense targets, then the whole LLaVA on captions.

Each phase's result is cached in `runs/base/` and not repeated after a kill. The finished base is a Hugging
Face folder in 16-bit safetensors, as LLaVA-1.5 is published.
"""

import io
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jinja2 import Environment, StrictUndefined
from PIL import Image
from pydantic import TypeAdapter
from torch import nn
from transformers import LlavaForConditionalGeneration

from fakevlm import paths
from fakevlm.annotation.aggregate import NOTHING, VERDICT
from fakevlm.cache import Cache, code_version, key, model_version
from fakevlm.data.clues import KINDS, QUALITIES, SUBJECTS
from fakevlm.data.records import QUESTION
from fakevlm.errors import UserError
from fakevlm.model.build import build_llava, publish_names
from fakevlm.model.collate import Collator, Example
from fakevlm.model.llava import load_processor
from fakevlm.progress import bar
from miniworld.pretraining.pool import GRID, Pool, render
from miniworld.pretraining.tower import DenseHeads, Norm, gate, normalised, whiten_patches

GATE = 0.93  # accuracy that a copy of the tower, tuned on labels, must reach in the last round
WHITEN_IMAGES = 2000  # whose patches set the tower's first layer
SLOTS = GRID**2  # tokens of an image


@dataclass(frozen=True)
class Round:
    """One pass through both phases: optimizer steps and peak learning rates (see recipe.yaml)."""

    images: int
    dense_steps: int
    dense_rate: float
    caption_steps: int
    caption_rate: float
    tower_rate: float


@dataclass(frozen=True)
class Recipe:
    """What a base is made with (see recipe.yaml)."""

    seed: int
    batch: int
    vocab_size: int
    vision: dict[str, int]
    text: dict[str, int]
    head_steps: int
    rounds: list[Round]


_FOLDER = Path(__file__).parent
RECIPE = TypeAdapter(Recipe).validate_python(yaml.safe_load((_FOLDER / "recipe.yaml").read_text("utf-8")))


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
    """Return the factor on the peak learning rate: linear warm-up, then cosine to `floor`."""
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
    """Trains a base with dense heads: the one to `start` from, or a new one with a tokenizer of the pool."""

    def __init__(self, recipe: Recipe, pool: Pool, start: Path | None) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.heads = recipe, DenseHeads(recipe.vision["hidden_size"])
        with tempfile.TemporaryDirectory() as folder:
            if start is None:
                sizes = {"vision": recipe.vision, "text": recipe.text, "vocab_size": recipe.vocab_size}
                sizes |= {"image_size": 96, "patch_size": 8}
                build_llava(Path(folder), tokenizer_texts(pool), **sizes, seed=recipe.seed)
            source, options = start or Path(folder), {"dtype": torch.float32, "attn_implementation": "eager"}
            self.processor = load_processor(source)
            self.model = LlavaForConditionalGeneration.from_pretrained(source, **options)
        self.tower, self.weights = self.model.model.vision_tower, nn.ModuleList([self.model, self.heads])
        images = self.processor.image_processor
        self.norm: Norm = (list(images.image_mean), list(images.image_std))
        if start is None:
            pixels = pool.pixels[:WHITEN_IMAGES]
            whiten_patches(self.tower, normalised(pixels, self.norm, np.zeros(len(pixels), bool)))

    def _minimise(
        self, loss: Callable[[np.ndarray], tuple[torch.Tensor, torch.Tensor]], groups: list[dict],
        pool: Pool, steps: int, decay: float, seed: int, title: str,
    ) -> None:  # fmt: skip
        """Take `steps` of AdamW; `loss` maps rows of the pool to what is minimised and what the bar shows."""
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
            total = self.heads.loss(self.tower(pixel_values=x).last_hidden_state[:, 1:], x, pool, rows, flip)
            return total, total

        groups = [{"params": weights, "peak": rate}]
        self._minimise(loss, groups, pool, steps, 0.02, self.recipe.seed, "phase 1: dense targets")
        self.tower.requires_grad_(True)

    def dense_phase(self, pool: Pool, plan: Round, *, heads_first: bool) -> None:
        """Phase 1 of a round; with `heads_first`, new heads of a finished tower learn alone before."""
        if heads_first:
            self.dense(pool, self.recipe.head_steps, 5e-3, only_heads=True)
        self.dense(pool, plan.dense_steps, plan.dense_rate)

    def captions(self, pool: Pool, plan: Round) -> None:
        """Phase 2: train the whole model on questions and answers, and the tower on the dense loss too."""
        inner, head = self.model.model, self.model.lm_head
        projector, language = inner.multi_modal_projector, inner.language_model
        collate, image = Collator(self.processor), self.processor.image_token_id

        def loss(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            still = np.zeros(len(rows), bool)  # descriptions say left and right: no mirroring here
            x = normalised(pool.pixels[rows], self.norm, still)
            features = self.tower(pixel_values=x).last_hidden_state[:, 1:]
            texts = collate([Example(Image.fromarray(pool.pixels[row]), *pool.texts[row]) for row in rows])
            ids, labels = texts["input_ids"], texts["labels"]
            first = ids[0].tolist().index(image)
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


def pretrain(out: Path, recipe: Recipe, threads: int = 2, start: Path | None = None) -> None:
    """Train the base and write it to the folder `out` (16-bit safetensors, processor, model card).

    A finished base to `start` from is trained by the last round alone. `threads` are the renderer's. Raises
    `UserError` if the tower fails the gate.
    """
    code, continued = code_version("miniworld", "fakevlm.model"), start is not None
    run = key(asdict(recipe), model_version(start) if start else None, code, threads)
    trainer, gates, minutes = None, [], []
    with Cache(paths.runs("base") / "cache.sqlite") as values:
        for number, plan in list(enumerate(recipe.rounds))[-1 if continued else 0 :]:
            pool = render(sum(earlier.images for earlier in recipe.rounds[:number]), plan.images, threads)
            trainer = trainer or Trainer(recipe, pool, start)
            dense = partial(trainer.dense_phase, pool, plan, heads_first=continued)
            for phase, train in enumerate((dense, partial(trainer.captions, pool, plan)), 1):
                name = f"round {number + 1}, phase {phase}"
                state = _once(values, key(run, name), partial(_timed, trainer, train))
                trainer.weights.load_state_dict(state["weights"])
                minutes.append(state["minutes"])
                measure = partial(gate, trainer.tower, trainer.norm)
                accuracy, auc = _once(values, key(run, name, "gate"), measure)
                if plan is recipe.rounds[-1] and accuracy < GATE:
                    what = f"the tower of {name}, tuned, tells fake from real in {accuracy:.3f} of renders"
                    cure = "give it more steps or images (src/miniworld/pretraining/recipe.yaml)"
                    raise UserError(f"{what}; {GATE} is asked for", cure)
                gates.append((accuracy, auc))
    trainer.model.half().save_pretrained(out)
    publish_names(out)
    trainer.processor.save_pretrained(out)
    jinja = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    jinja.filters["thousands"] = "{:,}".format
    card = jinja.from_string((_FOLDER / "card.md").read_text("utf-8"))
    facts = {"recipe": recipe, "gates": gates, "minutes": minutes, "threads": threads, "continued": continued}
    (out / "README.md").write_text(card.render(**facts), encoding="utf-8")


def _timed(trainer: Trainer, train: Callable[[], None]) -> dict[str, Any]:
    """Return all weights after a phase, and the minutes that it took."""
    started = time.monotonic()
    train()
    return {"weights": trainer.weights.state_dict(), "minutes": (time.monotonic() - started) / 60}


def _once(values: Cache, run: str, compute: Callable[[], Any]) -> Any:
    """Return the tensors and numbers that `compute` returns, from the cache if they are in it."""
    stored = values.get(run)
    if stored is None:
        buffer = io.BytesIO()
        torch.save(compute(), buffer)
        stored = buffer.getvalue()
        values.put(run, stored)
    return torch.load(io.BytesIO(stored), weights_only=True)
