"""The one typed loader of params.yaml.

A profile is a section; in it each stage has its own. Unknown keys, wrong types and missing values stop at once, with the
key's full name and what is allowed. PyYAML reads `2e-5` as a string, so numbers are written `2.0e-5`; the loader says so.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, field_validator

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.sections import Satellites, Section

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
    satellites: Satellites | None
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


class Observer(Section):
    """A scripted observer of the miniature; `name` says which."""

    name: str
    backend: Literal["observer"]


class Endpoint(Section):
    """A model behind OpenAI-compatible servers: vLLM, SGLang, a hosted API."""

    name: str  # as tables call it
    backend: Literal["endpoint"]
    model: str = Field(min_length=1)  # as the server calls it
    # A commit or tag: no server tells it, and other weights give other answers.
    revision: str = Field(min_length=1)
    urls: list[str] = Field(min_length=1)  # one a replica, with its /v1
    # The NAME of the environment variable that holds the key; null: none is needed.
    api_key_env: str | None = None
    max_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0.0, le=2.0)
    seed: int | None = None  # null: the profile's
    # Over all replicas; null: annotate.concurrency.
    concurrency: int | None = Field(default=None, ge=1, le=1000)
    timeout: float = Field(default=300.0, gt=0)  # seconds for one request
    retries: int = Field(default=5, ge=0)  # after the first attempt
    price_input: float | None = Field(default=None, ge=0)  # per million tokens, in whatever currency
    price_output: float | None = Field(default=None, ge=0)
    gpus: int = Field(default=1, ge=1)  # of one replica
    requests_per_second: float | None = Field(default=None, gt=0)  # that one replica answers, as measured

    @field_validator("urls")
    @classmethod
    def _addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
                raise ValueError(f"{url!r} is no server's address such as http://localhost:8000/v1")
            if parts.username or parts.password:
                raise ValueError("an address must not hold a password: name its variable in api_key_env")
        if len(set(urls)) < len(urls):
            raise ValueError(
                "an address appears twice: name each replica once, and raise concurrency instead"
            )
        return urls

    @field_validator("api_key_env")
    @classmethod
    def _variable(cls, name: str | None) -> str | None:
        # The value is not repeated: whoever puts the key itself here must not find it in a log.
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
            raise ValueError("give the NAME of an environment variable (capitals), never the key itself")
        return name


BACKENDS: dict[str, type[Section]] = {"observer": Observer, "endpoint": Endpoint}
Annotator = Annotated[Observer | Endpoint, Field(discriminator="backend")]


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
        kind, path = problem["type"], _as_written(problem["loc"])
        where = ".".join([profile, *(str(part) for part in path)])
        if kind == "extra_forbidden":
            allowed = _allowed(problem["loc"][:-1])
            whose = [
                name
                for name, keys in BACKENDS.items()
                if len(path) < len(problem["loc"]) and path[-1] in keys.model_fields
            ]
            belongs = f" of back end {problem['loc'][-2]} (it belongs to {', '.join(whose)})" if whose else ""
            lines.append(f"{where}: unknown key{belongs}; allowed here: {', '.join(allowed)}")
        elif kind == "missing":
            lines.append(f"{where}: missing")
        elif kind == "union_tag_not_found":
            lines.append(f"{where}.backend: missing; allowed here: {', '.join(BACKENDS)}")
        elif kind == "union_tag_invalid":
            given = problem["ctx"]["tag"]
            lines.append(
                f"{where}.backend: no such back end; allowed here: {', '.join(BACKENDS)}, got {given!r}"
            )
        elif kind == "value_error":  # ours: it says all there is to say
            lines.append(f"{where}: {problem['ctx']['error']}")
        else:
            given = problem.get("input")
            hint = ""
            if isinstance(given, str) and kind.startswith("float"):
                hint = " (YAML reads 2e-5 as text: write 2.0e-5)"
            lines.append(f"{where}: {problem['msg']}, got {given!r}{hint}")
    return UserError(f"{file.name} does not fit:\n  " + "\n  ".join(lines), f"edit {file}")


def _as_written(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """A problem's place as params.yaml has it: pydantic puts the back end's name behind an annotator's number."""
    tagged = loc[:2] == ("annotate", "annotators") and len(loc) > 3
    return (*loc[:3], *loc[4:]) if tagged else loc


def _allowed(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Params
    for part in loc:
        if isinstance(part, int):
            continue
        if part in BACKENDS:
            model = BACKENDS[part]
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
