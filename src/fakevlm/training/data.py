"""Records as training examples: encoded once and kept in memory if they fit, else decoded when needed."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fakevlm import progress
from fakevlm.data.records import FAKE, Record
from fakevlm.data.shards import IN_MEMORY, take, without_images
from fakevlm.errors import UserError
from fakevlm.model.collate import Collator, Encoded, Example
from fakevlm.training import ranks

OBJECTIVES = ("explanation", "label", "head")
Item = tuple[Encoded, float]  # the float is 1 for fake, 0 for real: what the linear head learns


def random_subset(records: Sequence[Record], limit: int, seed: int) -> Sequence[Record]:
    """Return at most `limit` records, drawn at random, in their old order."""
    if len(records) <= limit:
        return records
    drawn = np.random.default_rng(seed).permutation(len(records))[:limit]
    return take(records, np.sort(drawn))


def answer(record: Record, objective: str) -> str | None:
    """Return the target text: the reference explanation, the bare label, or None (linear head).

    Raises:
        UserError: a record has no explanation.
    """
    if objective == "head":
        return None
    if objective == "label":
        return "Fake" if record.label == FAKE else "Real"
    if not record.references:
        raise UserError(
            f"record {record.id} has no reference answer", "train on annotated records: `dvc repro annotate`"
        )
    return record.references[0]


class Examples(torch.utils.data.Dataset):
    """Records as items for one objective.

    Args:
        collator: encodes; for the objective `head` one for generation (prompts only).
        objective: of `OBJECTIVES`.
        in_memory: bytes up to which all items are kept encoded (pixels as uint8 at the model's size).
        mirror: seed for flipping images left to right, each with chance one half and anew each `epoch`; None:
            no flips. No question or answer names sides, so the text stays true.
    """

    def __init__(
        self,
        records: Sequence[Record],
        collator: Collator,
        objective: str,
        in_memory: int = IN_MEMORY,
        desc: str = "encode",
        mirror: int | None = None,
    ) -> None:
        if not len(records):
            raise UserError("there are no records to train on", "check artifacts/annotate/fakeclue")
        self.records, self.collator, self.objective = records, collator, objective
        self.mirror = mirror
        # Characters of each answer, in lieu of its tokens.
        self.lengths = [len(answer(record, objective) or "") for record in without_images(records)]
        self.epoch = 0  # which pass over the records this is; the training loop sets it before each
        self.items: list[Item] | None = None
        if self._encode([records[0]])[0][0].pixels.numel() * len(records) <= in_memory:
            self.items = []
            with progress.bar(len(records), desc, shown=ranks.rank() == 0) as bar:
                for start in range(0, len(records), 64):
                    part = records[start : start + 64]
                    self.items += self._encode(part)
                    bar.update(len(part))

    def _encode(self, records: Sequence[Record]) -> list[Item]:
        examples = [Example(r.pil(), r.question, answer(r, self.objective)) for r in records]
        targets = [float(record.label == FAKE) for record in records]
        return list(zip(self.collator.encode(examples), targets, strict=True))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, at: int) -> Item:
        encoded, target = self._encode([self.records[at]])[0] if self.items is None else self.items[at]
        # Drawn from seed, epoch and record, so a resumed training draws the same.
        if self.mirror is not None and np.random.default_rng((self.mirror, self.epoch, at)).random() < 0.5:
            encoded = replace(encoded, pixels=encoded.pixels.flip(-1))
        return encoded, target

    def collate(self, items: Sequence[Item]) -> dict[str, Any]:
        """Return items as the model's arguments: the `collate_fn` of a `torch.utils.data.DataLoader`.

        Text is padded on the right and attention is causal, so no attention mask is needed (fast kernels take
        none). The last layer and the logits are computed only from the last prompt token on.
        """
        encoded = [encoded for encoded, _ in items]
        batch: dict[str, Any] = self.collator.pad(encoded)
        if self.objective == "head":
            return {**batch, "labels": torch.tensor([target for _, target in items])}
        keep = batch["input_ids"].shape[1] - min(e.prompt for e in encoded) + 1
        del batch["attention_mask"]
        read = {"labels": batch["labels"][:, -keep:], "logits_to_keep": keep, "last_positions": keep}
        return batch | read | {"use_cache": False}
