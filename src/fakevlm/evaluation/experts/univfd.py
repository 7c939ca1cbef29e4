"""UnivFD (Ojha et al., CVPR 2023): a linear classifier on the features of a CLIP vision tower that is never trained.

The tower is the base's own (LLaVA-1.5's is CLIP ViT-L/14 at 336 pixels, UnivFD's at 224), so that this baseline and FakeVLM
start from the same eyes. Features are the class token, as in UnivFD, and the mean and spread of the patch tokens of the layer
that the language model is shown: a tower without contrastive training has no class token worth reading.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fakevlm.config.params import Params
from fakevlm.data.records import Record
from fakevlm.errors import UserError
from fakevlm.evaluation.experts.base import Expert, read, write
from fakevlm.evaluation.experts.linear import Linear, fit_records
from fakevlm.model.llava import device, load_processor, locate


class Tower:
    """The vision tower of a LLaVA, frozen; the language model is not read.

    Raises:
        UserError: `base` is no LLaVA with a CLIP tower.
    """

    def __init__(self, base: str) -> None:
        from transformers import AutoConfig, CLIPVisionModel
        from transformers.utils import logging

        where, level = locate(base), logging.get_verbosity()
        logging.set_verbosity_error()  # it would list every weight of the language model as unexpected
        try:
            config = AutoConfig.from_pretrained(where)
            self.model, found = CLIPVisionModel.from_pretrained(
                where,
                config=config.vision_config,
                key_mapping={r"^(model\.)?vision_tower\.(vision_model\.)?": ""},
                output_loading_info=True,
            )
        except (OSError, ValueError, AttributeError) as error:
            raise UserError(
                f"no vision tower could be loaded from {base!r}: {error}", "set `base` to a LLaVA"
            ) from error
        finally:
            logging.set_verbosity(level)
        if found["missing_keys"]:
            raise UserError(
                f"{base!r} lacks {len(found['missing_keys'])} weights of a CLIP vision tower",
                "set `base` to a LLaVA-1.5",
            )
        self.layer = config.vision_feature_layer
        self.processor = load_processor(base).image_processor
        self.model.eval().requires_grad_(False).to(device())

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(n, 3 · hidden size) float32: class token, mean and standard deviation of the patch tokens."""
        pixels = self.processor(list(images), return_tensors="pt")["pixel_values"].to(device())
        out = self.model(pixels, output_hidden_states=True)
        patches = out.hidden_states[self.layer][:, 1:]
        parts = [out.pooler_output, patches.mean(1), patches.std(1)]
        return torch.cat(parts, 1).float().cpu().numpy()


class UnivFD(Expert):
    """Logistic regression on a frozen `Tower`."""

    name, title = "univfd", "UnivFD"

    def __init__(self, base: str, linear: Linear | None = None) -> None:
        self.base, self.linear, self.tower = base, linear, Tower(base)

    def fit(
        self,
        train: Sequence[Record],
        val: Sequence[Record],
        params: Params,
        seed: int,
        work: Path | None = None,
    ) -> pd.DataFrame:
        self.linear, log = fit_records(
            self.tower.features, train, val, params.experts.batch_size, "UnivFD: frozen features"
        )
        return log

    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.linear(self.tower.features(images))

    def save(self, folder: Path) -> None:
        tensors = {key: torch.from_numpy(value) for key, value in vars(self.linear).items()}
        write(folder, UnivFD, tensors, {"base": self.base})

    @classmethod
    def load(cls, folder: Path) -> "UnivFD":
        tensors, config = read(folder)
        return cls(config["base"], Linear(**{key: value.numpy() for key, value in tensors.items()}))
