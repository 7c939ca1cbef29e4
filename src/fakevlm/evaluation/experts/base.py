"""What every expert has: an interface, targets, validation scores, files.

Experts give a probability and no words. They are trained on the images that FakeVLM is trained on and never
see the
test split: the epoch or the regularisation is chosen on the validation split.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.metrics import log_loss, roc_auc_score

from fakevlm.cache import Cache, key
from fakevlm.config.params import Params
from fakevlm.data.records import FAKE, Record
from fakevlm.data.shards import columns_of
from fakevlm.errors import UserError
from fakevlm.progress import bar

WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Progress:
    """Work in progress of one training, from which it goes on after a kill; by default in memory only.

    Attributes:
        cache: where it lies.
        run: the key of all that decides the weights.
    """

    cache: Cache = field(default_factory=lambda: Cache(None))
    run: str = ""

    def get(self, *part: Any) -> bytes | None:
        """Return what was stored under `part`, or None."""
        return self.cache.get(key(self.run, *part))

    def put(self, value: bytes, *part: Any) -> None:
        """Store a value under `part`."""
        self.cache.put(key(self.run, *part), value)


class Expert(ABC):
    """A detector of generated images that is trained here.

    Attributes:
        name: its folder and module (`cnnspot`).
        title: its name in tables (`CNNSpot`).
    """

    name: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def fit(
        self, train: Sequence[Record], val: Sequence[Record], params: Params, seed: int, progress: Progress
    ) -> pd.DataFrame:
        """Train; choose epoch or regularisation on `val`.

        Args:
            train: labelled records of both classes.
            val: records of other source images, both classes.
            params: the profile.
            seed: of weights, order and augmentation.
            progress: where an earlier, killed training left what it had.

        Returns:
            The log: setting (epoch or regularisation), train_loss, val_loss, val_accuracy, val_auc, chosen.
        """

    @abstractmethod
    def predict(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return P(fake) of RGB images, any sizes: (len(images),) float64 in 0–1."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json`."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Return the expert that `save` wrote."""

    def p_fake(self, records: Sequence[Record], batch_size: int = 64) -> np.ndarray:
        """Return P(fake) of records, in order: (n,) float64. Decodes batch by batch."""
        parts = [np.empty(0)]
        with bar(len(records), self.title) as progress:
            for batch in batches(records, batch_size):
                parts.append(self.predict([record.pil() for record in batch]))
                progress.update(len(batch))
        return np.concatenate(parts)


def batches(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    """Yield lists of up to `size` items, in order."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


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


def write(folder: Path, name: str, tensors: dict[str, Any], config: dict[str, Any]) -> None:
    """Write torch tensors as safetensors, and the configuration with the expert's name as JSON."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, folder / WEIGHTS)
    text = json.dumps({"expert": name, **config}, indent=1)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the tensors and the configuration that `write` wrote.

    Raises:
        UserError: a file is missing or unreadable.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / WEIGHTS), json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"no expert in {folder}: {error}", "train it: `dvc repro experts`") from error
