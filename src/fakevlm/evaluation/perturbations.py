"""Perturbed copies of images: recompression, resizing, blur, noise, cropping."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from fakevlm.cache import code_version
from fakevlm.data.records import Record, decode
from fakevlm.data.shards import columns_of

KINDS = ("jpeg", "resize", "blur", "noise", "crop")


def perturb(image: Image.Image, kind: str, strength: float, seed: int) -> Image.Image:
    """Return a perturbed copy of an RGB image, of the same size.

    Args:
        image: RGB.
        kind: `jpeg` (strength: quality 1–100), `resize` (down to this share of each side and up again),
            `blur` (Gaussian, sigma in pixels), `noise` (Gaussian, sigma in grey levels of 255), `crop` (the
            centre, this share of each side, enlarged again).
        strength: as above; params.yaml's limits are in `config.evaluation.Robustness`.
        seed: of the noise; the other kinds draw nothing.
    """
    if kind == "jpeg":
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(strength))
        return Image.open(buffer).convert("RGB")
    if kind == "blur":  # by cv2, because PIL's Gaussian is an approximation by boxes
        pixels = np.asarray(image)
        return Image.fromarray(cv2.GaussianBlur(pixels, (0, 0), strength) if strength > 0 else pixels)
    if kind == "noise":
        pixels = np.asarray(image)
        grain = np.random.default_rng(seed).normal(0, strength, pixels.shape)
        return Image.fromarray(np.clip(np.rint(pixels + grain), 0, 255).astype(np.uint8))
    width, height = (max(1, round(side * strength)) for side in image.size)
    if kind == "crop":
        left, top = (image.width - width) // 2, (image.height - height) // 2
        small = image.crop((left, top, left + width, top + height))
    else:
        small = image.resize((width, height), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


@dataclass(slots=True)
class PerturbedRecord(Record):
    """A record whose image is perturbed when it is decoded; `sha256` names the image and the perturbation.

    Attributes:
        change: kind, strength and seed, as `perturb` takes them.
    """

    change: tuple[str, float, int] = ("resize", 1, 0)

    def pil(self) -> Image.Image:
        return perturb(decode(self.image), *self.change)

    def encoded(self) -> bytes:
        """The perturbed image without further loss, as PNG."""
        buffer = io.BytesIO()
        self.pil().save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


def perturbed(record: Record, kind: str, strength: float, seed: int) -> PerturbedRecord:
    """Return the record with its image perturbed. The noise depends on the record's id."""
    values = {field.name: getattr(record, field.name) for field in fields(Record)}
    change = kind, strength, _noise_seed(record.id, seed)
    values["sha256"] = _hash(record.sha256, *change)
    return PerturbedRecord(**values, change=change)


def _noise_seed(name: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")


def _hash(sha256: str, kind: str, strength: float, noise: int) -> str:
    return f"{sha256} {kind}={strength!r} {noise if kind == 'noise' else ''} {code_version(__name__)[:16]}"


class Perturbed(Sequence[Record]):
    """All records unchanged, then all with each perturbation, which is applied when they are decoded.

    Args:
        records: n of them.
        settings: m pairs of kind and strength.
        seed: of the noise.
    """

    def __init__(self, records: Sequence[Record], settings: list[tuple[str, float]], seed: int) -> None:
        self._records, self._settings, self._seed = records, settings, seed

    def __len__(self) -> int:
        return len(self._records) * (1 + len(self._settings))

    def __getitem__(self, n: int) -> Record:
        if not 0 <= n < len(self):
            raise IndexError(n)
        which, row = divmod(n, len(self._records))
        record = self._records[row]
        return record if which == 0 else perturbed(record, *self._settings[which - 1], self._seed)

    def take(self, rows: Sequence[int] | np.ndarray) -> list[Record]:
        """Return the records with these numbers."""
        return [self[int(n)] for n in rows]

    def frame(self, columns: Sequence[str]) -> pd.DataFrame:
        """Return some columns of all records; no image is read."""
        plain = columns_of(self._records, list(dict.fromkeys([*columns, "id", "sha256"])))
        seeds = [_noise_seed(name, self._seed) for name in plain["id"]]
        parts = [plain]
        for change in self._settings:
            hashes = [_hash(sha, *change, noise) for sha, noise in zip(plain["sha256"], seeds, strict=True)]
            parts.append(plain.assign(sha256=hashes))
        return pd.concat(parts, ignore_index=True)[list(columns)]
