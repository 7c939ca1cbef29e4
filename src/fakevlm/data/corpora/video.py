"""Frames of a video."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np

from fakevlm.data.corpora.files import BadImage


def spaced(total: int, wanted: int) -> list[int]:
    """Return `wanted` indices evenly spaced over `total`, first and last included; all if fewer.

    The same frames as DeepfakeBench's `fixed_num_frames`.
    """
    return np.unique(np.linspace(0, total - 1, wanted, dtype=int)).tolist() if total else []


@contextmanager
def _opened(file: Path) -> Iterator[av.container.InputContainer]:
    """Open a video; whatever a broken file raises becomes `BadImage`."""
    try:
        with av.open(str(file)) as container:
            yield container
    except (av.FFmpegError, IndexError, OSError, ValueError) as error:
        raise BadImage(f"video does not decode: {type(error).__name__}") from error


def numbers(file: Path, wanted: int) -> list[int]:
    """Return the numbers (from 0) of `wanted` evenly spaced frames of a video; nothing is decoded.

    Raises:
        BadImage: the file is not a video or has no frame.
    """
    with _opened(file) as container:
        stream = container.streams.video[0]
        # The header's number when there is one; otherwise count packets, which needs no decoding.
        total = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
    if not total:
        raise BadImage("video without frames")
    return spaced(total, wanted)


def frames(file: Path, chosen: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (number from 0, (H, W, 3) uint8 RGB) of the chosen frames of a video.

    A header may promise more frames than come; those are left out.

    Args:
        file: of the video.
        chosen: numbers of frames, ascending; at least one.

    Raises:
        BadImage: the file is not a video, or breaks off while decoding.
    """
    with _opened(file) as container:
        container.streams.video[0].thread_type = "NONE"  # one thread: the same bytes on every machine
        for number, frame in enumerate(container.decode(video=0)):
            if number in chosen:
                yield number, frame.to_ndarray(format="rgb24")
            if number >= chosen[-1]:
                break
