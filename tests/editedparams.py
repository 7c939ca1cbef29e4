"""Copies of params.yaml with one value changed, and what the loader says of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT
from fakevlm.config.params import load_params
from fakevlm.errors import UserError

KEEP = object()


def edited(tmp_path: Path, key: str, value: Any, name: str | None = None) -> Path:
    """A copy of params.yaml in which `key` (dotted, numbers index lists) has another value or name."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    section = content
    for part in path:
        section = section[part]
    value = section[last] if value is KEEP else value
    if name:
        del section[last]
    section[name or last] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def message(file: Path, profile: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_params(profile, file)
    return str(caught.value)
