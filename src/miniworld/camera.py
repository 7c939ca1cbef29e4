"""The camera: light and lens before the sensor, grain behind it. Real and fake images pass the same one."""

import cv2
import numpy as np

from miniworld.canvas import noise
from miniworld.stagecraft import Style


def expose(img: np.ndarray, rng: np.random.Generator, style: Style) -> np.ndarray:
    """Apply exposure, white balance and vignette of the whole picture."""
    gain = rng.uniform(0.5, 0.65) if rng.random() < style.night else rng.uniform(0.82, 1.12)
    balance = np.float32(rng.normal(1.0, 0.035, 3))
    img = img * (gain * balance)
    if rng.random() < 0.5:
        n = img.shape[0]
        ys, xs = np.ogrid[0:n, 0:n]
        d = ((xs / n - 0.5) ** 2 + (ys / n - 0.5) ** 2).astype(np.float32)
        img = img * (1 - rng.uniform(0.1, 0.7) * d)[..., None]
    return img.astype(np.float32)


def lens(
    img: np.ndarray, subject: np.ndarray, rng: np.random.Generator, style: Style
) -> tuple[np.ndarray, list[str]]:
    """Blur the whole picture, or what lies behind the subject; return it and its qualities."""
    qualities = []
    sigma = rng.uniform(*style.blur)
    if rng.random() < 0.12:
        sigma += rng.uniform(0.25, 0.6)
        qualities.append("blur")
    if sigma > 0.25:
        img = cv2.GaussianBlur(img, (0, 0), sigma)
    if rng.random() < 0.18 and subject.any() and subject.mean() < 0.6:
        near = cv2.GaussianBlur(subject.astype(np.float32), (0, 0), 1.5)[..., None]
        img = img * near + cv2.GaussianBlur(img, (0, 0), rng.uniform(1.0, 2.2)) * (1 - near)
        qualities.append("focus")
    return img, qualities


def sense(img: np.ndarray, rng: np.random.Generator, style: Style) -> tuple[np.ndarray, list[str]]:
    """Add sensor grain, partly shared by the channels; return the picture and its qualities."""
    sigma = rng.uniform(*style.grain)
    qualities = ["grain"]
    if rng.random() < 0.12:
        sigma += rng.uniform(4, 8)
        qualities = ["noise"]
    n = img.shape[0]
    shared = noise(rng, "white", n) * 0.8 + noise(rng, "fine", n) * 0.6
    colour = np.stack([noise(rng, "white", n) for _ in range(3)], -1)
    return img + sigma * (shared[..., None] * 0.9 + colour * 0.45), qualities
