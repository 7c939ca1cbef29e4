"""Perturbed copies of images: recompression, resizing, blur, noise, cropping."""

import hashlib
import io
from dataclasses import dataclass, fields

import cv2
import numpy as np
from PIL import Image

from fakevlm.cache import code_version
from fakevlm.data.records import Record, decode

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
    noise = int.from_bytes(hashlib.sha256(f"{seed} {record.id}".encode()).digest()[:8], "big")
    drawn = noise if kind == "noise" else ""
    values["sha256"] = f"{record.sha256} {kind}={strength!r} {drawn} {code_version(__name__)[:16]}"
    return PerturbedRecord(**values, change=(kind, strength, noise))
