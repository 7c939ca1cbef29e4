"""LLaVA with a linear head instead of words (paper Table 6, "Linear Head"): the same model and prompt.

Its one logit is read from the language model's last hidden state at the prompt's last token, where the text
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

from fakevlm.model.collate import ask
from fakevlm.model.llava import Precision, load_for_inference, load_processor


class LlavaForVerdict(LlavaForConditionalGeneration):
    """A LLaVA whose `score` gives the logit of "fake"; loads from any LLaVA's folder, with a new head."""

    # Its loss is a mean over the batch, which the Trainer has to know when it accumulates.
    accepts_loss_kwargs = False

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
        """Return logits (N,) of "fake" and, given labels (N,) with 1 for fake, the mean binary cross-entropy.

        Prompts are (N, T), padded on the left, pixels (N, 3, H, W).
        """
        padded = not bool(attention_mask.all())
        hidden = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            # Without padding no mask is needed, and attention is faster without one.
            attention_mask=attention_mask if padded else None,
            position_ids=(attention_mask.cumsum(-1) - 1).clamp(min=0) if padded else None,
            use_cache=False,
            last_positions=1,
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


class Head:
    """A trained linear-head model as a detector."""

    def __init__(self, model: LlavaForVerdict, processor: Any) -> None:
        self.model, self.processor = model, processor

    @torch.inference_mode()
    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return P(fake) of each image, (n,), in one batch; the standard question is asked."""
        return self.model(**ask(self.model, self.processor, images)).logits.double().sigmoid().cpu().numpy()


def load_head(folder: str | Path, precision: Precision = "fp32") -> Head:
    """Return the linear-head model that `finetune(objective="head")` exported; `UserError` without one."""
    return Head(load_for_inference(folder, precision, LlavaForVerdict), load_processor(folder))
