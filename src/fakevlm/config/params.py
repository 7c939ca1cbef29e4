"""The one typed loader of params.yaml: a section for each profile, in it one for each stage, in this order.

Unknown keys, wrong types, missing values, and values that can never work together stop at once, with the
key's full name and what is allowed.
"""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import combinations, islice
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, PositiveInt, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from fakevlm import paths, plugins
from fakevlm.errors import UserError

LARGEST = 10_000_000  # of any number but the seed: what is more is a slip, and would fill memory or disk
MOST_VALUES = 100_000  # in params.yaml, an alias counted at each use


class Section(BaseModel):
    """A section of params.yaml: no unknown key, no silent conversion, values that fit together."""

    model_config = {"strict": True, "frozen": True, "allow_inf_nan": False}

    @model_validator(mode="before")
    @classmethod
    def _only_its_keys(cls, values: Any) -> Any:
        given = values if isinstance(values, dict) else {}
        if unknown := [str(key) for key in given if key not in cls.model_fields]:
            allowed = ", ".join(key for key in cls.model_fields if key != "profile")
            raise ValueError(f"unknown key {', '.join(unknown)}; allowed here: {allowed}")
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problems := [*self._senseless(), *self.problems()]:
            raise ValueError("; ".join(problems))
        return self

    def _senseless(self) -> Iterator[str]:
        for key, value in self:
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str) and not each.strip():
                    yield f"{key} is empty: give a value, or null where nothing is meant"
                elif isinstance(each, int | float) and abs(each) > LARGEST and key != "seed":
                    yield f"{key} is {each:g}, and {LARGEST:,} is the most that any number may be"

    def problems(self) -> Iterator[str]:
        """Yield what in this section does not fit together; each value by itself is right by then."""
        yield from ()


Fraction = Field(ge=0.0, le=1.0)
Reference = Annotated[str, Field(pattern=f"^{plugins.REFERENCE}$")]  # module:object

# Channels of a trained layer. With AVX2 and no AVX-512, torch 2.15 (oneDNN 3.13.3) writes outside its memory
# in the backward pass of strided 1 x 1 convolutions in channels-last layout if they are no multiple of 8.
Width = Annotated[int, Field(ge=8, multiple_of=8)]


class Cluster(Section):
    """Worker processes of a Ray cluster (`inference.ray_cluster`); they decide no result."""

    address: str | None  # null: a cluster of this machine, for the run alone; auto; host:port
    workers: int = Field(ge=1, le=4096)
    gpus_per_worker: float = Field(ge=0)


class Other(Section):
    """A corpus or benchmark with your own reader: `module:function`, folder → records."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9_-]*$")
    reader: Reference
    path: str


class Folders(Section):
    """Folders by name, null where one is left out."""

    others: list[Other] | None = None

    def folders(self) -> dict[str, str]:
        """Return the folders that are named, by key."""
        return {key: path for key, path in self if path and key != "others"}


class Corpora(Folders):
    genimage: str | None
    ffpp: str | None
    chameleon: str | None
    cvusa: str | None
    vigor: str | None
    m6doc: str | None
    fakeclue: str | None  # the release: all that is trained and tested on; FF++ serves its benchmarks

    def problems(self) -> Iterator[str]:
        beside = [key for key in self.folders() if key not in ("fakeclue", "ffpp")]
        if self.fakeclue and beside:
            yield f"fakeclue is the released training set, as it is: set {', '.join(beside)} or it to null"


class Benchmarks(Folders):
    loki: str | None
    dmimage: str | None
    ddvqa: str | None


class FaceCrop(Section):
    """How faces are cut from FF++'s video frames (corpora/faces.py)."""

    detector: Literal["landmarks", "opencv"]
    model: str | None = None  # of opencv: the YuNet file
    score: float = Field(ge=0.0, le=1.0)  # of opencv: the least
    size: int = Field(ge=16)  # pixels a side of the crop
    scale: float = Field(ge=1.0)  # side of the crop over side of the face

    def problems(self) -> Iterator[str]:
        if (self.detector == "opencv") != (self.model is not None):
            yield "detector opencv needs model, a YuNet file; landmarks has none"


class GAN(Section):
    """Of pix2pix (`synthesis.satellite.gan`)."""

    images: int = Field(ge=0)
    width: Width
    depth: int = Field(ge=1)
    crop: int = Field(ge=16)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    l1_weight: float = Field(ge=0)


class Diffusion(Section):
    """Of the conditional DDPM (`synthesis.satellite.diffusion`)."""

    images: int = Field(ge=0)
    widths: list[Width] = Field(min_length=1)
    fold: int = Field(ge=1)
    attention: bool
    crop: int = Field(ge=16)
    steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    sampling_steps: int = Field(ge=1, le=1000)


class Satellites(Section):
    weights: str | None  # a folder with trained generators; null: they are trained
    image_size: int = Field(ge=32)
    cell: int = Field(ge=2)
    levels: int = Field(ge=2, le=256)
    learn_share: float = Field(gt=0, lt=1)
    checkpoint_every: int = Field(ge=1)
    sampled_at_once: int = Field(ge=1)
    jpeg: list[Annotated[int, Field(ge=1, le=100)]] = Field(min_length=2, max_length=2)
    gan: GAN
    diffusion: Diffusion

    def problems(self) -> Iterator[str]:
        gan, diffusion = self.gan, self.diffusion
        folded = diffusion.fold * 2 ** (len(diffusion.widths) - 1)
        for name, crop, halved in (("gan", gan.crop, 2**gan.depth), ("diffusion", diffusion.crop, folded)):
            step = math.lcm(self.cell, halved)
            if self.image_size % step or crop % step or crop > self.image_size:
                sizes = f"image_size {self.image_size} and {name}.crop {crop} must be multiples of {step}"
                yield f"{sizes} (of cell and of what the network halves), the crop no larger than the image"
        if self.jpeg[0] > self.jpeg[1]:
            yield "jpeg is the lowest quality, then the highest"


def _renderer(name: str) -> str:
    if name not in plugins.RENDERERS and not re.fullmatch(plugins.REFERENCE, name):
        names = ", ".join(plugins.RENDERERS)
        raise ValueError(f"no renderer is called {name!r}; allowed here: {names}, or module:object")
    return name


class Collect(Section):
    corpora: Corpora
    benchmarks: Benchmarks
    # About so many images of a training corpus, drawn by lot; a corpus that is not named comes whole.
    at_most: dict[Literal["genimage", "ffpp", "chameleon", "cvusa", "vigor", "m6doc"], PositiveInt]
    ground_truth: str | None
    frames_per_video: int = Field(ge=1)
    face_crop: FaceCrop | None
    synthetic_documents: int = Field(ge=0)
    synthetic_satellites: int = Field(ge=0)
    satellites: Satellites | None
    renderer: Annotated[str, AfterValidator(_renderer)]
    leakage_distance: int = Field(ge=0, le=16)

    def problems(self) -> Iterator[str]:
        if self.benchmarks.ddvqa and not self.corpora.ffpp:
            yield "benchmarks.ddvqa needs corpora.ffpp, which has its frames: name both or neither"
        if self.synthetic_satellites and self.renderer == "fonts":
            yield "renderer fonts draws documents only: set synthetic_satellites to 0; `satellites` are extra"


class Person(Section):
    """When an image shows people, whatever the classifier says (categorize/person.py)."""

    kind: Literal["detector", "head"]
    model: str = Field(min_length=1)
    score: float = Field(gt=0.0, le=1.0)
    min_area: float | None = Field(default=None, gt=0.0, le=1.0)  # of a detector: share of the image

    def problems(self) -> Iterator[str]:
        if (self.kind == "detector") != (self.min_area is not None):
            yield "kind detector needs min_area, head has none"


class Categorize(Section):
    model: str | None
    person: Person | None
    image_size: int = Field(ge=16)
    patch_size: int = Field(ge=2)
    width: Width
    depth: int = Field(ge=1)
    heads: int = Field(ge=1)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)

    def problems(self) -> Iterator[str]:
        if self.image_size % self.patch_size:
            yield f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}"
        # Rotary embeddings take a head's channels by fours: sine and cosine of two directions.
        if self.width % (4 * self.heads):
            yield f"width {self.width} must be a multiple of 4 × heads, which is {4 * self.heads}"


def _addresses(urls: list[str]) -> list[str]:
    urls = [url.strip().rstrip("/").removesuffix("/chat/completions") for url in urls]
    for url in urls:
        parts = urlsplit(url)
        ends_early = parts.port != 0 and not (parts.query or parts.fragment or re.search(r"\s", url))
        if parts.scheme not in ("http", "https") or not parts.hostname or not ends_early:
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


# Replicas of one model, each with its /v1; the NAME of the variable that holds their key, if there is one.
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
    concurrency: int | None = Field(default=None, ge=1, le=1000)  # in all; null: annotate.concurrency
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
    object: Reference
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


def _twice(names: Sequence[str]) -> str:
    return ", ".join(sorted({name for name in names if names.count(name) > 1}))


class Annotate(Section):
    """FakeClue's texts are asked for and aggregated here."""

    texts: Literal["asked"]
    annotators: list[Annotator] = Field(min_length=1)
    aggregator: Aggregator
    min_annotators: int = Field(ge=1)
    concurrency: int = Field(ge=1)
    tagged_sources: list[Source]
    expected: str | None  # a CSV of ids and splits that the result is compared with
    balance: bool
    val_fraction: float = Fraction
    test_fraction: float = Fraction

    def problems(self) -> Iterator[str]:
        if self.min_annotators > len(self.annotators):
            more = f"min_annotators {self.min_annotators} is more than the {len(self.annotators)} annotators"
            yield f"{more}: nothing but glaring artifacts would ever be named"
        if twice := _twice([annotator.name for annotator in self.annotators]):
            yield f"annotators: {twice} appears twice; give each its own name"
        if (total := self.val_fraction + self.test_fraction) >= 1:
            yield f"val_fraction and test_fraction make {total:g}: leave something to train on"


class Released(Section):
    """FakeClue's texts and split are those of the release (`collect.corpora.fakeclue`): nobody is asked."""

    texts: Literal["released"]
    val_fraction: float = Field(ge=0.0, lt=1.0)  # of its training split, by group; it has none of its own

    @property
    def annotators(self) -> list[Annotator]:
        return []


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
    hostfile: str | None = None  # a line `name slots=8` a node; null: this machine alone, or Slurm

    def problems(self) -> Iterator[str]:
        if self.offload == "parameters" and self.stage != 3:
            yield "offload: parameters needs stage: 3; stage 2 keeps all weights on every GPU"

    @property
    def ranks(self) -> int:
        """Processes in all."""
        return self.processes * self.nodes


class Training(Section):
    """What the trainings of stages study and finetune share."""

    batch_size: int = Field(ge=1)
    gradient_accumulation: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    vision_learning_rate: float | None = Field(gt=0)  # of the vision tower; null: learning_rate
    warmup_ratio: float = Field(ge=0, lt=1)
    weight_decay: float = Field(ge=0)
    precision: Literal["fp32", "bf16"]
    max_length: int = Field(ge=16)
    train_vision: bool
    train_projector: bool
    train_llm: bool
    mirror: bool
    gradient_checkpointing: bool
    compile: bool  # the language model's layers, by torch.compile
    checkpoint_every: int = Field(ge=1)
    deepspeed: DeepSpeed | None  # null: in one process

    def problems(self) -> Iterator[str]:
        if self.vision_learning_rate is not None and not self.train_vision:
            cure = "set train_vision: true, or vision_learning_rate: null"
            yield f"vision_learning_rate is set, but the vision tower is frozen: {cure}"

    @property
    def ranks(self) -> int:
        """Processes that train together; a step sees the batches of all of them."""
        return self.deepspeed.ranks if self.deepspeed else 1


class Finetune(Section):
    epochs: float = Field(gt=0)


class CNNSpotSettings(Section):
    model: str | None
    layers: list[int] = Field(min_length=4, max_length=4)
    width: Width
    size: int = Field(ge=32)
    crop: int = Field(ge=32)
    augment: float = Fraction

    def problems(self) -> Iterator[str]:
        if self.crop > self.size:
            yield f"crop {self.crop} must be no larger than size {self.size}, out of which it is cut"


class Experts(Section):
    train: list[Literal["cnnspot", "univfd", "frequency"]] = Field(min_length=1)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    precision: Literal["fp32", "bf16"]
    cnnspot: CNNSpotSettings
    spectrum_size: int = Field(ge=16, multiple_of=16)

    def problems(self) -> Iterator[str]:
        if twice := _twice(self.train):
            yield f"train names {twice} twice"


class Servers(Section):
    """FakeVLM behind vLLM or SGLang servers; `evaluate.model` names the same weights."""

    urls: Addresses
    model: str = Field(min_length=1)  # as the servers call it
    api_key_env: KeyVariable = None
    concurrency: int = Field(default=64, ge=1, le=1000)  # requests under way, over all replicas
    timeout: float = Field(default=300.0, gt=0)  # seconds for one request
    retries: int = Field(default=5, ge=0)
    top_logprobs: int = Field(ge=2)  # likeliest tokens asked for at each place


Method = Literal[
    "FakeVLM",
    "FakeVLM (authors' prompt)",
    "LLaVA (untuned)",
    "LLaVA + Linear Head",
    "CNNSpot",
    "UnivFD",
    "Frequency",
]
# The section whose stage makes a method's weights; FakeVLM's may also come from `evaluate.model`.
MAKERS = {"LLaVA + Linear Head": "finetune", **dict.fromkeys(("CNNSpot", "UnivFD", "Frequency"), "experts")}

Benchmark = Literal["fakeclue", "loki", "dmimage", "ddvqa", "ffpp"]


class Baseline(Endpoint):
    """A language model behind servers, asked about the benchmarks' images: a row of Tables 2 and 4."""

    prompt: str | None = Field(default=None, min_length=1)  # null: that of evaluation/baselines.yaml
    benchmarks: list[Benchmark] | None = Field(default=None, min_length=1)  # null: all


class PublishedExpert(Section):
    """A detector with its authors' weights, or with given scores: a row of Tables 3 and 5."""

    name: str
    kind: Literal["cnnspot", "univfd", "gramnet", "fusing", "lnp"] | None = None
    weights: str | None = None  # the checkpoint as its authors publish it
    # univfd: CLIP ViT-L/14, a folder or a name on the hub; lnp: the denoiser's checkpoint
    features: str | None = None
    object: Reference | None = None  # or a class of your own: module:object
    revision: str | None = None  # of that class: its answers are computed anew when it changes
    scores: str | None = None  # instead of all these: a CSV with columns id and p_fake, or id and score
    threshold: float | None = None  # with a column score: fake from here on
    benchmarks: list[Benchmark] | None = Field(default=None, min_length=1)  # null: all

    def problems(self) -> Iterator[str]:
        if bool(self.kind or self.weights or self.features) + bool(self.scores) + bool(self.object) > 1:
            yield "give either scores, or kind and weights, or object and revision"
        elif not (self.scores or (self.kind and self.weights) or (self.object and self.revision)):
            yield "give kind and weights, or scores, or object and revision"
        if (self.features is not None) != (self.kind in ("univfd", "lnp")):
            yield "features is for kind univfd (its CLIP) and kind lnp (its denoiser), which need it"
        if self.threshold is not None and self.scores is None:
            yield "threshold is for scores; weights say fake from one half on"


class Evaluate(Section):
    model: str | None
    servers: Servers | None  # null: FakeVLM answers where all others do
    prompt: Literal["template", "bare"]
    methods: list[Method] = Field(min_length=1)
    baselines: list[Baseline]
    experts: list[PublishedExpert]
    precision: Literal["fp32", "bf16"]
    compile: bool  # steps of language models
    batch_size: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    encoder: str
    bootstrap: int = Field(ge=0)
    limit: int | None = Field(ge=1)

    def problems(self) -> Iterator[str]:
        names = [*self.methods, *(b.name for b in self.baselines), *(e.name for e in self.experts)]
        if twice := _twice(names):
            yield f"{twice} appears twice among methods, baselines and experts"
        if "FakeVLM" not in self.methods:
            yield "methods lacks FakeVLM, which every table and figure is about"


class Robustness(Section):
    """Strengths of each perturbation."""

    images: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    jpeg: list[Annotated[int, Field(ge=1, le=100)]]
    resize: list[Annotated[float, Field(ge=0.01, le=1.0)]]
    blur: list[Annotated[float, Field(ge=0.0, le=100.0)]]
    noise: list[Annotated[int, Field(ge=0, le=255)]]
    crop: list[Annotated[float, Field(ge=0.05, le=1.0)]]


class Report(Section):
    cases: int = Field(ge=1)


class Params(Section):
    """One profile's values, plus its name."""

    profile: str
    seed: int = Field(ge=0, lt=2**32)  # what every library's generator takes
    base: str
    cluster: Cluster | None  # null: in this process
    collect: Collect
    # Where a section may be null, the profile leaves its stage out (`parts`).
    categorize: Categorize | None
    annotate: Annotated[Annotate | Released, Field(discriminator="texts")]
    study: Study | None
    training: Training | None  # of study and finetune
    finetune: Finetune | None
    experts: Experts | None
    evaluate: Evaluate
    robustness: Robustness | None
    report: Report

    def problems(self) -> Iterator[str]:
        released = isinstance(self.annotate, Released)
        if released != bool(self.collect.corpora.fakeclue):
            yield "annotate.texts released and collect.corpora.fakeclue go together: set both or neither"
        if released and (self.collect.synthetic_documents or self.collect.synthetic_satellites):
            yield "the released FakeClue has its synthetic images: set collect.synthetic_* to 0"
        if self.categorize is None and not released:
            yield "annotate needs categories: categorize may only be null for the released FakeClue"
        if (self.study or self.finetune) and not self.training:
            yield "study and finetune need the section training: give it, or set both to null"
        for entries in (self.annotate.annotators, self.evaluate.baselines):  # keys of answers hold no address
            served = [entry for entry in entries if isinstance(entry, Endpoint)]
            for one, other in combinations(served, 2):
                same = (one.model, one.revision) == (other.model, other.revision)
                if same and set(one.urls) != set(other.urls):
                    what = f"{one.name} and {other.name} name one model and revision at different servers"
                    yield f"{what}: give each its own revision"
        for method in self.evaluate.methods:
            if (maker := MAKERS.get(method)) and getattr(self, maker) is None:
                yield f"evaluate.methods: {method} is made by stage {maker}: give {maker}, or drop the method"
            if self.experts and maker == "experts" and method.lower() not in self.experts.train:
                yield f"evaluate.methods: {method} is not among experts.train: add it, or drop the method"

    def show(self, stage: str) -> dict[str, Any]:
        """Return a stage's values, for display at a notebook's top."""
        values = {"profile": self.profile, "seed": self.seed, **getattr(self, stage).model_dump()}
        if stage == "finetune" and self.training is not None:
            values |= self.training.model_dump()
        return values


def load_params(profile: str | None = None, file: Path | None = None) -> Params:
    """Return the values of `profile` (default: the one that params.yaml names).

    Raises `UserError` if the file is missing or not YAML, or the profile or a key unknown or mistyped.
    """
    file = file or paths.root() / "params.yaml"
    try:
        if not file.is_file():  # a pipe would be waited for
            raise FileNotFoundError("there is no such file")
        # As DVC reads and writes it (YAML 1.2): 2e-05 is a number, 1:30 is none, no key stands twice.
        content = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
        if next(islice(_values(content), MOST_VALUES, None), None) is not None:
            raise ValueError(f"its aliases make more than {MOST_VALUES:,} values")
    except (OSError, ValueError, RecursionError, YAMLError) as error:
        cure = "restore it with `git checkout params.yaml`"
        raise UserError(f"{file} is not readable YAML: {error}", cure) from error
    content = content if isinstance(content, dict) else {}
    profiles = [name for name in content if name != "profile"]
    profile = profile or str(content.get("profile"))
    if profile not in profiles:
        raise UserError(f"{file.name}: no profile {profile!r}", f"choose one of: {', '.join(profiles)}")
    values = content[profile]
    if not isinstance(values, dict):
        raise UserError(f"{file.name}: profile {profile!r} is not a section of keys", f"edit {file}")
    try:
        return Params(profile=profile, **values)
    except ValidationError as error:
        problems = "\n  ".join(_explain(problem, profile, values) for problem in error.errors())
        raise UserError(f"{file.name} does not fit:\n  {problems}", f"edit {file}") from error


def _values(node: Any) -> Iterator[type]:
    """Yield the type of every value of a YAML file, those of an alias at each use."""
    yield type(node)
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _values(inner)


def _explain(problem: Any, profile: str, section: Any) -> str:
    """Return one of pydantic's errors with the key's full name as params.yaml has it."""
    place = [profile]
    for part in problem["loc"]:
        if isinstance(section, dict) and part in (section.get("backend"), section.get("texts")):
            continue  # pydantic names the kind of section behind its place
        place.append(str(part))
        section = section.get(part) if isinstance(section, dict) else section[part]
    if problem["type"] == "union_tag_not_found":
        return f"{'.'.join(place)}.{problem['ctx']['discriminator'][1:-1]}: missing"
    text = f"{'.'.join(place)}: {problem['msg'].removeprefix('Value error, ')}"
    given = problem.get("input")
    if problem["type"] in ("value_error", "missing") or isinstance(given, dict | list):
        return text
    return f"{text}, got {given!r}"
