"""Ask a model about images: its words, its verdict and P(fake), all from one greedy pass.

P(fake) is read where the verdict word stands in the generated text (`model.verdict`). While generating, only the difference
of the fake and real words' logits is kept at every step, one number a row, so the full logits (vocabulary × steps × rows) are
never held. An answer without a claim has no such place; for these rows alone the opening "This is a" is scored in a second
pass of one step, and the row is marked `forced`.

The result does not depend on the batch size beyond the rounding of sums: prompts are padded on the left, padding is masked,
and positions are counted from each prompt's first token. Nor does it depend on being interrupted: batches are always cut in
the same way, and the journal holds whole batches by the hash of everything that made them.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from fakevlm import progress
from fakevlm.data.records import Record
from fakevlm.data.shards import columns_of, take
from fakevlm.model import chat, collate, verdict
from fakevlm.model.collate import Collator, Encoded, Example

OPENING = "This is a"  # of every answer that the model is trained on; what P(fake) falls back on
COLUMNS = ["id", "text", "p_fake", "verdict", "forced"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that are asked together; `number` counts the batches of one prediction."""

    number: int
    records: list[Record]
    questions: list[str]


Answer = Callable[
    [Iterator[Batch]], Iterator[tuple[int, pd.DataFrame]]
]  # batches → their numbers and answers, in any order


class _Gaps(LogitsProcessor):
    """Watches the logits go by and keeps, for each step, how much the fake words outweigh the real ones. Shape (batch,)."""

    def __init__(self, fake: list[int], real: list[int]) -> None:
        self.fake, self.real = fake, real
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.steps.append(_gap(scores, self.fake, self.real))
        return scores


def _gap(logits: torch.Tensor, fake: list[int], real: list[int]) -> torch.Tensor:
    logits = logits.float()
    return logits[:, fake].logsumexp(-1) - logits[:, real].logsumexp(-1)


def _inputs(model: Any, processor: Any, encoded: Sequence[Encoded]) -> dict[str, torch.Tensor]:
    batch = Collator(processor, for_generation=True).pad(encoded)
    batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    return {name: tensor.to(model.device) for name, tensor in batch.items()}


def _generate(
    model: Any,
    processor: Any,
    inputs: dict[str, torch.Tensor],
    words: tuple[list[int], list[int]],
    max_new_tokens: int,
) -> tuple[list[list[int]], list[list[float]]]:
    """Greedy tokens and gaps of each row, up to and without its end-of-sequence token."""
    tokenizer, gaps = processor.tokenizer, _Gaps(*words)
    ends = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None}
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(ends)
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends),
        pad_token_id=pad,
    )
    output = model.generate(
        **inputs, generation_config=settings, logits_processor=LogitsProcessorList([gaps])
    )
    tokens = output[:, inputs["input_ids"].shape[1] :].tolist()
    steps = torch.stack(gaps.steps, dim=1).tolist()
    lengths = [next((n for n, token in enumerate(row) if token in ends), len(row)) for row in tokens]
    return (
        [row[:n] for row, n in zip(tokens, lengths, strict=True)],
        [row[:n] for row, n in zip(steps, lengths, strict=True)],
    )


def _forced(
    model: Any,
    processor: Any,
    examples: list[Example],
    words: tuple[list[int], list[int]],
    prompt: chat.Prompt,
) -> list[float]:
    """The gap after "This is a" for rows that gave no verdict."""
    # As in training, so that the tokens are those of a real answer; then without the end-of-sequence token.
    opened = [Example(example.image, example.question, OPENING) for example in examples]
    encoded = [replace(e, ids=e.ids[:-1]) for e in Collator(processor, prompt=prompt).encode(opened)]
    inputs = _inputs(model, processor, encoded)
    # Positions count from the first token that is not padding, as `generate` does it.
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    logits = model(**inputs, position_ids=positions, logits_to_keep=1, use_cache=False).logits[:, -1]
    return _gap(logits, *words).tolist()


def _answer(
    model: Any,
    processor: Any,
    records: Sequence[Record],
    questions: list[str],
    words: tuple[list[int], list[int]],
    max_new_tokens: int,
    prompt: chat.Prompt,
) -> pd.DataFrame:
    examples = [Example(record.pil(), question) for record, question in zip(records, questions, strict=True)]
    collator = Collator(processor, for_generation=True, prompt=prompt)
    inputs = _inputs(model, processor, collator.encode(examples))
    tokens, gaps = _generate(model, processor, inputs, words, max_new_tokens)
    texts = [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    places = [verdict.locate(row, processor.tokenizer) for row in tokens]
    probabilities = [
        verdict.p_fake(row[place[1]], place[0].negated) if place else None
        for row, place in zip(gaps, places, strict=True)
    ]
    silent = [n for n, place in enumerate(places) if place is None]
    if silent:
        scored = _forced(model, processor, [examples[n] for n in silent], words, prompt)
        for n, gap in zip(silent, scored, strict=True):
            probabilities[n] = verdict.p_fake(gap)
    return pd.DataFrame(
        {
            "id": [record.id for record in records],
            "text": texts,
            "p_fake": probabilities,
            "verdict": [verdict.parse(t, q) for t, q in zip(texts, questions, strict=True)],
            "forced": [place is None for place in places],
        }
    )


def _batches(processor: Any, questions: list[str], batch_size: int, prompt: chat.Prompt) -> list[list[int]]:
    """Row numbers in batches of prompts of like length, the longest first: if memory runs out, it does so at once."""
    lengths = {
        question: len(processor.tokenizer.encode(chat.prompt(processor, question, prompt)))
        for question in dict.fromkeys(questions)
    }
    order = sorted(range(len(questions)), key=lambda n: (-lengths[questions[n]], n))
    return [order[n : n + batch_size] for n in range(0, len(order), batch_size)]


def _code() -> str:
    """Hash of the modules that turn an image into an answer: after a repair of one, an old journal no longer fits."""
    files = [Path(module.__file__) for module in (chat, collate, verdict)] + [Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _part(journal: Path, batch: Batch, settings: dict[str, Any]) -> Path:
    rows = [[r.id, r.sha256, asked] for r, asked in zip(batch.records, batch.questions, strict=True)]
    digest = hashlib.sha256(json.dumps([settings, rows]).encode()).hexdigest()
    return journal / f"part-{digest[:32]}.parquet"


def predict(
    model: Any,
    processor: Any,
    records: Sequence[Record],
    *,
    batch_size: int,
    max_new_tokens: int,
    question: str | None = None,
    prompt: chat.Prompt = "template",
    journal: Path | None = None,
    desc: str = "predict",
) -> pd.DataFrame:
    """Asks the model about every record, in this process.

    Args:
        model: a `LlavaForConditionalGeneration`.
        processor: its processor, with the chat template.
        records: n of them; each is asked its own `question` or the standard one.
        batch_size: images at a time.
        max_new_tokens: longest answer; longer ones are cut.
        question: asked of all records instead of their own.
        prompt: in which form they are asked: the processor's chat template, or the authors' bare one.
        journal: folder for finished batches; a second call with the same model, records and settings takes up there. It
            belongs to one model: name it after `batchwise.fingerprint`.
        desc: of the progress bar.

    Returns:
        n rows in the order of `records`; see `gather`.
    """
    words = verdict.word_ids(processor.tokenizer)
    model.eval()

    def answer(batches: Iterator[Batch]) -> Iterator[tuple[int, pd.DataFrame]]:
        for batch in batches:
            yield batch.number, answer_batch(model, processor, batch, words, max_new_tokens, prompt)

    settings = settings_of(processor, str(model.dtype), max_new_tokens, prompt)
    return gather(
        answer,
        processor,
        records,
        settings,
        batch_size=batch_size,
        question=question,
        prompt=prompt,
        journal=journal,
        desc=desc,
    )


def answer_batch(
    model: Any,
    processor: Any,
    batch: Batch,
    words: tuple[list[int], list[int]],
    max_new_tokens: int,
    prompt: chat.Prompt,
) -> pd.DataFrame:
    """The model's answers about one batch, in its order; `words` as `verdict.word_ids` gives them."""
    with torch.inference_mode():
        return _answer(model, processor, batch.records, batch.questions, words, max_new_tokens, prompt)


def settings_of(processor: Any, dtype: str, max_new_tokens: int, prompt: chat.Prompt) -> dict[str, Any]:
    """What, beside model, image and question, decides an answer: the journal's parts are named after it."""
    words = verdict.word_ids(processor.tokenizer)
    return {
        "max_new_tokens": max_new_tokens,
        "dtype": dtype,
        "words": words,
        "code": _code(),
        "prompt": prompt,
    }


def gather(
    answer: Answer,
    processor: Any,
    records: Sequence[Record],
    settings: dict[str, Any],
    *,
    batch_size: int,
    question: str | None = None,
    prompt: chat.Prompt = "template",
    journal: Path | None = None,
    desc: str = "predict",
) -> pd.DataFrame:
    """Cuts records into batches, has those answered that the journal does not hold, and puts the answers in order.

    How batches are cut depends on the records and `batch_size` alone: not on who answers, nor on what was done before.

    Args:
        answer: who answers; takes batches as it can work on them, and gives them back as they are done.
        processor: of the model, for its chat template.
        records: n of them.
        settings: see `settings_of`.
        batch_size, question, prompt, journal, desc: as in `predict`.

    Returns:
        n rows in the order of `records`: id, text, p_fake (0–1), verdict (fake, real, unparsed) and
        forced (p_fake comes from the forced opening, because the text gives no verdict).
    """
    questions = [question or own or chat.standard(prompt) for own in _questions(records)]
    plan = _batches(processor, questions, batch_size, prompt)
    if journal is not None:
        journal.mkdir(parents=True, exist_ok=True)
    texts, verdicts = np.full(len(records), None), np.full(len(records), None)
    p_fake, forced = np.full(len(records), np.nan), np.zeros(len(records), bool)
    parts: dict[
        int, tuple[Path | None, list[str]]
    ] = {}  # of what is being answered: where it is kept, its ids
    with progress.bar(len(records), desc) as bar:

        def done(number: int, frame: pd.DataFrame) -> None:
            rows = plan[number]
            texts[rows], p_fake[rows], forced[rows] = frame["text"], frame["p_fake"], frame["forced"]
            verdicts[rows] = [sys.intern(said) for said in frame["verdict"]]
            bar.update(len(rows))

        def todo() -> Iterator[Batch]:
            for number, rows in enumerate(plan):
                batch = Batch(number, list(take(records, rows)), [questions[n] for n in rows])
                part = _part(journal, batch, settings) if journal is not None else None
                if part is not None and part.exists():
                    done(number, pd.read_parquet(part))
                else:
                    parts[number] = part, [record.id for record in batch.records]
                    yield batch

        for number, frame in answer(todo()):
            part, asked = parts.pop(number)  # an answer that nobody waits for is a fault: KeyError
            if frame["id"].tolist() != asked:
                raise ValueError(f"batch {number}: the answers are not those of its records")
            if part is not None:  # whole or not at all, whenever the process dies
                frame.to_parquet(part.with_suffix(".tmp"), index=False)
                os.replace(part.with_suffix(".tmp"), part)
            done(number, frame)
    if missing := sum(said is None for said in verdicts):
        raise RuntimeError(f"{missing} of {len(records)} records were not answered")
    words = {"text": pa.array(texts, pa.string()), "verdict": pa.array(verdicts, pa.string())}
    found = {
        "id": columns_of(records, ["id"])["id"],
        "p_fake": p_fake,
        "forced": forced,
        **pa.table(words).to_pandas(),
    }
    return pd.DataFrame(found)[COLUMNS]


def _questions(records: Sequence[Record]) -> list[str | None]:
    """Each record's own question, None where it has none."""
    column = columns_of(records, ["question"])["question"]
    return column.astype(object).where(column.notna(), None).tolist()
