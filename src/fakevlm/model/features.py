"""What a frozen LLaVA makes of images, asked the standard question: the features that probes read (paper section 4.1)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fakevlm.model.collate import Collator, Example
from fakevlm.model.llava import load_model, load_processor


class Features:
    """A LLaVA that is looked into.

    Args:
        model: a `LlavaForConditionalGeneration`, in evaluation mode.
        processor: its processor.
    """

    def __init__(self, model: torch.nn.Module, processor: Any) -> None:
        self.model, self.collator = model, Collator(processor, for_generation=True)

    @torch.inference_mode()
    def __call__(self, images: list[Image.Image]) -> dict[str, np.ndarray]:
        """Features of n images.

        Returns:
            float32 arrays: `vision` (n, d_vision), the patches that the projector reads, averaged; `last` (n, d_text), the
            language model's last hidden state at the prompt's last token; `mean` (n, d_text), that state averaged over the
            prompt.
        """
        model, inner = self.model, self.model.model
        batch = {k: v.to(model.device) for k, v in self.collator([Example(i) for i in images]).items()}
        seen = inner.get_image_features(pixel_values=batch["pixel_values"].to(model.dtype), return_dict=True)
        patches = seen.hidden_states[model.config.vision_feature_layer]
        if model.config.vision_feature_select_strategy == "default":
            patches = patches[:, 1:]  # without the class token
        # One question for all, so nothing is padded and no mask is needed.
        states = inner(
            input_ids=batch["input_ids"], mm_encoder_outputs={"image": seen}, use_cache=False
        ).last_hidden_state
        pooled = {"vision": patches.mean(dim=1), "last": states[:, -1], "mean": states.mean(dim=1)}
        return {name: rows.float().cpu().numpy() for name, rows in pooled.items()}


def load_features(name: str | Path, dtype: str) -> Features:
    """The features of a model by folder or name.

    Raises:
        UserError: there is none.
    """
    return Features(load_model(name, dtype=dtype), load_processor(name))
