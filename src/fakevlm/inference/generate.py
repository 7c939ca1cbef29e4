"""A LLaVA as a predictor: its words, its verdict and P(fake), all from one greedy pass.

P(fake) is read where the verdict word stands in the generated text (`model.verdict`). For an answer without a
verdict it is read after the opening "This is a", and the row is marked `forced`. Prompts are padded on the
left and masked, so the batch size changes rounding alone.
"""

from collections.abc import Sequence
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers.cache_utils import Cache, DynamicLayer, StaticCache

from fakevlm.cache import code_version, model_version
from fakevlm.data.records import Record
from fakevlm.inference.predict import Columns, Predictor
from fakevlm.model import chat, verdict
from fakevlm.model.collate import Collator, Example, on_device
from fakevlm.model.llava import Precision, load_for_inference, load_processor
from fakevlm.model.weights import locate
from fakevlm.progress import say

OPENING = "This is a"  # of every answer that the model is trained on; what P(fake) falls back on
_MODEL = [f"fakevlm.model.{name}" for name in ("chat", "collate", "llava", "verdict")]
CODE = (*_MODEL, "fakevlm.data.records", __name__)


def predictor(
    name: str | Path,
    precision: Precision,
    *,
    batch_size: int,
    max_new_tokens: int,
    prompt: chat.Prompt = "template",
    compiled: bool = False,
    until_verdict: bool = False,
) -> Predictor:
    """Return the predictor of a LLaVA.

    Args:
        precision: see `llava.load_for_inference`.
        prompt: in which form questions are put: the processor's chat template, or the authors' bare one.
        compiled: whether steps are compiled, with a cache of fixed size; for GPUs.
        until_verdict: an answer ends where its verdict stands (`verdict.stands`).

    Raises:
        UserError: there is no such model.
    """
    options = max_new_tokens, prompt, compiled, until_verdict
    settings = [model_version(name), precision, options, code_version(*CODE)]
    place, processor = locate(name), cache(partial(load_processor, name))
    load = lambda: Llava(load_for_inference(place, precision), load_processor(place), *options)  # noqa: E731
    return Predictor(load, settings, batch_size, partial(by_length, processor, prompt))


def by_length(processor: Any, prompt: chat.Prompt, questions: list[str | None]) -> list[int]:
    """Return the rows by their prompts' length, the longest first: memory runs out at once or not at all."""
    lengths = {
        question: len(processor().tokenizer.encode(chat.prompt(processor(), question, prompt)))
        for question in dict.fromkeys(questions)
    }
    return sorted(range(len(questions)), key=lambda n: (-lengths[questions[n]], n))


class Llava:
    """A `LlavaForConditionalGeneration` that answers batches of records; see `predictor`."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        max_new_tokens: int,
        prompt: chat.Prompt = "template",
        compiled: bool = False,
        until_verdict: bool = False,
    ) -> None:
        self.model, self.processor, self.until_verdict = model.eval(), processor, until_verdict
        self.max_new_tokens, self.prompt = max_new_tokens, prompt
        self.words = verdict.word_ids(processor.tokenizer)
        # As in training, so that the tokens are a real answer's; without the end-of-sequence token.
        texts = chat.prompt(processor, None, prompt), chat.conversation(processor, None, OPENING, prompt)
        asked, opened = processor.tokenizer(list(texts)).input_ids
        self.opening = torch.tensor(opened[len(asked) : -1], device=model.device)
        # Of the tokens that end an answer by generation_config.json only special ones do, and no words.
        special = {n for n, token in processor.tokenizer.added_tokens_decoder.items() if token.special}
        ends = set(np.ravel(model.generation_config.eos_token_id or []).tolist())
        if words := processor.tokenizer.convert_ids_to_tokens(sorted(ends - special)):
            say(f"{model.name_or_path}: its generation settings end answers at {words}; that is not used")
        self.ends = {processor.tokenizer.eos_token_id, *ends & special}
        self.compiled, self._static = compiled, None
        self._step = torch.compile(model.forward, mode="reduce-overhead") if compiled else model

    def prepare(self, records: Sequence[Record]) -> tuple[list[Example], dict[str, torch.Tensor]]:
        """Decode and encode n records."""
        standard = chat.standard(self.prompt)
        collator = Collator(self.processor, for_generation=True, prompt=self.prompt)
        examples = [Example(collator.normalised(r.pil()), r.question or standard) for r in records]
        return examples, collator(examples)

    def __call__(self, prepared: tuple[list[Example], dict[str, torch.Tensor]]) -> Columns:
        """Return text, p_fake, verdict and forced of n rows."""
        examples, inputs = prepared
        tokens, differences, opened = self._answer(on_device(inputs, self.model))
        texts = [text.strip() for text in self.processor.batch_decode(tokens, skip_special_tokens=True)]
        places = [verdict.locate(row, self.processor.tokenizer) for row in tokens]
        p_fake = [
            verdict.p_fake(opened[n])
            if place is None
            else verdict.p_fake(differences[n][place[1]], place[0].negated)
            for n, place in enumerate(places)
        ]
        verdicts = [verdict.parse(text, e.question) for text, e in zip(texts, examples, strict=True)]
        return {
            "text": np.array(texts, object),
            "p_fake": np.array(p_fake),
            "verdict": np.array(verdicts, object),
            "forced": np.array([place is None for place in places]),
        }

    @torch.no_grad()
    def _answer(
        self, inputs: dict[str, torch.Tensor]
    ) -> tuple[list[list[int]], list[list[float]], list[float]]:
        """Answer n prompts.

        Returns:
            each row's greedy tokens up to its end, the logit difference at each, and that after the opening.
        """
        (count, length), opening = inputs["input_ids"].shape, len(self.opening)
        room = length + max(self.max_new_tokens, opening)
        cache = self._cache(count, room)
        # The opening is read with the prompt. It is what most answers begin with: those tokens are written.
        ids = torch.cat([inputs["input_ids"], self.opening.expand(count, -1)], 1)
        mask = F.pad(inputs["attention_mask"], (0, room - length), value=1)
        # Without padding no mask is needed, and attention is faster without one.
        masked = not mask.all()
        # Positions count from the first token that is not padding.
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        end = length + opening
        logits = self.model(
            input_ids=ids,
            pixel_values=inputs["pixel_values"],
            attention_mask=mask[:, :end] if masked else None,
            position_ids=positions[:, :end],
            past_key_values=cache,
            logits_to_keep=opening + 1,
            last_positions=opening + 1,
        ).logits
        chosen, scored = logits.argmax(-1), logit_difference(logits, *self.words)
        opened = scored[:, -1].tolist()
        agreed = int((chosen[:, :-1] == self.opening).all(0).cumprod(0).sum())
        for layer in cache.layers:
            layer.cumulative_length -= opening - agreed
        tokens, differences = chosen[:, : agreed + 1].tolist(), scored[:, : agreed + 1].tolist()
        rows, going, last = list(range(count)), range(count), chosen[:, agreed]
        for end in range(length + agreed + 1, length + self.max_new_tokens):
            going = [place for place in going if not self._ended(tokens[rows[place]])]
            if not going:
                break
            if not self.compiled and len(going) < len(rows):  # the last rows take the places of ended ones
                late = [place for place in going if place >= len(going)]
                order = [place if place in going else late.pop() for place in range(len(going))]
                rows = [rows[place] for place in order]
                kept = torch.tensor(order, device=last.device)
                last, mask, positions = last[kept], mask[kept], positions[kept]
                cache.batch_select_indices(kept)
                going = range(len(rows))
            logits = self._step(
                input_ids=last[:, None],
                attention_mask=None if not masked else mask if self.compiled else mask[:, :end],
                position_ids=positions[:, end - 1 : end].clone(),
                past_key_values=cache,
            ).logits[:, -1]
            last = logits.argmax(-1)
            new, scores = last.tolist(), logit_difference(logits, *self.words).tolist()
            for place in going:
                tokens[rows[place]].append(new[place])
                differences[rows[place]].append(scores[place])
        for row in tokens:
            row[:] = list(takewhile(lambda token: token not in self.ends, row))[: self.max_new_tokens]
        return tokens, differences, opened

    def _ended(self, tokens: list[int]) -> bool:
        if tokens[-1] in self.ends:
            return True
        decode = self.processor.tokenizer.decode
        return self.until_verdict and verdict.stands(decode(tokens, skip_special_tokens=True))

    def _cache(self, rows: int, room: int) -> Cache:
        """Return an empty cache of keys and values, one of fixed size for compiled steps."""
        config = self.model.config.get_text_config()
        if not self.compiled:
            return Cache([_Room(room) for _ in range(config.num_hidden_layers)])
        size = (rows, room)
        if self._static is None or size != self._size:
            self._static, self._size = StaticCache(config, max_cache_len=room), size
        self._static.reset()  # the same memory again, which the compiled step was recorded for
        return self._static


class _Room(DynamicLayer):
    """Keys and values with room for the whole answer; the library's own layer copies them at every step."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.cumulative_length = room, 0

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write new keys and values (n, heads, t, size) of the first n rows; return all of theirs."""
        new = key_states, value_states
        if not self.is_initialized:
            self.lazy_initialization(*new)
            self.whole = [states.new_empty(*states.shape[:2], self.room, states.shape[3]) for states in new]
        start = self.cumulative_length
        self.cumulative_length = start + key_states.shape[2]
        for whole, states in zip(self.whole, new, strict=True):
            whole[: len(states), :, start : self.cumulative_length] = states
        self.keys, self.values = (
            whole[: len(key_states), :, : self.cumulative_length] for whole in self.whole
        )
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.cumulative_length

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Put row `indices[n]` into place n; rows that stay are not copied."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero()[:, 0]
        for whole in self.whole:
            whole[moved] = whole[indices[moved]]


def logit_difference(logits: torch.Tensor, fake: list[int], real: list[int]) -> torch.Tensor:
    """Return log-sum-exp of the fake ids' logits minus that of the real ids': (…,) of (…, vocabulary)."""
    fake_logits, real_logits = logits[..., fake].float(), logits[..., real].float()
    return fake_logits.logsumexp(-1) - real_logits.logsumexp(-1)
