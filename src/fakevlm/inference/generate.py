"""A LLaVA as a predictor: its words, its verdict and P(fake), all from one greedy pass.

P(fake) is read where the verdict word stands in the generated text (`model.verdict`). For an answer without a
verdict, the opening "This is a" is scored in a second pass of one step, and the row is marked `forced`.
Prompts are padded on the left and masked, so the batch size changes rounding alone.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessorList

from fakevlm.cache import code_version, model_version
from fakevlm.data.records import Record
from fakevlm.inference.predict import Columns, Predictor
from fakevlm.model import chat, verdict
from fakevlm.model.collate import Collator, Encoded, Example, on_device
from fakevlm.model.llava import load_model, load_processor, locate

OPENING = "This is a"  # of every answer that the model is trained on; what P(fake) falls back on
_MODEL = [f"fakevlm.model.{name}" for name in ("chat", "collate", "verdict")]
CODE = (*_MODEL, "fakevlm.data.records", __name__)


def predictor(
    name: str | Path, dtype: str, *, batch_size: int, max_new_tokens: int, prompt: chat.Prompt = "template"
) -> Predictor:
    """Return the predictor of a LLaVA.

    Args:
        name: a model's folder or its name on the hub.
        dtype: torch's name of the weights' type.
        max_new_tokens: longest answer; longer ones are cut.
        prompt: in which form questions are put: the processor's chat template, or the authors' bare one.

    Raises:
        UserError: there is no such model.
    """
    settings = [model_version(name), dtype, max_new_tokens, prompt, code_version(*CODE)]
    load = partial(load_llava, locate(name), dtype, max_new_tokens, prompt)
    return Predictor(load, settings, batch_size, partial(plan, cache(partial(load_processor, name)), prompt))


def load_llava(name: str, dtype: str, max_new_tokens: int, prompt: chat.Prompt) -> "Llava":
    """Load a model; see `predictor`."""
    return Llava(load_model(name, dtype=dtype), load_processor(name), max_new_tokens, prompt)


def plan(
    processor: Any, prompt: chat.Prompt, questions: list[str | None], batch_size: int
) -> list[list[int]]:
    """Cut rows into batches of prompts of like length, the longest first: memory runs out at once or not."""
    if not questions:
        return []
    lengths = {
        question: len(processor().tokenizer.encode(chat.prompt(processor(), question, prompt)))
        for question in dict.fromkeys(questions)
    }
    order = sorted(range(len(questions)), key=lambda n: (-lengths[questions[n]], n))
    return [order[n : n + batch_size] for n in range(0, len(order), batch_size)]


class Llava:
    """A `LlavaForConditionalGeneration` that answers batches of records; see `predictor`."""

    def __init__(
        self, model: Any, processor: Any, max_new_tokens: int, prompt: chat.Prompt = "template"
    ) -> None:
        self.model, self.processor = model.eval(), processor
        self.max_new_tokens, self.prompt = max_new_tokens, prompt
        self.words = verdict.word_ids(processor.tokenizer)

    def prepare(self, records: Sequence[Record]) -> tuple[list[Example], dict[str, torch.Tensor]]:
        """Decode and encode n records."""
        standard = chat.standard(self.prompt)
        examples = [Example(record.pil(), record.question or standard) for record in records]
        collator = Collator(self.processor, for_generation=True, prompt=self.prompt)
        return examples, collator(examples)

    @torch.inference_mode()
    def __call__(self, prepared: tuple[list[Example], dict[str, torch.Tensor]]) -> Columns:
        """Return text, p_fake, verdict and forced of n rows."""
        examples, inputs = prepared
        tokens, differences = self._generate(on_device(inputs, self.model))
        texts = [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
        places = [verdict.locate(row, self.processor.tokenizer) for row in tokens]
        forced = np.array([place is None for place in places])
        p_fake = np.empty(len(places))
        for n in np.flatnonzero(~forced):
            claim, step = places[n]
            p_fake[n] = verdict.p_fake(differences[n][step], claim.negated)
        if forced.any():
            scored = self.forced_choice([examples[n] for n in np.flatnonzero(forced)])
            p_fake[forced] = [verdict.p_fake(difference) for difference in scored]
        verdicts = [verdict.parse(text, e.question) for text, e in zip(texts, examples, strict=True)]
        return {
            "text": np.array(texts, object),
            "p_fake": p_fake,
            "verdict": np.array(verdicts, object),
            "forced": forced,
        }

    def _generate(self, inputs: dict[str, torch.Tensor]) -> tuple[list[list[int]], list[list[float]]]:
        """Return each row's greedy tokens and logit differences, without its end-of-sequence token."""
        tokenizer, differences = self.processor.tokenizer, []

        def note(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            differences.append(logit_difference(scores, *self.words))
            return scores

        ends = self.model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends)
        settings = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=sorted(ends),
            pad_token_id=pad,
        )
        output = self.model.generate(
            **inputs, generation_config=settings, logits_processor=LogitsProcessorList([note])
        )
        tokens = output[:, inputs["input_ids"].shape[1] :].tolist()
        steps = torch.stack(differences, dim=1).tolist()
        lengths = [next((n for n, token in enumerate(row) if token in ends), len(row)) for row in tokens]
        return (
            [row[:n] for row, n in zip(tokens, lengths, strict=True)],
            [row[:n] for row, n in zip(steps, lengths, strict=True)],
        )

    @torch.inference_mode()
    def forced_choice(self, examples: Sequence[Example]) -> list[float]:
        """Return the logit difference after "This is a" of each example."""
        # As in training, so that the tokens are a real answer's; then without the end-of-sequence token.
        opened = [Example(example.image, example.question, OPENING) for example in examples]
        encoded: list[Encoded] = Collator(self.processor, prompt=self.prompt).encode(opened)
        encoded = [replace(e, ids=e.ids[:-1]) for e in encoded]
        inputs = on_device(Collator(self.processor, for_generation=True).pad(encoded), self.model)
        # Positions count from the first token that is not padding, as `generate` does it.
        positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        logits = self.model(**inputs, position_ids=positions, logits_to_keep=1, use_cache=False).logits[:, -1]
        return logit_difference(logits, *self.words).tolist()


def logit_difference(logits: torch.Tensor, fake: list[int], real: list[int]) -> torch.Tensor:
    """Return log-sum-exp of the fake ids' logits minus that of the real ids': (n,) of (n, vocabulary)."""
    logits = logits.float()
    return logits[:, fake].logsumexp(-1) - logits[:, real].logsumexp(-1)
