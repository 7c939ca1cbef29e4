"""The one typed loader of params.yaml.

A profile is a section; in it each stage has its own. Unknown keys, wrong types and missing values stop at once, with the
key's full name and what is allowed. PyYAML reads `2e-5` as a string, so numbers are written `2.0e-5`; the loader says so.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

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


def _addresses(urls: list[str]) -> list[str]:
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise ValueError(f"{url!r} is no server's address such as http://localhost:8000/v1")
        if parts.username or parts.password:
            raise ValueError("an address must not hold a password: name its variable in api_key_env")
    if len(set(urls)) < len(urls):
        raise ValueError("an address appears twice: name each replica once, and raise concurrency instead")
    return urls


def _variable(name: str | None) -> str | None:
    # The value is not repeated: whoever puts the key itself here must not find it in a log.
    if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):
        raise ValueError("give the NAME of an environment variable (capitals), never the key itself")
    return name


# Replicas of one model, each with its /v1; the NAME of the variable that holds their key, null where none is needed.
Addresses = Annotated[list[str], Field(min_length=1), AfterValidator(_addresses)]
KeyVariable = Annotated[str | None, AfterValidator(_variable)]


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
    urls: Addresses
    api_key_env: KeyVariable = None
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


class LocalEngine(Section):  # language models answer in this process
    kind: Literal["local"]


class RayEngine(Section):
    """Language models answer in worker processes of a Ray cluster, each of which loads the model once."""

    kind: Literal["ray"]
    address: str | None  # null: a cluster of this machine, for the run alone; auto; host:port
    workers: int = Field(ge=1, le=4096)
    gpus_per_worker: float = Field(ge=0)


class ServersEngine(Section):
    """FakeVLM behind vLLM or SGLang servers; `evaluate.model` names the same weights, for their tokenizer and template."""

    kind: Literal["servers"]
    urls: Addresses
    model: str = Field(min_length=1)  # as the servers call it
    api_key_env: KeyVariable = None
    concurrency: int = Field(default=64, ge=1, le=1000)  # requests under way, over all replicas
    timeout: float = Field(default=300.0, gt=0)  # seconds for one request
    retries: int = Field(default=5, ge=0)
    top_logprobs: int = Field(default=20, ge=2)  # likeliest tokens asked for at each place


ENGINES: dict[str, type[Section]] = {"local": LocalEngine, "ray": RayEngine, "servers": ServersEngine}
Engine = Annotated[LocalEngine | RayEngine | ServersEngine, Field(discriminator="kind")]


class Evaluate(Section):
    model: str | None
    engine: Engine
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
            belongs = ""
            if len(path) < len(problem["loc"]) and (kinds := _kinds(problem["loc"])):
                whose = ", ".join(name for name, k in kinds.classes.items() if path[-1] in k.model_fields)
                belongs = f" of {kinds.noun} {problem['loc'][-2]} (it belongs to {whose})" if whose else ""
            lines.append(f"{where}: unknown key{belongs}; allowed here: {', '.join(allowed)}")
        elif kind == "missing":
            lines.append(f"{where}: missing")
        elif kind == "union_tag_not_found":
            kinds = _kinds(problem["loc"])
            lines.append(f"{where}.{kinds.key}: missing; allowed here: {', '.join(kinds.classes)}")
        elif kind == "union_tag_invalid":
            kinds, given = _kinds(problem["loc"]), problem["ctx"]["tag"]
            allowed = ", ".join(kinds.classes)
            lines.append(f"{where}.{kinds.key}: no such {kinds.noun}; allowed here: {allowed}, got {given!r}")
        elif kind == "value_error":  # ours: it says all there is to say
            lines.append(f"{where}: {problem['ctx']['error']}")
        else:
            given = problem.get("input")
            hint = ""
            if isinstance(given, str) and kind.startswith("float"):
                hint = " (YAML reads 2e-5 as text: write 2.0e-5)"
            lines.append(f"{where}: {problem['msg']}, got {given!r}{hint}")
    return UserError(f"{file.name} does not fit:\n  " + "\n  ".join(lines), f"edit {file}")


class _Kinds(NamedTuple):
    """A section of which there are several kinds."""

    place: tuple[str, ...]
    depth: int  # keys and numbers that lead to it
    key: str  # which says the kind
    noun: str
    classes: dict[str, type[Section]]


_KINDS = (
    _Kinds(("annotate", "annotators"), 3, "backend", "back end", BACKENDS),
    _Kinds(("evaluate", "engine"), 2, "kind", "engine", ENGINES),
)


def _kinds(loc: tuple[Any, ...]) -> _Kinds | None:
    return next((kinds for kinds in _KINDS if loc[: len(kinds.place)] == kinds.place), None)


def _as_written(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """A problem's place as params.yaml has it: pydantic puts a section's kind behind its name (or number)."""
    kinds = _kinds(loc)
    return (*loc[: kinds.depth], *loc[kinds.depth + 1 :]) if kinds and len(loc) > kinds.depth else loc


def _allowed(loc: tuple[Any, ...]) -> list[str]:
    model: Any = Params
    kinds = _kinds(loc)
    for depth, part in enumerate(loc):
        if kinds and depth == kinds.depth:
            model = kinds.classes[part]
        elif not isinstance(part, int):
            annotation = model.model_fields[part].annotation
            model = getattr(annotation, "__args__", (annotation,))[0]
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
