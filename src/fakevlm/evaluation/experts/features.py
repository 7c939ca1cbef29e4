"""Features of all images in a file that has no name: only a block of them is in memory, and nothing is left behind."""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK_BYTES = 32 << 20  # of features in memory at a time: all of the miniature's


class Features:
    """(n, d) float32 in a file, read in order any number of times; see `kept`.

    Read and not mapped into memory, since pages of a map count as the process's own.
    """

    def __init__(self, file: BinaryIO, count: int, width: int) -> None:
        self._file, self._count, self.width = file, count, width

    def __len__(self) -> int:
        return self._count

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Where each block stands among the rows, and the block: (k, d) float32."""
        most = max(1, BLOCK_BYTES // (4 * self.width))
        for start in range(0, self._count, most):
            block = np.empty((min(most, self._count - start), self.width), np.float32)
            self._file.seek(4 * self.width * start)
            self._file.readinto(block.data.cast("B"))
            yield slice(start, start + len(block)), block

    def change(self, to: Callable[[np.ndarray], np.ndarray]) -> None:
        """Puts `to(block)`, of the same shape, in the place of every block."""
        for where, block in self.blocks():
            self._file.seek(4 * self.width * where.start)
            self._file.write(to(block).astype(np.float32, "C").data)


@contextmanager
def kept(rows: Iterable[np.ndarray], folder: Path) -> Iterator[Features]:
    """Features in a file that goes with the context, or with the process.

    Args:
        rows: (k, d) float32 arrays, any k.
        folder: where there is room for n · d · 4 bytes.
    """
    count = width = 0
    with tempfile.TemporaryFile(dir=folder) as file:
        for block in rows:
            file.write(block.astype(np.float32, "C").data)
            count, width = count + len(block), block.shape[1]
        yield Features(file, count, width)
