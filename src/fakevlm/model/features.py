"""Features of a frozen LLaVA that is asked the standard question; probes read them (paper, section 4.1)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fakevlm.model.collate import Collator, Example
from fakevlm.model.llava import load_model, load_processor


class Features:
    """Features of images, from a `LlavaForConditionalGeneration` in evaluation mode and its processor."""

    def __init__(self, model: torch.nn.Module, processor: Any) -> None:
        self.model, self.collator = model, Collator(processor, for_generation=True)

    @torch.inference_mode()
    def __call__(self, images: list[Image.Image]) -> dict[str, np.ndarray]:
        """Return features of n images, float32 arrays.

        `vision` (n, d_vision) is the mean of the patches that the projector reads; `last` and `mean`
        (n, d_text) are the language model's last hidden state at the prompt's last token, and its mean over
        the prompt.
        """
        model, inner = self.model, self.model.model
        batch = {k: v.to(model.device) for k, v in self.collator([Example(i) for i in images]).items()}
        pixels = batch["pixel_values"].to(model.dtype)
        vision = inner.get_image_features(pixel_values=pixels, return_dict=True)
        patches = vision.hidden_states[model.config.vision_feature_layer]
        if model.config.vision_feature_select_strategy == "default":
            patches = patches[:, 1:]  # without the class token
        # All prompts are equal, so nothing is padded and no mask is needed.
        states = inner(
            input_ids=batch["input_ids"], mm_encoder_outputs={"image": vision}, use_cache=False
        ).last_hidden_state
        pooled = {"vision": patches.mean(dim=1), "last": states[:, -1], "mean": states.mean(dim=1)}
        return {name: rows.float().cpu().numpy() for name, rows in pooled.items()}


def load_features(name: str | Path, dtype: str) -> Features:
    """Return the features of a model, given by its folder or hub name.

    Raises:
        UserError: there is none.
    """
    return Features(load_model(name, dtype=dtype), load_processor(name))
