"""Copies of params.yaml with one value changed, and what the loader says of them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import ROOT
from fakevlm.config.params import load_params
from fakevlm.errors import UserError


def edited(tmp_path: Path, key: str, value: Any) -> Path:
    """Copy params.yaml with another value of `key` (dotted, numbers index lists)."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    section = content
    for part in path:
        section = section[part]
    section[last] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def message(file: Path, profile: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_params(profile, file)
    return str(caught.value)
