"""The one typed loader of params.yaml.

A profile is a section; in it each stage has its own. Unknown keys, wrong types and missing values stop at once, with the
key's full name and what is allowed. PyYAML reads `2e-5` as a string, so numbers are written `2.0e-5`; the loader says so.
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fakevlm import paths
from fakevlm.errors import UserError


class Section(BaseModel):
    """A section that knows its keys: nothing unknown, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Fraction = Field(ge=0.0, le=1.0)


class Corpora(Section):
    genimage: str | None
    ffpp: str | None
    chameleon: str | None
    cvusa: str | None
    vigor: str | None
    m6doc: str | None


class Benchmarks(Section):
    loki: str | None
    dmimage: str | None
    ddvqa: str | None


class Collect(Section):
    corpora: Corpora
    benchmarks: Benchmarks
    truth: str | None
    frames_per_video: int = Field(ge=1)
    synthetic_documents: int = Field(ge=0)
    synthetic_satellites: int = Field(ge=0)
    renderer: Literal["miniature", "fonts"]
    leakage_distance: int = Field(ge=0, le=16)


class Categorize(Section):
    model: str | None
    image_size: int = Field(ge=16)
    patch_size: int = Field(ge=2)
    width: int = Field(ge=8)
    depth: int = Field(ge=1)
    heads: int = Field(ge=1)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)


class Annotator(Section):
    name: str
    backend: Literal["observer"]


class Annotate(Section):
    annotators: list[Annotator] = Field(min_length=1)
    aggregator: Literal["embedding"]
    encoder: str
    similarity: float = Fraction
    critical_similarity: float = Fraction
    min_annotators: int = Field(ge=1)
    concurrency: int = Field(ge=1)
    tagged_sources: list[str]
    balance: bool
    val_fraction: float = Fraction
    test_fraction: float = Fraction


class Study(Section):
    steps: int = Field(ge=1)
    probe_images: int = Field(ge=10)


class Finetune(Section):
    epochs: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    gradient_accumulation: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup_ratio: float = Fraction
    weight_decay: float = Field(ge=0)
    precision: Literal["fp32", "bf16"]
    max_length: int = Field(ge=16)
    train_vision: bool
    train_projector: bool
    train_llm: bool
    gradient_checkpointing: bool
    checkpoint_every: int = Field(ge=1)
    deepspeed: str | None


class CNNSpotSettings(Section):
    model: str | None
    layers: list[int] = Field(min_length=4, max_length=4)
    width: int = Field(ge=4)
    size: int = Field(ge=32)
    crop: int = Field(ge=32)
    augment: float = Fraction


class Experts(Section):
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    cnnspot: CNNSpotSettings
    spectrum_size: int = Field(ge=16, multiple_of=16)


class Evaluate(Section):
    model: str | None
    methods: list[str] = Field(min_length=1)
    precision: Literal["fp32", "bf16"]
    batch_size: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    encoder: str
    bootstrap: int = Field(ge=0)
    limit: int | None = Field(ge=1)


class Robustness(Section):
    images: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    jpeg: list[int]
    resize: list[float]
    blur: list[float]
    noise: list[int]
    crop: list[float]


class Report(Section):
    cases: int = Field(ge=1)


class Params(Section):
    """One profile's values, plus its name."""

    profile: str
    seed: int
    base: str
    collect: Collect
    categorize: Categorize
    annotate: Annotate
    study: Study
    finetune: Finetune
    experts: Experts
    evaluate: Evaluate
    robustness: Robustness
    report: Report

    def show(self, stage: str) -> dict[str, Any]:
        """A stage's resolved values, for display at a notebook's top."""
        return {"profile": self.profile, "seed": self.seed, **getattr(self, stage).model_dump()}


def _explain(error: ValidationError, profile: str, file: Path) -> UserError:
    lines = []
    for problem in error.errors():
        where = ".".join([profile, *(str(part) for part in problem["loc"])])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key; allowed here: {', '.join(_allowed(problem['loc'][:-1]))}")
        elif problem["type"] == "missing":
            lines.append(f"{where}: missing")
        else:
            given = problem.get("input")
            hint = ""
            if isinstance(given, str) and problem["type"].startswith("float"):
                hint = " (YAML reads 2e-5 as text: write 2.0e-5)"
            lines.append(f"{where}: {problem['msg']}, got {given!r}{hint}")
    return UserError(f"{file.name} does not fit:\n  " + "\n  ".join(lines), f"edit {file}")


def _allowed(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Params
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        inner = getattr(annotation, "__args__", None)
        model = inner[0] if inner else annotation
    return [name for name in model.model_fields if name != "profile"]


def load_params(profile: str | None = None, file: Path | None = None) -> Params:
    """The values of `profile` (default: the one that params.yaml names).

    Raises:
        UserError: the file is missing or not YAML, the profile unknown, a key unknown, mistyped or missing.
    """
    file = file or paths.root() / "params.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(
            f"{file} is not readable YAML: {error}", "restore it with `git checkout params.yaml`"
        ) from error
    content = content if isinstance(content, dict) else {}
    profiles = [name for name in content if name != "profile"]
    profile = profile or content.get("profile")
    if profile not in profiles:
        raise UserError(f"{file.name}: no profile {profile!r}", f"choose one of: {', '.join(profiles)}")
    values = content[profile]
    if not isinstance(values, dict):
        raise UserError(f"{file.name}: profile {profile!r} is not a section of keys", f"edit {file}")
    try:
        return Params(profile=profile, **values)
    except ValidationError as error:
        raise _explain(error, profile, file) from error
