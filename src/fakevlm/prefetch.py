"""Work on several items at a time, in threads: decoding images and videos lets go of Python's lock."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Few: each thread holds a decoded image, or the frames of a video, which at 1080p are some 80 MB.
THREADS = min(4, os.cpu_count() or 1)


def ahead(work: Callable[[T], R], items: Iterable[T], threads: int = THREADS) -> Iterator[R]:
    """What `work` makes of every item, in the items' order, whatever the number of threads.

    Items are taken one by one, `threads` of them ahead of what was asked for. An exception comes in its item's turn.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # nobody asks any more
            for future in waiting:
                future.cancel()
