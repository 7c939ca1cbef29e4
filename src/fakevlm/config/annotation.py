"""Annotators and aggregators, scripted, offline or behind servers (annotate)."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from fakevlm.config.base import Fraction, Section
from fakevlm.plugins import REFERENCE


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


# Replicas of one model, each with its /v1; the NAME of the variable that holds their key, null where none is
# needed.
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


class Plugin(Section):
    """Anybody's annotator: called with (this section, ground truth by path, seed)."""

    name: str
    backend: Literal["plugin"]
    object: str = Field(pattern=f"^{REFERENCE}$")  # module:object
    options: dict[str, Any] = Field(default={})  # whatever it reads


Annotator = Annotated[Observer | Endpoint | Plugin, Field(discriminator="backend")]


class Embedding(Section):
    """Aggregation by sentence embeddings: offline, nothing to call."""

    backend: Literal["embedding"]
    encoder: str
    similarity: float = Fraction
    critical_similarity: float = Fraction


class ServedAggregator(Endpoint):
    """Aggregation by a language model behind OpenAI-compatible servers."""

    with_image: bool  # whether the model sees the image too; then it must be one that can
    attempts: int = Field(ge=1)  # answers asked for until one fits the schema


Aggregator = Annotated[Embedding | ServedAggregator, Field(discriminator="backend")]


# What the readers of corpora and the synthesis write as a record's source.
Source = Literal["genimage", "ff++", "chameleon", "satellite", "doc"]


class Annotate(Section):
    """FakeClue's texts are asked for and aggregated here."""

    texts: Literal["asked"]
    annotators: list[Annotator] = Field(min_length=1)
    aggregator: Aggregator
    min_annotators: int = Field(ge=1)
    concurrency: int = Field(ge=1)
    tagged_sources: list[Source]
    balance: bool
    val_fraction: float = Fraction
    test_fraction: float = Fraction

    @model_validator(mode="after")
    def _possible(self) -> "Annotate":
        if self.min_annotators > len(self.annotators):
            raise ValueError(
                f"min_annotators {self.min_annotators} is more than the {len(self.annotators)} annotators: "
                "nothing but glaring artifacts would ever be named"
            )
        if self.val_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"val_fraction and test_fraction make {self.val_fraction + self.test_fraction:g}: "
                "leave something to train on"
            )
        return self


class Released(Section):
    """FakeClue's texts and split are those of the release (`collect.corpora.fakeclue`): nobody is asked."""

    texts: Literal["released"]
    # Of its training split, by item; the release has no validation split.
    val_fraction: float = Field(ge=0.0, lt=1.0)

    @property
    def annotators(self) -> list[Annotator]:
        return []
