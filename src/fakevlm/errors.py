"""Errors that speak to the user: what is wrong, where, and what to do about it."""

import re
import shutil
from pathlib import Path

_REFUSED = re.compile("No space left on device|Disk quota exceeded|Permission denied|Read-only file system")
GO_ON = "cure that; the next run goes on from here"


class UserError(Exception):
    """A mistake the user can cure. Its message is all the user sees; the stage runner prints no traceback.

    Args:
        what: what is wrong, naming the file, key or value.
        cure: what to do about it.
        away: a server cannot be reached; others may finish first. No class of its own, since from a notebook
            only an error's name arrives.
    """

    def __init__(self, what: str, cure: str = "", away: bool = False) -> None:
        super().__init__(f"{what}\n  → {cure}" if cure else what)
        self.what = what
        self.cure = cure
        self.away = away


def refused(text: str, folder: Path) -> str:
    """Return why the machine did not let `folder` be written, judging by an error's text; else "".

    Of a full disk a library may say only "Operation on closed file" or "unexpected pos 576 vs 534".
    """
    if reason := _REFUSED.search(text):
        return reason[0]
    return "No space left on device" if shutil.disk_usage(folder).free < 2**20 else ""
