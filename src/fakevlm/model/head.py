"""LLaVA with a linear head instead of words (paper Table 6, "Linear Head"): the same model, the same prompt,
one logit.

The logit is read from the language model's last hidden state at the prompt's last token, where the text
variant would begin to answer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration
from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from fakevlm import progress
from fakevlm.data.records import Record
from fakevlm.model.collate import Collator, Example
from fakevlm.model.llava import load_model, load_processor


class LlavaForVerdict(LlavaForConditionalGeneration):
    """A LLaVA whose `score` gives the logit of "fake". Loads from any LLaVA's folder; the head is new
    then."""

    accepts_loss_kwargs = (
        False  # its loss is a mean over the batch, which the Trainer has to know when it accumulates
    )

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.text_config.hidden_size, 1)
        self.post_init()

    def forward(  # type: ignore[override]
        self,
        input_ids: torch.Tensor,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Logits (N,) of "fake" and, given labels (N,) with 1 for fake, the mean binary cross-entropy.

        Args:
            input_ids: (N, T) prompts, padded on the left.
            pixel_values: (N, 3, H, W).
            attention_mask: (N, T), 0 on padding.
            labels: 1 fake, 0 real.
        """
        padded = not bool(attention_mask.all())
        hidden = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            # Without padding no mask is needed, and attention is faster without one.
            attention_mask=attention_mask if padded else None,
            position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0) if padded else None,
            use_cache=False,
        ).last_hidden_state
        logits = self.score(hidden[:, -1]).squeeze(-1).float()
        loss = None
        if labels is not None:
            loss = nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
        return SequenceClassifierOutput(loss=loss, logits=logits)


# LLaVA's files name its weights otherwise than its classes do. The library translates for its own classes;
# without this line it would not for this one, and leave weights random without a word.
register_checkpoint_conversion_mapping(
    LlavaForVerdict.__name__, get_checkpoint_conversion_mapping("llava"), overwrite=True
)


@torch.inference_mode()
def _p_fake(model: LlavaForVerdict, processor: Any, examples: Sequence[Example]) -> np.ndarray:
    batch = Collator(processor, for_generation=True)(examples)
    batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
    batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    return model(**batch).logits.double().sigmoid().cpu().numpy()


def predict_head(
    model: LlavaForVerdict, processor: Any, records: Sequence[Record], batch_size: int
) -> np.ndarray:
    """Return P(fake) of each record, (n,) in their order; each is asked its own question or the standard
    one."""
    parts = [np.zeros(0)]
    with progress.bar(len(records), "linear head") as bar:
        for start in range(0, len(records), batch_size):
            part = records[start : start + batch_size]
            parts.append(_p_fake(model, processor, [Example(r.pil(), r.question) for r in part]))
            bar.update(len(part))
    return np.concatenate(parts)


class Head:
    """A trained linear-head model as a detector."""

    def __init__(self, model: LlavaForVerdict, processor: Any) -> None:
        self.model, self.processor = model, processor

    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return P(fake) of each image, (n,), in one batch; the standard question is asked."""
        if not len(images):
            return np.zeros(0)
        return _p_fake(self.model, self.processor, [Example(image) for image in images])


def load_head(folder: str | Path, dtype: str = "float32") -> Head:
    """Return the linear-head model that `finetune(objective="head")` exported.

    Raises:
        UserError: there is none.
    """
    return Head(load_model(folder, dtype=dtype, kind=LlavaForVerdict), load_processor(folder))
