"""Experts that are logistic regressions on fixed, standardised features of an image.

* `Frequency`, after Frank et al. (ICML 2020), "Leveraging Frequency Analysis for Deep Fake Image
  Recognition": the logarithm of the grey image's discrete cosine transform (DCT), averaged in square bins.
  Mean and maximum over the spectra of its 8 × 8 blocks come with it: an artifact may cover a corner only.
* `UnivFD`, after Ojha et al. (CVPR 2023): features of a frozen CLIP vision tower. It is the base's own
  (LLaVA-1.5's is CLIP ViT-L/14 at 336 pixels, UnivFD's at 224), so that this baseline and FakeVLM start from
  the same features. To the class token, as in UnivFD, come mean and deviation of the patch tokens that the
  language model reads: the class token of a tower without contrastive training tells little.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.fft import dctn
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from transformers import AutoConfig

from fakevlm.cache import Cache
from fakevlm.config.params import Params
from fakevlm.data.records import Record
from fakevlm.evaluation.experts.base import Expert, mark_best, square, targets, validation_scores
from fakevlm.evaluation.vision import load_clip
from fakevlm.inference.predict import Predictor, predict
from fakevlm.model.llava import device, load_processor, locate

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse strengths of regularisation: the smaller, the simpler
BINS, BLOCK = 16, 8


@dataclass(frozen=True)
class Linear:
    """P(fake) = sigmoid(((x − mean) / scale) · weight + bias).

    Attributes:
        mean, scale, weight: (d,) float32.
        bias: (1,) float32.
    """

    mean: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return P(fake) of features: (n, d) → (n,) float64."""
        # Summed row by row: a matrix product rounds differently with the number of rows, P(fake) must not.
        logits = ((features - self.mean) / self.scale * self.weight).sum(1) + self.bias
        return expit(logits.astype(np.float64))


def fit_linear(
    train: np.ndarray, fake: np.ndarray, val: np.ndarray, val_fake: np.ndarray
) -> tuple[Linear, pd.DataFrame]:
    """Return the regression with the best validation AUC among `STRENGTHS`, and the log of all.

    Args:
        train, val: (n, d) and (m, d) float32 features.
        fake, val_fake: (n,) and (m,) float32, 1 for fake.
    """
    mean, scale = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scale[scale < 1e-6] = 1.0  # a constant feature
    mean, scale = mean.astype(np.float32), scale.astype(np.float32)
    models, log = [], []
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=500).fit((train - mean) / scale, fake)
        model = Linear(mean, scale, fitted.coef_[0].astype(np.float32), fitted.intercept_.astype(np.float32))
        models.append(model)
        loss = validation_scores(fake, model(train))["val_loss"]
        scores = validation_scores(val_fake, model(val))
        log.append({"setting": f"C={strength:g}", "train_loss": loss, **scores})
    table = mark_best(log)
    return models[int(table.chosen.argmax())], table


class LinearExpert(Expert):
    """A logistic regression on `features`.

    Attributes:
        setting: the name of the constructor's argument, kept in `config.json` and as an attribute.
    """

    setting: ClassVar[str]
    linear: Linear | None = None

    @abstractmethod
    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return features of RGB images, any sizes: (n, d) float32."""

    def fit(
        self, train: Sequence[Record], val: Sequence[Record], params: Params, cache: Cache, run: str
    ) -> pd.DataFrame:
        fake, val_fake = targets(train), targets(val)
        load = lambda: lambda images: {"x": self.features(images)}  # noqa: E731
        predictor, desc = Predictor(load, run, params.experts.batch_size), f"{self.title}: features"
        x, val_x = (predict(predictor, records, cache, desc=desc)["x"] for records in (train, val))
        self.linear, log = fit_linear(x, fake, val_x, val_fake)
        return log

    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.linear(self.features(images))

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        weights = {name: torch.from_numpy(value) for name, value in vars(self.linear).items()}
        return weights, {self.setting: getattr(self, self.setting)}

    @classmethod
    def restore(cls, weights: dict[str, torch.Tensor], config: dict[str, Any]) -> Self:
        expert = cls(config[cls.setting])
        expert.linear = Linear(**{name: tensor.numpy() for name, tensor in weights.items()})
        return expert


def spectrum(images: Sequence[Image.Image], size: int) -> np.ndarray:
    """Return features of RGB images: (n, BINS² + 2 · BLOCK²) float32.

    Args:
        images: n of them, any sizes.
        size: side of the centre crop in pixels, a multiple of BINS and BLOCK; smaller images are enlarged to
            it.
    """
    grey = np.stack([square(_crop(image, size), size) for image in images]).astype(np.float32).mean(-1)
    coefficients = np.log1p(np.abs(dctn(grey, axes=(1, 2), norm="ortho")))
    step, across = size // BINS, size // BLOCK
    bins = coefficients.reshape(-1, BINS, step, BINS, step).mean((2, 4))
    tiles = grey.reshape(-1, across, BLOCK, across, BLOCK).transpose(0, 1, 3, 2, 4)
    local = np.log1p(np.abs(dctn(tiles, axes=(3, 4), norm="ortho"))).reshape(len(grey), -1, BLOCK * BLOCK)
    return np.concatenate([bins.reshape(len(grey), -1), local.mean(1), local.max(1)], 1).astype(np.float32)


def _crop(image: Image.Image, size: int) -> Image.Image:
    """Return the centre, unresized to keep the spectrum. Smaller images are left to `square`."""
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size)) if left >= 0 and top >= 0 else image


class Frequency(LinearExpert):
    """Logistic regression on `spectrum`."""

    name, title, setting = "frequency", "Frequency", "size"

    def __init__(self, size: int) -> None:
        self.size = size

    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        return spectrum(images, self.size)


class UnivFD(LinearExpert):
    """Logistic regression on features of the frozen vision tower of `base`, a LLaVA.

    Raises:
        UserError: `base` is not a LLaVA with a CLIP tower.
    """

    name, title, setting = "univfd", "UnivFD", "base"

    def __init__(self, base: str) -> None:
        self.base, self.tower = base, load_clip(base, tower=True)
        self.layer = AutoConfig.from_pretrained(locate(base)).vision_feature_layer
        self.processor = load_processor(base).image_processor

    @torch.inference_mode()
    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return class token, mean and deviation of the patch tokens: (n, 3 · hidden size) float32."""
        pixels = self.processor(list(images), return_tensors="pt")["pixel_values"].to(device())
        out = self.tower(pixels, output_hidden_states=True)
        patches = out.hidden_states[self.layer][:, 1:]
        parts = [out.pooler_output, patches.mean(1), patches.std(1)]
        return torch.cat(parts, 1).float().cpu().numpy()
