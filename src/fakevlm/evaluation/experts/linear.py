"""Experts that are logistic regressions on fixed, standardised features of an image."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from fakevlm.cache import pack, unpack
from fakevlm.config.params import Params
from fakevlm.data.records import Record
from fakevlm.evaluation.experts.base import (
    Expert,
    Progress,
    batches,
    mark_best,
    read,
    targets,
    validation_scores,
    write,
)
from fakevlm.progress import bar

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # inverse strengths of regularisation: the smaller, the simpler


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
    standard = (train - mean) / scale
    models, log = [], []
    for strength in STRENGTHS:
        fitted = LogisticRegression(C=strength, max_iter=500).fit(standard, fake)
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
    linear: Linear | None

    @abstractmethod
    def features(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return features of RGB images, any sizes: (n, d) float32."""

    def fit(
        self, train: Sequence[Record], val: Sequence[Record], params: Params, seed: int, progress: Progress
    ) -> pd.DataFrame:
        fake, val_fake = targets(train), targets(val)
        with bar(len(train) + len(val), f"{self.title}: features") as shown:

            def computed(split: str, records: Sequence[Record]) -> Iterator[np.ndarray]:
                for number, batch in enumerate(batches(records, params.experts.batch_size)):
                    if (stored := progress.get(split, number)) is None:
                        stored = pack({"x": self.features([record.pil() for record in batch])})
                        progress.put(stored, split, number)
                    yield unpack(stored)["x"]
                    shown.update(len(batch))

            features = np.concatenate(list(computed("train", train)))
            val_features = np.concatenate(list(computed("val", val)))
        self.linear, log = fit_linear(features, fake, val_features, val_fake)
        return log

    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        return self.linear(self.features(images))

    def save(self, folder: Path) -> None:
        import torch

        tensors = {key: torch.from_numpy(value) for key, value in vars(self.linear).items()}
        write(folder, self.name, tensors, {self.setting: getattr(self, self.setting)})

    @classmethod
    def load(cls, folder: Path) -> Self:
        tensors, config = read(folder)
        expert = cls(config[cls.setting])
        expert.linear = Linear(**{key: value.numpy() for key, value in tensors.items()})
        return expert
