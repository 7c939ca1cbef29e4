"""Progress with a rate and the time remaining: in a terminal, in JupyterLab and in a log file alike.

Everything goes to stderr, which the stage runner shows live and drops from the executed notebooks.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


class _Lines:
    """A stream that ends every update with a newline: a log file or a pipe has no carriage to return."""

    def __init__(self, stream) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        text = text.strip("\r\n \x1b[A")
        if text:
            self.stream.write(text + "\n")

    def flush(self) -> None:
        self.stream.flush()


def bar(total: int | None, desc: str, unit: str = "img", shown: bool = True) -> tqdm:
    """A bar to be updated by hand; use as a context manager. In pipes and logs: one line every 5 seconds.

    Of several processes at the same work only one has its bar `shown`.
    """
    if sys.stderr.isatty():
        return tqdm(total=total, desc=desc, unit=unit, dynamic_ncols=True, disable=not shown)
    lines = _Lines(sys.stderr)
    return tqdm(
        total=total, desc=desc, unit=unit, file=lines, ncols=120, mininterval=5, delay=2, disable=not shown
    )


def say(text: str) -> None:
    """A line on stderr that leaves the bars whole."""
    tqdm.write(text, file=sys.stderr)


def track(items: Iterable[T], desc: str, total: int | None = None, unit: str = "img") -> Iterator[T]:
    """Yields the items, reporting progress."""
    if total is None and hasattr(items, "__len__"):
        total = len(items)  # type: ignore[arg-type]
    with bar(total, desc, unit) as progress:
        for item in items:
            yield item
            progress.update()
