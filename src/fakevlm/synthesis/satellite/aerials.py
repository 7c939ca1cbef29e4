"""Aerial images for the generators: some to learn from, the others lend maps.

The paper (section 3.2) names the corpora, CVUSA and VIGOR, and the methods, GAN and diffusion, but not what
was generated from what. Here a generator starts from a *map*: a real aerial image in few, large cells and few
colours. Any aerial corpus will do, without labels.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from fakevlm.config.params import Satellites
from fakevlm.data.records import Record


def square(image: Image.Image, size: int) -> np.ndarray:
    """Return the image's central square, resized: (size, size, 3) uint8 RGB."""
    fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.LANCZOS)
    return np.asarray(fitted, np.uint8)


def layout_map(pixels: np.ndarray, settings: Satellites) -> np.ndarray:
    """Return the coarse map of an aerial image: the mean colour of every cell, in few shades.

    (h, w, 3) uint8, h and w multiples of the cell → (h / cell, w / cell, 3) uint8. Every shade is the middle
    of the range that it replaces.
    """
    (h, w, _), cell = pixels.shape, settings.cell
    means = pixels.reshape(h // cell, cell, w // cell, cell, 3).mean((1, 3))
    step = 256 / settings.levels
    return ((np.floor(means / step) + 0.5) * step).astype(np.uint8)


def enlarged(layout: np.ndarray, cell: int) -> np.ndarray:
    """Return a map (h, w, 3) at its image's size, (h * cell, w * cell, 3), its cells without hard edges."""
    return cv2.resize(layout, None, fx=cell, fy=cell, interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Lender:
    """An aerial image that lends its map."""

    id: str  # of the record
    group: str
    turn: float  # the lowest are used first
    layout: np.ndarray  # the map, (size / cell, size / cell, 3) uint8


class Aerials:
    """Stores what the generators need of the aerial images that stream by, pixels to learn from in `file`."""

    def __init__(self, file: Path, settings: Satellites, seed: int) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
        self._file, self._settings, self._seed = file, settings, seed
        self.digest = hashlib.sha256()  # of the images to learn from, in order
        self.learned_from: list[str] = []  # their groups
        self.lenders: list[Lender] = []  # the other images

    def _hashed(self, text: str) -> float:
        """Return a number in 0..1 that depends on the seed and a text."""
        digest = hashlib.blake2b(f"{self._seed}|aerial|{text}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    def add(self, record: Record, pixels: np.ndarray) -> None:
        """Add an image (`pixels` is its `square`), to learn from, in the train split, or to lend its map."""
        if self._hashed(record.group) < self._settings.learn_share:
            with self._file.open("ab") as stream:
                stream.write(pixels.tobytes())
            self.digest.update(record.sha256.encode())
            record.split = "train"
            self.learned_from.append(record.group)
        else:
            turn, layout = self._hashed(f"turn|{record.group}"), layout_map(pixels, self._settings)
            self.lenders.append(Lender(record.id, record.group, turn, layout))

    def learned(self) -> np.ndarray:
        """Return the images to learn from, (n, size, size, 3) uint8, mapped from disk."""
        size = self._settings.image_size
        return np.memmap(self._file, np.uint8, "r", shape=(len(self.learned_from), size, size, 3))

    def lent(self, n: int) -> list[Lender]:
        """Return the first `n` lenders by turn."""
        return sorted(self.lenders, key=lambda lender: (lender.turn, lender.id))[:n]
