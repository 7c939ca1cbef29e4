"""Frames of a video, as PNG bytes."""

import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from fakevlm.corpora.files import BadImage


def spaced(total: int, wanted: int) -> list[int]:
    """`wanted` different indices evenly spaced over `total`, first and last included, rounded down; all where there are fewer.

    The same frames as DeepfakeBench's `fixed_num_frames`.
    """
    return np.unique(np.linspace(0, total - 1, wanted, dtype=int)).tolist() if total else []


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as a PNG file."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()


def _count(file: Path) -> int:
    with av.open(str(file)) as container:
        stream = container.streams.video[0]
        # The header's number when there is one; otherwise count packets, which needs no decoding.
        return stream.frames or sum(1 for packet in container.demux(stream) if packet.size)


def frames(
    file: Path,
    wanted: int,
    look: Callable[[int, np.ndarray], np.ndarray | None] | None = None,
    drawn: Callable[[int], bool] | None = None,
) -> list[tuple[int, bytes]]:
    """`wanted` evenly spaced frames of a video as (frame number from 0, PNG bytes).

    Args:
        drawn: of the frame numbers, which are to be decoded at all; all of them by default.
        look: gets each frame's number and (H, W, 3) uint8 RGB pixels, and gives the pixels to keep; None leaves the frame out.

    Raises:
        BadImage: the file is not a video, has no frame, or breaks off while decoding.
    """
    try:
        numbers = spaced(_count(file), wanted)
        if drawn is not None and numbers:
            numbers = [number for number in numbers if drawn(number)]
            if not numbers:
                return []
        seen, picked = 0, []
        with av.open(str(file)) as container:
            container.streams.video[0].thread_type = "NONE"  # one thread: the same bytes on every machine
            for number, frame in enumerate(container.decode(video=0)):
                if number in numbers:
                    seen += 1
                    pixels = frame.to_ndarray(format="rgb24")
                    kept = pixels if look is None else look(number, pixels)
                    if kept is not None:
                        picked.append((number, png(kept)))
                if numbers and number >= numbers[-1]:
                    break
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        raise BadImage(f"video does not decode: {type(error).__name__}") from error
    if not seen:
        raise BadImage("video without frames")
    return picked
