"""The one typed loader of params.yaml.

A profile is a section; in it each stage has its own. Unknown keys, wrong types and missing values stop at once, with the
key's full name and what is allowed. PyYAML reads `2e-5` as a string, so numbers are written `2.0e-5`; the loader says so.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.misfits import Choices, explain


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
    fakeclue: (
        str | None
    )  # the release: then all that is trained and tested on; FF++ still serves its benchmarks

    @model_validator(mode="after")
    def _release_stands_alone(self) -> "Corpora":
        beside = [key for key, path in self if path and key not in ("fakeclue", "ffpp")]
        if self.fakeclue and beside:
            raise ValueError(
                f"fakeclue is the released training set as it is: set {', '.join(beside)} to null, or fakeclue"
            )
        return self


class Benchmarks(Section):
    loki: str | None
    dmimage: str | None
    ddvqa: str | None


class Collect(Section):
    corpora: Corpora
    benchmarks: Benchmarks
    # About so many images of a training corpus, drawn by lot; a corpus that is not named comes whole.
    at_most: dict[
        Literal["genimage", "ffpp", "chameleon", "cvusa", "vigor", "m6doc"], Annotated[int, Field(ge=1)]
    ]
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
    """FakeClue's texts are asked for and aggregated here."""

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


class Released(Section):
    """FakeClue's texts and split are those of the release (`collect.corpora.fakeclue`): nobody is asked."""

    aggregator: Literal["released"]
    val_fraction: float = Fraction  # of its training split, by item; the release has no validation split

    @property
    def annotators(self) -> list[Annotator]:
        return []


AGGREGATORS: dict[str, type[Section]] = {"embedding": Annotate, "released": Released}


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
    prompt: Literal["template", "bare"]
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


# How a key chooses among sections: key → what it names, and its values.
UNIONS = {
    "backend": Choices("back end", BACKENDS),
    "aggregator": Choices("aggregator", AGGREGATORS),
}


class Params(Section):
    """One profile's values, plus its name."""

    profile: str
    seed: int
    base: str
    collect: Collect
    # Where a section may be null, the profile leaves its stage out (`parts`).
    categorize: Categorize | None
    annotate: Annotated[Annotate | Released, Field(discriminator="aggregator")]
    study: Study | None
    finetune: Finetune | None
    experts: Experts | None
    evaluate: Evaluate
    robustness: Robustness | None
    report: Report

    @model_validator(mode="after")
    def _fits_together(self) -> "Params":
        released = isinstance(self.annotate, Released)
        if released != bool(self.collect.corpora.fakeclue):
            raise ValueError(
                "annotate.aggregator released and collect.corpora.fakeclue go together: set both or neither"
            )
        if released and (self.collect.synthetic_documents or self.collect.synthetic_satellites):
            raise ValueError("the released FakeClue has its synthetic images: set collect.synthetic_* to 0")
        if self.categorize is None and not released:
            raise ValueError(
                "annotate needs categories: categorize may only be null for the released FakeClue"
            )
        if self.study and not self.finetune:
            raise ValueError("study tunes with finetune's settings: give finetune, or set study to null too")
        return self

    def show(self, stage: str) -> dict[str, Any]:
        """A stage's resolved values, for display at a notebook's top."""
        return {"profile": self.profile, "seed": self.seed, **getattr(self, stage).model_dump()}


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
        raise UserError(
            f"{file.name} does not fit:\n  " + "\n  ".join(explain(error, profile, Params, UNIONS)),
            f"edit {file}",
        ) from error
