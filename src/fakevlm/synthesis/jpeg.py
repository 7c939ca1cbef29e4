"""JPEG files as cameras and messengers leave them."""

import cv2
import numpy as np


def encode_jpeg(pixels: np.ndarray, rng: np.random.Generator, quality: tuple[int, int]) -> tuple[bytes, bool]:
    """Return a JPEG file, and whether it was compressed twice, as one image in seven is.

    `pixels` are (height, width, 3) RGB in 0..255, `quality` is the lowest and the highest, 1..100.
    """
    image = np.clip(pixels, 0, 255).astype(np.uint8)[..., ::-1]
    twice = bool(rng.random() < 0.15)
    if twice:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 62))])
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    chosen = int(rng.integers(quality[0], quality[1] + 1))
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, chosen, cv2.IMWRITE_JPEG_OPTIMIZE, 1])
    return data.tobytes(), twice
