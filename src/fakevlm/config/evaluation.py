"""Settings of servers, baselines and published detectors (evaluate), and of the robustness study."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fakevlm.config.annotation import Addresses, Endpoint, KeyVariable
from fakevlm.config.base import Section
from fakevlm.plugins import REFERENCE


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
# The section of params.yaml whose stage makes a method's weights; FakeVLM's may also come from
# `evaluate.model`.
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
    object: str | None = Field(
        default=None, pattern=f"^{REFERENCE}$"
    )  # or a class of your own: module:object
    revision: str | None = None  # of that class: its answers are computed anew when it changes
    scores: str | None = None  # instead of all these: a CSV with columns id and p_fake, or id and score
    threshold: float | None = None  # with a column score: fake from here on
    benchmarks: list[Benchmark] | None = Field(default=None, min_length=1)  # null: all

    @model_validator(mode="after")
    def _one_source(self) -> "PublishedExpert":
        weights = self.kind or self.weights or self.features
        if bool(weights) + bool(self.scores) + bool(self.object) > 1:
            raise ValueError("give either scores, or kind and weights, or object and revision")
        if not (self.scores or (self.kind and self.weights) or (self.object and self.revision)):
            raise ValueError("give kind and weights, or scores, or object and revision")
        if (self.features is not None) != (self.kind in ("univfd", "lnp")):
            raise ValueError(
                "features is for kind univfd (its CLIP) and kind lnp (its denoiser), which need it"
            )
        if self.threshold is not None and self.scores is None:
            raise ValueError("threshold is for scores; weights say fake from one half on")
        return self


class Robustness(Section):
    """Strengths of each perturbation."""

    images: int = Field(ge=1)
    max_new_tokens: int = Field(ge=1)
    jpeg: list[Annotated[int, Field(ge=1, le=100)]]
    resize: list[Annotated[float, Field(ge=0.01, le=1.0)]]
    blur: list[Annotated[float, Field(ge=0.0, le=100.0)]]
    noise: list[Annotated[int, Field(ge=0, le=255)]]
    crop: list[Annotated[float, Field(ge=0.05, le=1.0)]]
