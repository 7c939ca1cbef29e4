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


def layout_map(pixels: np.ndarray, cell: int, levels: int) -> np.ndarray:
    """Return the coarse map of an aerial image: the mean colour of every cell, in few shades.

    Args:
        pixels: (h, w, 3) uint8; h and w multiples of `cell`.
        cell: pixels a side of a cell.
        levels: shades a colour channel.

    Returns:
        (h / cell, w / cell, 3) uint8; every shade is the middle of the range that it replaces.
    """
    h, w, _ = pixels.shape
    means = pixels.reshape(h // cell, cell, w // cell, cell, 3).mean((1, 3))
    step = 256 / levels
    return ((np.floor(means / step) + 0.5) * step).astype(np.uint8)


def enlarged(layout: np.ndarray, cell: int) -> np.ndarray:
    """Return a map (h, w, 3) at its image's size, (h * cell, w * cell, 3), its cells without hard edges."""
    return cv2.resize(layout, None, fx=cell, fy=cell, interpolation=cv2.INTER_LINEAR)


def _hashed(seed: int, text: str) -> float:
    """Return a number in 0..1 that depends on the seed and a text."""
    digest = hashlib.blake2b(f"{seed}|aerial|{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def learned_from(item: str, settings: Satellites, seed: int) -> bool:
    """Return whether the generators learn from this item's image; it then belongs to the train split."""
    return _hashed(seed, item) < settings.learn_share


@dataclass(frozen=True)
class Lender:
    """An aerial image that lends its map: the record's id and item, its row in the file, its turn."""

    id: str
    item: str
    row: int
    turn: float


class Aerials:
    """Stores what the generators need of the aerial images that stream by, in two files of raw bytes.

    Attributes:
        count: images to learn from.
        lenders: the other images.
    """

    def __init__(self, folder: Path, settings: Satellites, seed: int) -> None:
        """Makes `folder`, and empties the two files in it."""
        folder.mkdir(parents=True, exist_ok=True)
        self._settings, self._seed = settings, seed
        self._files = tuple((folder / name).open("wb") for name in ("learned.u8", "maps.u8"))
        self._hash = hashlib.sha256()
        self.count = 0
        self.lenders: list[Lender] = []

    def add(self, record: Record, pixels: np.ndarray) -> None:
        """Add one aerial image; one to learn from joins the train split.

        Args:
            pixels: its `square` of `image_size`.
        """
        if learned_from(record.item, self._settings, self._seed):
            self._files[0].write(pixels.tobytes())
            self._hash.update(record.sha256.encode())
            record.split = "train"
            self.count += 1
        else:
            self._files[1].write(layout_map(pixels, self._settings.cell, self._settings.levels).tobytes())
            turn = _hashed(self._seed, f"turn|{record.item}")
            self.lenders.append(Lender(record.id, record.item, len(self.lenders), turn))

    def close(self) -> None:
        """Close the files; the arrays can be read then."""
        for stream in self._files:
            stream.close()

    @property
    def digest(self) -> str:
        """Return a hash of the images to learn from, in order."""
        return self._hash.hexdigest()

    def learned(self) -> np.ndarray:
        """Return the images to learn from, (count, size, size, 3) uint8, mapped from disk."""
        size = self._settings.image_size
        return np.memmap(self._files[0].name, np.uint8, "r", shape=(self.count, size, size, 3))

    def lent(self, n: int) -> tuple[list[Lender], np.ndarray]:
        """Return the first `n` lenders by turn, and their maps (n, size / cell, size / cell, 3) uint8."""
        side = self._settings.image_size // self._settings.cell
        chosen = sorted(self.lenders, key=lambda lender: (lender.turn, lender.id))[:n]
        maps = np.memmap(self._files[1].name, np.uint8, "r", shape=(len(self.lenders), side, side, 3))
        return chosen, maps[[lender.row for lender in chosen]]
