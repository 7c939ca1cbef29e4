"""Frames of a video, as PNG bytes."""

import io
from pathlib import Path

import av
import numpy as np
from PIL import Image

from fakevlm.corpora.files import BadImage


def spaced(total: int, wanted: int) -> list[int]:
    """`wanted` different indices evenly spaced over `total`, first and last included; all where there are fewer."""
    return sorted({round(float(i)) for i in np.linspace(0, total - 1, min(wanted, total))}) if total else []


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


def frames(file: Path, wanted: int) -> list[tuple[int, bytes]]:
    """`wanted` evenly spaced frames of a video as (frame number from 0, PNG bytes).

    Raises:
        BadImage: the file is not a video, has no frame, or breaks off while decoding.
    """
    try:
        numbers = spaced(_count(file), wanted)
        picked = []
        with av.open(str(file)) as container:
            container.streams.video[0].thread_type = "NONE"  # one thread: the same bytes on every machine
            for number, frame in enumerate(container.decode(video=0)):
                if number in numbers:
                    picked.append((number, png(frame.to_ndarray(format="rgb24"))))
                if numbers and number >= numbers[-1]:
                    break
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        raise BadImage(f"video does not decode: {type(error).__name__}") from error
    if not picked:
        raise BadImage("video without frames")
    return picked
