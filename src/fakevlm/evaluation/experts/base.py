"""What every expert detector is: something trained on real and fake images that says how likely an image is fake.

Experts give a probability and no words. They are the tables' baselines, trained here on the same images as FakeVLM and never
shown the test split: whatever is chosen (epoch, regularisation) is chosen on the validation split.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import log_loss, roc_auc_score

from fakevlm.config.params import Params
from fakevlm.data.records import FAKE, Record
from fakevlm.data.shards import columns_of
from fakevlm.errors import UserError
from fakevlm.progress import bar

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Expert(ABC):
    """A detector of generated images.

    Attributes:
        name: its folder's name (`cnnspot`).
        title: as tables print it (`CNNSpot`).
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def fit(
        self,
        train: Sequence[Record],
        val: Sequence[Record],
        params: Params,
        seed: int,
        work: Path | None = None,
    ) -> pd.DataFrame:
        """Trains; whatever is to be chosen is chosen on `val`.

        Args:
            train: labelled records of both classes.
            val: records of other items, both classes.
            params: of these, `experts` (and `base`, for who looks through its eyes).
            seed: of weights, order and augmentation.
            work: folder for work in progress, from which a killed training goes on; None: it would begin anew.

        Returns:
            The log: setting (what varied: the epoch, the regularisation), train_loss, val_loss, val_accuracy, val_auc, chosen.
        """

    @abstractmethod
    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        """P(fake) of a batch of RGB images, any sizes: (len(images),) float64 in 0–1."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes `model.safetensors` and `config.json`."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> "Expert":
        """Reads what `save` wrote."""

    def p_fake(self, records: Iterable[Record], batch_size: int = 64) -> np.ndarray:
        """P(fake) of records, in order: (n,) float64. Decodes batch by batch."""
        total = len(records) if isinstance(records, Sequence) else None
        found = [np.empty(0)]
        with bar(total, self.title) as progress:
            for batch in batches(records, batch_size):
                found.append(self.predict([record.pil() for record in batch]))
                progress.update(len(batch))
        return np.concatenate(found)


def batches(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    """Lists of up to `size` items, in order."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def targets(records: Sequence[Record]) -> np.ndarray:
    """1 for fake, 0 for real: (n,) float32. (A record's label is the other way round.)

    Raises:
        UserError: only one class is there; nothing can be learnt or measured.
    """
    fake = (columns_of(records, ["label"])["label"] == FAKE).to_numpy(np.float32)
    if not 0 < fake.sum() < len(fake):
        raise UserError(
            f"experts: {len(fake)} images, {int(fake.sum())} of them fake: both classes are needed",
            "check the splits that annotate made",
        )
    return fake


def judge(fake: np.ndarray, p_fake: np.ndarray) -> dict[str, float]:
    """Validation scores of P(fake) against `targets`: val_loss, val_accuracy (at one half), val_auc."""
    p = np.clip(p_fake, 1e-7, 1 - 1e-7)
    return {
        "val_loss": float(log_loss(fake, p, labels=[0, 1])),
        "val_accuracy": float(((p >= 0.5) == (fake == 1)).mean()),
        "val_auc": float(roc_auc_score(fake, p_fake)),
    }


def mark_best(log: list[dict[str, Any]]) -> pd.DataFrame:
    """The log with a column `chosen`: true for the row of the highest val_auc; among equals the lowest val_loss decides."""
    table = pd.DataFrame(log)
    best = table.sort_values(["val_auc", "val_loss"], ascending=[False, True], kind="stable").index[0]
    table["chosen"] = table.index == best
    return table


def square(image: Image.Image, size: int) -> np.ndarray:
    """The shorter side brought to `size`, then the centre: (size, size, 3) uint8."""
    if image.size != (size, size):
        scale = size / min(image.size)
        width, height = (max(size, round(side * scale)) for side in image.size)
        left, top = (width - size) // 2, (height - size) // 2
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)


def write(folder: Path, kind: type[Expert], tensors: dict[str, Any], config: dict[str, Any]) -> None:
    """Saves torch tensors as safetensors and the configuration, with the expert's name, as JSON."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, folder / WEIGHTS)
    text = json.dumps({"expert": kind.name, **config}, indent=1)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and configuration that `write` saved.

    Raises:
        UserError: a file is missing or unreadable.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"no expert in {folder}: {error}", "train it: `dvc repro experts`") from error
