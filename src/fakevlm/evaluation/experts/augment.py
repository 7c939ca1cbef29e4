"""CNNSpot's augmentation: blur and JPEG, against reliance on traces that compression erases.

After Wang et al. (CVPR 2020), "CNN-generated images are surprisingly easy to spot… for now", the setting
Blur+JPEG (0.5): Gaussian blur with sigma drawn from [0, 3] pixels and JPEG with quality drawn from {30, …,
100}, each with the same probability.
"""

import cv2
import numpy as np

SIGMA, QUALITY = (0.0, 3.0), (30, 100)


def blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """Return (h, w, 3) uint8 blurred; `sigma` in pixels, 0 changes nothing."""
    return cv2.GaussianBlur(pixels, (0, 0), sigma) if sigma > 0.05 else pixels


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    """Return (h, w, 3) uint8 RGB compressed as a JPEG of `quality` (1–100) and decoded."""
    coded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1]


def augment(pixels: np.ndarray, rng: np.random.Generator, chance: float, crop: int) -> np.ndarray:
    """Return the image after random blur, JPEG, crop and mirror.

    Args:
        pixels: (size, size, 3) uint8 RGB.
        chance: of blur, and independently of JPEG (0.5 in the paper).
        crop: side of the crop, at most size.

    Returns:
        (crop, crop, 3) uint8.
    """
    if rng.random() < chance:
        pixels = blur(pixels, rng.uniform(*SIGMA))
    if rng.random() < chance:
        pixels = jpeg(pixels, int(rng.integers(QUALITY[0], QUALITY[1] + 1)))
    top, left = rng.integers(0, pixels.shape[0] - crop + 1, 2)
    pixels = pixels[top : top + crop, left : left + crop]
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels
