"""A process that is killed, as the tests play it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def killed_after(calls: int, owner: Any, name: str) -> Iterator[None]:
    """What runs within is killed when it calls a function of `owner` once more than so many times."""
    function, left = getattr(owner, name), iter(range(calls))

    def dying(*args: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return function(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(KeyboardInterrupt):
            yield
