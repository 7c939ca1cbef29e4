"""The one typed loader of params.yaml: a section for each profile, in it one for each stage.

Unknown keys, wrong types, missing values, and values that can never work together stop at once, with the
key's full name and what is allowed.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from fakevlm import paths, plugins
from fakevlm.config.annotation import (
    Aggregator,
    Annotate,
    Annotator,
    Embedding,
    Endpoint,
    Observer,
    Released,
    ServedAggregator,
)
from fakevlm.config.base import Fraction, Section, Width
from fakevlm.config.evaluation import MAKERS, Baseline, Method, PublishedExpert, Robustness, Servers
from fakevlm.config.satellites import GAN, Diffusion, Satellites
from fakevlm.config.training import DeepSpeed, Training
from fakevlm.errors import UserError

__all__ = [
    "GAN",
    "Aggregator",
    "Annotate",
    "Annotator",
    "Baseline",
    "Benchmarks",
    "CNNSpotSettings",
    "Categorize",
    "Cluster",
    "Collect",
    "Corpora",
    "DeepSpeed",
    "Diffusion",
    "Embedding",
    "Endpoint",
    "Evaluate",
    "Experts",
    "FaceCrop",
    "Finetune",
    "Observer",
    "Params",
    "Person",
    "PublishedExpert",
    "Released",
    "Report",
    "Robustness",
    "Satellites",
    "Section",
    "ServedAggregator",
    "Servers",
    "Study",
    "Training",
    "load_params",
]


class Cluster(Section):
    """Worker processes of a Ray cluster (`inference.ray_cluster`); they decide no result."""

    address: str | None  # null: a cluster of this machine, for the run alone; auto; host:port
    workers: int = Field(ge=1, le=4096)
    gpus_per_worker: float = Field(ge=0)


class Other(Section):
    """A corpus or benchmark with your own reader: `module:function`, folder → records."""

    name: str = Field(pattern="^[a-z0-9][a-z0-9_-]*$")
    reader: str = Field(pattern=f"^{plugins.REFERENCE}$")
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
    # The release: then all that is trained and tested on; FF++ still serves its benchmarks.
    fakeclue: str | None

    @model_validator(mode="after")
    def _release_stands_alone(self) -> "Corpora":
        beside = [key for key in self.folders() if key not in ("fakeclue", "ffpp")]
        if self.fakeclue and beside:
            raise ValueError(
                "fakeclue is the released training set as it is: "
                f"set {', '.join(beside)} to null, or fakeclue"
            )
        return self


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

    @model_validator(mode="after")
    def _model(self) -> "FaceCrop":
        if (self.detector == "opencv") != (self.model is not None):
            raise ValueError("detector opencv needs model, a YuNet file; landmarks has none")
        return self


def _renderer(name: str) -> str:
    if name not in plugins.RENDERERS and not re.fullmatch(plugins.REFERENCE, name):
        names = ", ".join(plugins.RENDERERS)
        raise ValueError(f"no renderer is called {name!r}; allowed here: {names}, or module:object")
    return name


class Collect(Section):
    corpora: Corpora
    benchmarks: Benchmarks
    # About so many images of a training corpus, drawn by lot; a corpus that is not named comes whole.
    at_most: dict[
        Literal["genimage", "ffpp", "chameleon", "cvusa", "vigor", "m6doc"], Annotated[int, Field(ge=1)]
    ]
    truth: str | None
    frames_per_video: int = Field(ge=1)
    face_crop: FaceCrop | None
    synthetic_documents: int = Field(ge=0)
    synthetic_satellites: int = Field(ge=0)
    satellites: Satellites | None
    renderer: Annotated[str, AfterValidator(_renderer)]
    leakage_distance: int = Field(ge=0, le=16)

    @model_validator(mode="after")
    def _somebody_paints(self) -> "Collect":
        if self.synthetic_satellites and self.renderer == "fonts":
            raise ValueError(
                "renderer fonts draws documents only: "
                "set synthetic_satellites to 0 (those of `satellites` are extra)"
            )
        return self


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
    width: Width
    depth: int = Field(ge=1)
    heads: int = Field(ge=1)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)

    @model_validator(mode="after")
    def _divisible(self) -> "Categorize":
        if self.model is not None:  # then these sizes are its own affair
            return self
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of patch_size {self.patch_size}"
            )
        # Rotary embeddings take a head's channels by fours: sine and cosine of two directions.
        if self.width % (4 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of 4 × heads, which is {4 * self.heads}")
        return self


class Study(Section):
    steps: int = Field(ge=1)
    probe_images: int = Field(ge=10)


class Finetune(Section):
    epochs: float = Field(gt=0)


class CNNSpotSettings(Section):
    model: str | None
    layers: list[int] = Field(min_length=4, max_length=4)
    width: Width
    size: int = Field(ge=32)
    crop: int = Field(ge=32)
    augment: float = Fraction

    @model_validator(mode="after")
    def _inside(self) -> "CNNSpotSettings":
        if self.crop > self.size:
            raise ValueError(
                f"crop {self.crop} must be no larger than size {self.size}, out of which it is cut"
            )
        return self


class Experts(Section):
    train: list[Literal["cnnspot", "univfd", "frequency"]] = Field(min_length=1)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    cnnspot: CNNSpotSettings
    spectrum_size: int = Field(ge=16, multiple_of=16)

    @model_validator(mode="after")
    def _each_once(self) -> "Experts":
        if len(set(self.train)) < len(self.train):
            raise ValueError(f"train names one twice: {', '.join(self.train)}")
        return self


class Evaluate(Section):
    model: str | None
    servers: Servers | None  # null: FakeVLM answers where all others do
    prompt: Literal["template", "bare"]
    methods: list[Method] = Field(min_length=1)
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
        names = [*self.methods, *(b.name for b in self.baselines), *(e.name for e in self.experts)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} appears twice among methods, baselines and experts")
        if "FakeVLM" not in self.methods:
            raise ValueError("methods lacks FakeVLM, which every table and figure is about")
        return self


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

    @model_validator(mode="after")
    def _fits_together(self) -> "Params":
        released = isinstance(self.annotate, Released)
        if released != bool(self.collect.corpora.fakeclue):
            raise ValueError(
                "annotate.texts released and collect.corpora.fakeclue go together: set both or neither"
            )
        if released and (self.collect.synthetic_documents or self.collect.synthetic_satellites):
            raise ValueError("the released FakeClue has its synthetic images: set collect.synthetic_* to 0")
        if self.categorize is None and not released:
            raise ValueError(
                "annotate needs categories: categorize may only be null for the released FakeClue"
            )
        if (self.study or self.finetune) and not self.training:
            raise ValueError("study and finetune need the section training: give it, or set both to null")
        for method in self.evaluate.methods:
            if (maker := MAKERS.get(method)) and getattr(self, maker) is None:
                raise ValueError(
                    f"evaluate.methods: {method} is made by stage {maker}: give {maker}, or drop the method"
                )
            if self.experts and maker == "experts" and method.lower() not in self.experts.train:
                raise ValueError(
                    f"evaluate.methods: {method} is not among experts.train: add it there, or drop the method"
                )
        return self

    def show(self, stage: str) -> dict[str, Any]:
        """Return a stage's values, for display at a notebook's top."""
        values = {"profile": self.profile, "seed": self.seed, **getattr(self, stage).model_dump()}
        if stage == "finetune" and self.training is not None:
            values |= self.training.model_dump()
        return values


def load_params(profile: str | None = None, file: Path | None = None) -> Params:
    """Return the values of `profile` (default: the one that params.yaml names).

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
    reading = isinstance(given, str) and problem["type"].startswith("float")
    return f"{text}, got {given!r}" + (" (YAML reads 2e-5 as text: write 2.0e-5)" if reading else "")
