"""Ground truth of drawn images: their visible artifacts and plausible qualities. Real corpora have none."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import TypeAdapter

from fakevlm.errors import UserError


@dataclass(frozen=True, slots=True)
class Artifact:
    """One artifact of a fake."""

    __pydantic_config__: ClassVar = {"strict": True, "allow_inf_nan": False}

    kind: str  # key of `clues.KINDS`
    region: tuple[float, float, float, float]  # x0, y0, x1, y1 as fractions of width and height
    strength: float  # 0 (invisible) to 1 (glaring)


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The ground truth of one image."""

    __pydantic_config__: ClassVar = {"strict": True}

    path: str  # the record's
    label: Literal[0, 1]  # 1 real, 0 fake
    category: str  # of `records.CATEGORIES` (or a benchmark's own)
    artifacts: list[Artifact] = field(default_factory=list)  # those that are visible
    qualities: list[str] = field(default_factory=list)  # keys of `clues.QUALITIES` true of a real image

    @property
    def kinds(self) -> set[str]:
        """The kinds of its artifacts."""
        return {artifact.kind for artifact in self.artifacts}


_LINE = TypeAdapter(GroundTruth)


def write_ground_truth(ground_truths: Iterable[GroundTruth], file: Path) -> None:
    """Write one JSON line an image."""
    lines = [json.dumps(asdict(ground_truth), separators=(",", ":")) + "\n" for ground_truth in ground_truths]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(lines), encoding="utf-8")


def read_ground_truth(file: Path | None) -> dict[str, GroundTruth]:
    """Return the ground truth by path, empty without a file. Raises `UserError` if a line does not parse."""
    if file is None or not file.exists():
        return {}
    ground_truths = {}
    for n, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            ground_truth = _LINE.validate_json(line)
            if ground_truth.path in ground_truths:
                raise ValueError(f"{ground_truth.path} has a line before it")
        except ValueError as error:  # pydantic's is one
            cure = "rerun the stage that writes it"
            raise UserError(f"{file}, line {n}: not a line of ground truth ({error})", cure) from error
        ground_truths[ground_truth.path] = ground_truth
    return ground_truths
