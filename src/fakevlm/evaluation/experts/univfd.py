"""UnivFD (Ojha et al., CVPR 2023): a linear classifier on the features of a frozen CLIP vision tower.

The tower is the base's own (LLaVA-1.5's is CLIP ViT-L/14 at 336 pixels, UnivFD's at 224), so that this
baseline and FakeVLM start from the same vision features. They are the class token, as in UnivFD, and the mean
and standard deviation
of the patch tokens of the layer that the language model reads: the class token of a tower without contrastive
training tells little.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from fakevlm.errors import UserError
from fakevlm.evaluation.experts.linear import LinearExpert
from fakevlm.model.llava import device, load_processor, locate


class Tower:
    """The frozen vision tower of a LLaVA; the language model is not loaded.

    Raises:
        UserError: `base` is not a LLaVA with a CLIP tower.
    """

    def __init__(self, base: str) -> None:
        from transformers import AutoConfig, CLIPVisionModel
        from transformers.utils import logging

        where, level = locate(base), logging.get_verbosity()
        logging.set_verbosity_error()  # it would list every weight of the language model as unexpected
        try:
            config = AutoConfig.from_pretrained(where)
            self.model, loading = CLIPVisionModel.from_pretrained(
                where,
                config=config.vision_config,
                key_mapping={r"^(model\.)?vision_tower\.(vision_model\.)?": ""},
                output_loading_info=True,
            )
        except (OSError, ValueError, AttributeError) as error:
            message = f"no vision tower could be loaded from {base!r}: {error}"
            raise UserError(message, "set `base` to a LLaVA") from error
        finally:
            logging.set_verbosity(level)
        if missing := loading["missing_keys"]:
            message = f"{base!r} lacks {len(missing)} weights of a CLIP vision tower"
            raise UserError(message, "set `base` to a LLaVA-1.5")
        self.layer = config.vision_feature_layer
        self.processor = load_processor(base).image_processor
        self.model.eval().requires_grad_(False).to(device())

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return class token, mean and deviation of the patch tokens: (n, 3 · hidden size) float32."""
        pixels = self.processor(list(images), return_tensors="pt")["pixel_values"].to(device())
        out = self.model(pixels, output_hidden_states=True)
        patches = out.hidden_states[self.layer][:, 1:]
        parts = [out.pooler_output, patches.mean(1), patches.std(1)]
        return torch.cat(parts, 1).float().cpu().numpy()


class UnivFD(LinearExpert):
    """Logistic regression on the features of a frozen `Tower`."""

    name, title, setting = "univfd", "UnivFD", "base"

    def __init__(self, base: str) -> None:
        self.base, self.linear, self.tower = base, None, Tower(base)

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.tower.features(images)
