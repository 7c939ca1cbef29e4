"""The corpora's terms, addresses, layouts and sizes: catalogue.yaml beside this file, typed."""

from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from fakevlm.config.params import Section
from fakevlm.errors import UserError

FILE = Path(__file__).with_suffix(".yaml")


class Part(Section):
    """One folder or file of a layout.

    Attributes:
        path: relative to the corpus's folder; a list gives alternatives; {braces} stand for names that its
            reader knows.
        holds: what must lie there, at least one.
        counts: what it adds to, by name; braces as in the path.
        optional: why it may be missing; None if it may not.
    """

    path: str | list[str]
    holds: Literal["images", "videos", "file"]
    counts: list[str] = Field(default_factory=list)
    optional: str | None = None

    @property
    def paths(self) -> list[str]:
        """All alternatives, the usual one first."""
        return [self.path] if isinstance(self.path, str) else self.path


class Count(Section):
    """How many of something the full corpus has (None: no source says), and who says so."""

    full: int | None = Field(ge=1)
    source: str
    about: bool = False


class Corpus(Section):
    """What is known of one corpus before a byte of it is there."""

    name: str
    licence: str
    url: str
    size: str
    layout: list[Part] = Field(min_length=1)
    counts: dict[str, Count]


@cache
def catalogue(file: Path = FILE) -> dict[str, Corpus]:
    """All corpora by the key that params.yaml gives them.

    Raises:
        UserError: the file is missing, not YAML, or does not fit.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return {key: Corpus(**values) for key, values in content.items()}
    except (OSError, yaml.YAMLError, AttributeError, TypeError, ValidationError) as error:
        raise UserError(f"{file} does not fit: {error}", "restore it with `git checkout`") from error
