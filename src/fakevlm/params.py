"""The one typed loader of params.yaml.

A profile is a section; in it each stage has its own. Unknown keys, wrong types and missing values stop at once, with the
key's full name and what is allowed. PyYAML reads `2e-5` as a string, so numbers are written `2.0e-5`; the loader says so.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.explain import explain
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


class FaceCrop(Section):
    """How faces are cut from FF++'s video frames (corpora/faces.py)."""

    detector: Literal["landmarks", "opencv"]
    model: str | None = None  # of opencv: the YuNet file
    score: float = Field(default=0.9, ge=0.0, le=1.0)  # of opencv: the least
    size: int = Field(default=256, ge=16)
    scale: float = Field(default=1.3, ge=1.0)

    @model_validator(mode="after")
    def _model(self) -> "FaceCrop":
        if (self.detector == "opencv") != (self.model is not None):
            raise ValueError("detector opencv needs model, a YuNet file; landmarks has none")
        return self


class Collect(Section):
    corpora: Corpora
    benchmarks: Benchmarks
    truth: str | None
    frames_per_video: int = Field(ge=1)
    face_crop: FaceCrop | None
    synthetic_documents: int = Field(ge=0)
    synthetic_satellites: int = Field(ge=0)
    satellites: Satellites | None
    renderer: Literal["miniature", "fonts"]
    leakage_distance: int = Field(ge=0, le=16)


class Person(Section):
    """When an image shows people, whatever the classifier says (categorize/person.py)."""

    kind: Literal["detector", "head"]
    model: str = Field(min_length=1)
    score: float = Field(gt=0.0, le=1.0)
    min_area: float | None = Field(default=None, gt=0.0, le=1.0)  # of a detector: share of the image

    @model_validator(mode="after")
    def _area(self) -> "Person":
        if (self.kind == "detector") != (self.min_area is not None):
            raise ValueError("kind detector needs min_area, head has none")
        return self


class Categorize(Section):
    model: str | None
    person: Person | None
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


Annotator = Annotated[Observer | Endpoint, Field(discriminator="backend")]


class Embedding(Section):
    """Aggregation by sentence embeddings: offline, nothing to call."""

    backend: Literal["embedding"]
    encoder: str
    similarity: float = Fraction
    critical_similarity: float = Fraction


class ServedAggregator(Endpoint):
    """Aggregation by a language model behind OpenAI-compatible servers."""

    with_image: bool  # whether the model sees the image too; then it must be one that can
    attempts: int = Field(default=3, ge=1)  # answers asked for until one fits the schema


Aggregator = Annotated[Embedding | ServedAggregator, Field(discriminator="backend")]


class Annotate(Section):
    annotators: list[Annotator] = Field(min_length=1)
    aggregator: Aggregator
    min_annotators: int = Field(ge=1)
    concurrency: int = Field(ge=1)
    tagged_sources: list[str]
    balance: bool
    val_fraction: float = Fraction
    test_fraction: float = Fraction


class Study(Section):
    steps: int = Field(ge=1)
    probe_images: int = Field(ge=10)


class DeepSpeed(Section):
    """Training by several processes: how many, where, and what ZeRO spreads over them."""

    stage: Literal[2, 3]  # of ZeRO: 2 spreads gradients and the optimizer's state, 3 the weights as well
    # To the node's memory: the optimizer's state, or that and the weights (stage 3).
    offload: Literal["optimizer", "parameters"] | None = None
    processes: int = Field(ge=1)  # a node; one a GPU
    nodes: int = Field(default=1, ge=1)
    hostfile: str | None = (
        None  # DeepSpeed's: a line `name slots=8` a node; null: this machine alone, or Slurm
    )

    @model_validator(mode="after")
    def _offloadable(self) -> "DeepSpeed":
        if self.offload == "parameters" and self.stage != 3:
            raise ValueError("offload: parameters needs stage: 3; stage 2 keeps all weights on every GPU")
        return self

    @property
    def ranks(self) -> int:
        """Processes in all."""
        return self.processes * self.nodes


class Finetune(Section):
    epochs: float = Field(gt=0)
    batch_size: int = Field(ge=1)
    gradient_accumulation: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    vision_learning_rate: float | None = Field(gt=0)  # of the vision tower; null: learning_rate
    warmup_ratio: float = Fraction
    weight_decay: float = Field(ge=0)
    precision: Literal["fp32", "bf16"]
    max_length: int = Field(ge=16)
    train_vision: bool
    train_projector: bool
    train_llm: bool
    mirror: bool
    gradient_checkpointing: bool
    checkpoint_every: int = Field(ge=1)
    deepspeed: DeepSpeed | None  # null: in one process

    @property
    def ranks(self) -> int:
        """Processes that train together; a step sees the batches of all of them."""
        return self.deepspeed.ranks if self.deepspeed else 1


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


Engine = Annotated[LocalEngine | RayEngine | ServersEngine, Field(discriminator="kind")]

Benchmark = Literal["fakeclue", "loki", "dmimage", "ddvqa", "ffpp"]


class Baseline(Endpoint):
    """A language model behind servers, asked about the benchmarks' images: a row of Tables 2 and 4."""

    prompt: str | None = Field(default=None, min_length=1)  # null: that of evaluation/baselines/prompts.yaml
    benchmarks: list[Benchmark] | None = Field(default=None, min_length=1)  # null: all


class PublishedExpert(Section):
    """A detector with its authors' weights, or with the scores that it gave elsewhere: a row of Tables 3 and 5."""

    name: str
    kind: Literal["cnnspot", "univfd", "gramnet", "fusing", "lnp"] | None = None
    weights: str | None = None  # the checkpoint as its authors publish it
    features: str | None = (
        None  # univfd: CLIP ViT-L/14, a folder or a name on the hub; lnp: the denoiser's checkpoint
    )
    scores: str | None = None  # instead of all these: a CSV with columns id and p_fake, or id and score
    threshold: float | None = None  # with a column score: fake from here on
    benchmarks: list[Benchmark] | None = Field(default=None, min_length=1)  # null: all

    @model_validator(mode="after")
    def _one_source(self) -> "PublishedExpert":
        if self.scores is not None and (self.kind or self.weights or self.features):
            raise ValueError("give either scores, or kind and weights")
        if self.scores is None and not (self.kind and self.weights):
            raise ValueError("give kind and weights, or scores")
        if (self.features is not None) != (self.kind in ("univfd", "lnp")):
            raise ValueError(
                "features is for kind univfd (its CLIP) and kind lnp (its denoiser), which need it"
            )
        if self.threshold is not None and self.scores is None:
            raise ValueError("threshold is for scores; weights say fake from one half on")
        return self


class Evaluate(Section):
    model: str | None
    engine: Engine
    methods: list[str] = Field(min_length=1)
    baselines: list[Baseline]
    experts: list[PublishedExpert]
    precision: Literal["fp32", "bf16"]
    batch_size: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    encoder: str
    bootstrap: int = Field(ge=0)
    limit: int | None = Field(ge=1)

    @model_validator(mode="after")
    def _one_row_a_name(self) -> "Evaluate":
        names = [*self.methods, *(entry.name for entry in (*self.baselines, *self.experts))]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} appears twice among methods, baselines and experts")
        return self


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
        raise explain(error, Params, profile, file) from error
