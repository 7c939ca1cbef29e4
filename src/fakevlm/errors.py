"""Errors that speak to the user: what is wrong, where, and what to do about it."""


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
