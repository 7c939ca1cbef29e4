"""Keys of hosted services, which come from the environment and are kept nowhere."""

import os
from typing import Any

from fakevlm.errors import UserError


def api_key(spec: Any, who: str, entry: str) -> str | None:
    """The key that an entry of params.yaml names; None where it names none, or is no model behind servers.

    Stages look for all keys before their first request: a missing one is better known now than after a night of the others.

    Args:
        spec: the entry.
        who: how errors call it.
        entry: its place in params.yaml.

    Raises:
        UserError: the variable is not set, or holds what no key is.
    """
    variable = getattr(spec, "api_key_env", None)
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii():
        what = "holds letters that no key has" if key else "is not set"
        raise UserError(
            f"{who}: the environment variable {variable} {what}",
            f"export {variable}=… with the server's key, or set {entry}.api_key_env to null",
        )
    return key
