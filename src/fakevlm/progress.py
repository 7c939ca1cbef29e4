"""Progress with a rate and the time remaining: in a terminal, in JupyterLab and in a log file alike.

Everything goes to stderr, which the stage runner shows live and drops from the executed notebooks.
"""

import operator
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

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
    """Return a bar to be updated by hand, a context manager. In pipes and logs: one line every 5 seconds.

    Of several processes at the same work only one has its bar `shown`.
    """
    options: dict[str, Any] = {"total": total, "desc": desc, "unit": unit, "disable": not shown}
    if sys.stderr.isatty():
        return tqdm(**options, dynamic_ncols=True)
    return tqdm(**options, file=_Lines(sys.stderr), ncols=120, mininterval=5, delay=2)


def say(text: str) -> None:
    """Print a line on stderr that leaves the bars whole."""
    tqdm.write(text, file=sys.stderr)


def track(items: Iterable[T], desc: str, total: int | None = None, unit: str = "img") -> Iterator[T]:
    """Yield the items, reporting progress."""
    with bar(total or operator.length_hint(items) or None, desc, unit) as progress:
        for item in items:
            yield item
            progress.update()
