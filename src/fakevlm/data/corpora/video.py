"""Frames of a video, as PNG bytes."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
from PIL import Image

from fakevlm.data.corpora.files import BadImage


def spaced(total: int, wanted: int) -> list[int]:
    """Return `wanted` indices evenly spaced over `total`, first and last included; all if fewer.

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


@contextmanager
def _video() -> Iterator[None]:
    """Whatever a broken file raises as `BadImage`."""
    try:
        yield
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        raise BadImage(f"video does not decode: {type(error).__name__}") from error


def numbers(file: Path, wanted: int) -> list[int]:
    """Return the numbers (from 0) of `wanted` evenly spaced frames of a video; nothing is decoded.

    Raises:
        BadImage: the file is not a video or has no frame.
    """
    with _video():
        found = spaced(_count(file), wanted)
    if not found:
        raise BadImage("video without frames")
    return found


def frames(
    file: Path,
    chosen: Sequence[int],
    look: Callable[[int, np.ndarray], np.ndarray | None] | None = None,
    lost: Callable[[int], None] | None = None,
) -> list[tuple[int, bytes]]:
    """Frames of a video as (frame number from 0, PNG bytes).

    Args:
        chosen: the numbers of the frames to be decoded, ascending; at least one.
        look: gets each frame's number and (H, W, 3) uint8 RGB pixels, and gives the pixels to keep; None
            leaves the frame out.
        lost: is told the number of each frame that the file's header promises and that does not come; the
            others are good.

    Raises:
        BadImage: the file is not a video, has no frame, or breaks off while decoding.
    """
    came, picked = -1, []  # the last number that came
    with _video(), av.open(str(file)) as container:
        container.streams.video[0].thread_type = "NONE"  # one thread: the same bytes on every machine
        for came, frame in enumerate(container.decode(video=0)):
            if came in chosen:
                pixels = frame.to_ndarray(format="rgb24")
                kept = pixels if look is None else look(came, pixels)
                if kept is not None:
                    picked.append((came, png(kept)))
            if came >= chosen[-1]:
                break
    if came < 0:
        raise BadImage("video without frames")
    for number in chosen:
        if number > came and lost is not None:
            lost(number)
    return picked
