"""Which kinds of artifact (keys of `fakevlm.data.clues.KINDS`) can go wrong where (see fitting.yaml)."""

from pathlib import Path

import yaml

_YAML = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
FITTING: dict[str, tuple[str, ...]] = {name: tuple(kinds) for name, kinds in _YAML["fitting"].items()}
MANIPULATIONS: dict[str, tuple[str, ...]] = {n: tuple(kinds) for n, kinds in _YAML["manipulations"].items()}
OBJECTS: dict[str, tuple[str, ...]] = {name: tuple(kinds) for name, kinds in _YAML["objects"].items()}
