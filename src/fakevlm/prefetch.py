"""Ordered, bounded, parallel map: decoding images and videos releases Python's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Each thread holds a decoded image, or the frames of a video: some 80 MB at 1080p.
THREADS = min(4, os.cpu_count() or 1)


def prefetch(function: Callable[[T], R], items: Iterable[T], threads: int = THREADS) -> Iterator[R]:
    """Yield `function(item)` in the items' order, computed in threads, at most `threads` items ahead.

    An exception is raised in its item's turn.
    """
    waiting: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # the caller may have stopped early
        pool.shutdown(cancel_futures=True)
