"""A few answers of a tuned model beside the references, for notebook 05_finetune."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fakevlm.data.records import FAKE, Record
from fakevlm.data.shards import columns_of, take
from fakevlm.reporting.texts import LABELS


def some(records: Sequence[Record], n: int) -> list[Record]:
    """Return about `n` records, fake and real by turns, spread evenly over the data."""
    fake = columns_of(records, ["label"])["label"].to_numpy() == FAKE
    kinds = [np.flatnonzero(fake), np.flatnonzero(~fake)]
    wanted = min((n + 1) // 2, *map(len, kinds))
    spread = [kind[np.arange(wanted) * len(kind) // wanted] for kind in kinds]
    return list(take(records, np.column_stack(spread).ravel()[:n]))


def samples(folder: Path, objective: str, records: Sequence[Record], precision: str) -> pd.DataFrame:
    """Return id, label, reference and the answer of the model in `folder` (a linear head: P(fake))."""
    import torch  # pictures and tables load no torch

    from fakevlm.model.collate import Collator, Example, on_device
    from fakevlm.model.head import load_head
    from fakevlm.model.llava import DTYPES, load_model, load_processor

    if objective == "head":
        probabilities = load_head(folder, DTYPES[precision]).predict([record.pil() for record in records])
        answers = [f"P(fake) = {p:.2f}" for p in probabilities]
    else:
        model, processor = load_model(folder, dtype=DTYPES[precision]), load_processor(folder)
        examples = [Example(r.pil(), r.question) for r in records]
        batch = on_device(Collator(processor, for_generation=True)(examples), model)
        with torch.inference_mode():
            end = processor.tokenizer.eos_token_id
            tokens = model.generate(**batch, max_new_tokens=96, do_sample=False, eos_token_id=end)
        tokens = tokens[:, batch["input_ids"].shape[1] :]
        answers = [text.strip() for text in processor.batch_decode(tokens, skip_special_tokens=True)]
    frame = columns_of(records, ["id", "label"]).assign(answer=answers)
    references = ["".join(record.references[:1]) for record in records]
    return frame.assign(label=frame.label.map(LABELS), reference=references)
