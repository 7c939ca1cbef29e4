"""What the expert detectors have in common: their interface, files, targets and validation scores.

Epoch or regularisation is chosen on the validation split. The test split is never seen.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import log_loss, roc_auc_score

from fakevlm.cache import Cache
from fakevlm.config.params import Params
from fakevlm.data.records import FAKE, Record
from fakevlm.data.shards import columns_of
from fakevlm.errors import UserError
from fakevlm.inference.predict import Predictor, predict

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Expert(ABC):
    """A detector of generated images that is trained here.

    Attributes:
        name: its folder (`cnnspot`).
        title: its name in tables (`CNNSpot`).
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def fit(
        self, train: Sequence[Record], val: Sequence[Record], params: Params, cache: Cache, run: str
    ) -> pd.DataFrame:
        """Train; choose epoch or regularisation on `val`.

        Args:
            train: labelled records of both classes.
            val: records of other source images, both classes.
            params: the profile; its seed decides weights, order and augmentation.
            cache: of work in progress; an interrupted training goes on from there.
            run: the key of all that decides the weights.

        Returns:
            The log: setting (epoch or regularisation), train_loss, val_loss, val_accuracy, val_auc, chosen.
        """

    @abstractmethod
    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return P(fake) of RGB images, any sizes: (len(images),) float64 in 0–1."""

    @abstractmethod
    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return weights by name and configuration, as `restore` takes them."""

    @classmethod
    @abstractmethod
    def restore(cls, weights: dict[str, torch.Tensor], config: dict[str, Any]) -> Self:
        """Return the trained expert."""

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json`."""
        weights, config = self.state()
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.cpu().contiguous() for key, tensor in weights.items()}, folder / WEIGHTS)
        text = json.dumps({"expert": self.name, **config}, indent=1)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")

    def p_fake(self, records: Sequence[Record], batch_size: int = 64) -> np.ndarray:
        """Return P(fake) of n records, in order: (n,) float64."""
        predictor = Predictor(lambda: lambda images: {"p_fake": self.predict(images)}, None, batch_size)
        return predict(predictor, records, desc=self.title)["p_fake"]


def targets(records: Sequence[Record]) -> np.ndarray:
    """Return 1 for fake, 0 for real (a record's label is the other way round): (n,) float32.

    Raises:
        UserError: only one class is there.
    """
    fake = (columns_of(records, ["label"])["label"] == FAKE).to_numpy(np.float32)
    if not 0 < fake.sum() < len(fake):
        raise UserError(
            f"experts: {len(fake)} images, {int(fake.sum())} of them fake: both classes are needed",
            "check the splits that annotate made",
        )
    return fake


def validation_scores(fake: np.ndarray, p_fake: np.ndarray) -> dict[str, float]:
    """Return val_loss, val_accuracy (at one half) and val_auc of P(fake) against `targets`."""
    p = np.clip(p_fake, 1e-7, 1 - 1e-7)
    return {
        "val_loss": float(log_loss(fake, p, labels=[0, 1])),
        "val_accuracy": float(((p >= 0.5) == (fake == 1)).mean()),
        "val_auc": float(roc_auc_score(fake, p_fake)),
    }


def mark_best(log: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the log with a column `chosen`: true for the highest val_auc, then the lowest val_loss."""
    table = pd.DataFrame(log)
    best = table.sort_values(["val_auc", "val_loss"], ascending=[False, True], kind="stable").index[0]
    table["chosen"] = table.index == best
    return table


def square(image: Image.Image, size: int) -> np.ndarray:
    """Return the centre of the image after its shorter side is resized to `size`: (size, size, 3) uint8."""
    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)
