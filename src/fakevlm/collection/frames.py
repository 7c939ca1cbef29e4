"""Cache of decoded video frames."""

from typing import Any

import numpy as np

from fakevlm import cache


class FrameCache:
    """Frames of videos, so that a stage that was killed decodes no video twice.

    Args:
        values: where they are stored.
        settings: what decides, beside the video, its frames; as JSON has it.
    """

    def __init__(self, values: cache.Cache, settings: Any) -> None:
        self._values, self._settings = values, settings

    def get(self, key: Any) -> list[tuple[str, bytes]] | None:
        """Return (file name, bytes) of the frames under a key, None if there are none."""
        packed = self._values.get(cache.key("frames", self._settings, key))
        if packed is None:
            return None
        return [(name, data.tobytes()) for name, data in cache.unpack(packed).items()]

    def put(self, key: Any, frames: list[tuple[str, bytes]]) -> None:
        """Store the frames of a video."""
        packed = cache.pack({name: np.frombuffer(data, np.uint8) for name, data in frames})
        self._values.put(cache.key("frames", self._settings, key), packed)
