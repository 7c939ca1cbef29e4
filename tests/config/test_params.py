"""params.yaml's loader: what is wrong is named, with the key's full name and what is allowed."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from conftest import ROOT
from editedparams import KEEP, edited, message
from fakevlm.config.base import Section
from fakevlm.config.params import Params, load_params
from fakevlm.config.parts import SHOWS, LeftOut, begin, left_out
from rehearse import changed, located

CONTENT = yaml.safe_load((ROOT / "params.yaml").read_text())
PROFILES = [name for name in CONTENT if name != "profile"]
SERVER = {
    "name": "Qwen2-VL",
    "backend": "endpoint",
    "model": "Qwen/Qwen2-VL-72B-Instruct",
    "revision": "abc",
    "urls": ["http://localhost:8000/v1"],
    "max_tokens": 512,
    "temperature": 0.0,
}
AGGREGATOR = SERVER | {"with_image": False, "attempts": 3}
CLUSTER = {"address": None, "workers": 4, "gpus_per_worker": 1}
SERVERS = {"urls": ["http://a:8000/v1", "http://b:8000/v1"], "model": "lingcco/fakeVLM", "top_logprobs": 20}
EXPERT = {"name": "Gram-Net", "kind": "gramnet", "weights": "data/gram.pth"}


def without(section: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name != key}


def test_every_profile_loads_and_the_file_names_the_default() -> None:
    assert [load_params(profile).profile for profile in PROFILES] == PROFILES
    assert load_params().profile == CONTENT["profile"]
    with pytest.raises(ValueError, match="frozen"):
        load_params().seed = 3


@pytest.mark.parametrize("profile", ["paper", "released", "smoke"])
def test_the_rehearsals_values_fit(tmp_path: Path, profile: str) -> None:
    changes = yaml.safe_load((ROOT / "tests/rehearsal.yaml").read_text())[profile]
    section = CONTENT["mini" if profile == "smoke" else profile]
    Params(profile=profile, **located(changed(section, changes), 8000, tmp_path))


@pytest.mark.parametrize(
    ("key", "name", "error"),
    [
        ("training.warmup_ratio", "warm_up_ratio", "training: unknown key warm_up_ratio; allowed here: "),
        ("collect.corpora.genimage", "genimages", "corpora: unknown key genimages; allowed here: "),
        ("categorize", "categorise", "mini: unknown key categorise; allowed here: seed, base"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_named_with_the_allowed_ones(
    tmp_path: Path, key: str, name: str, error: str
) -> None:
    assert error in message(edited(tmp_path, f"mini.{key}", KEEP, name))


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("seed", "seventeen", "mini.seed: Input should be a valid integer, got 'seventeen'"),
        ("evaluate", None, "mini.evaluate: "),
        ("training.warmup_ratio", 1.5, "mini.training.warmup_ratio: Input should be less than 1, got 1.5"),
        ("categorize.learning_rate", "1e-3", "got '1e-3' (YAML reads 2e-5 as text: write 2.0e-5)"),
        ("robustness.jpeg", [90, 200], "mini.robustness.jpeg.1: Input should be less than or equal to 100"),
        # sizes that do not fit each other
        ("collect.satellites.image_size", 98, "image_size 98 and gan.crop 64 must be multiples of 16"),
        ("collect.renderer", "fonts", "set synthetic_satellites to 0"),
        ("categorize.heads", 5, "width 96 must be a multiple of 4 × heads, which is 20"),
        ("categorize.image_size", 60, "image_size 60 must be a multiple of patch_size 8"),
        ("categorize.width", 100, "mini.categorize.width: Input should be a multiple of 8, got 100"),
        ("experts.cnnspot.width", 4, "mini.experts.cnnspot.width: Input should be a multiple of 8"),
        ("experts.cnnspot.crop", 128, "crop 128 must be no larger than size 96"),
        ("collect.satellites.gan.width", 12, "gan.width: Input should be a multiple of 8"),
        ("collect.satellites.diffusion.widths", [32, 12], "diffusion.widths.1: Input should be"),
        # annotators and aggregator
        ("annotate.min_annotators", 4, "mini.annotate: min_annotators 4 is more than the 3 annotators"),
        ("annotate.val_fraction", 0.83, "val_fraction and test_fraction make 1: leave something"),
        ("annotate.annotators.0.backend", "oracle", "annotate.annotators.0: Input tag 'oracle' found"),
        ("annotate.annotators.0.urls", ["x"], "annotate.annotators.0: unknown key urls; allowed here: "),
        ("annotate.annotators.1", without(SERVER, "model"), "annotate.annotators.1.model: Field required"),
        ("annotate.annotators.1", without(SERVER, "backend"), "mini.annotate.annotators.1.backend: missing"),
        ("annotate.annotators.1", SERVER | {"urls": ["localhost:8000"]}, "no server's address such as"),
        ("annotate.annotators.1", SERVER | {"urls": ["http://a/v1"] * 2}, "appears twice"),
        ("annotate.annotators.1", SERVER | {"urls": ["http://user:sk-secret@host/v1"]}, "api_key_env"),
        ("annotate.annotators.1", SERVER | {"api_key_env": "sk-secret"}, "never the key itself"),
        ("annotate.aggregator", SERVER, "mini.annotate.aggregator.with_image: Field required"),
        ("annotate.aggregator", AGGREGATOR | {"similarity": 0.3}, "aggregator: unknown key similarity"),
        # where models answer
        ("cluster", without(CLUSTER, "workers"), "mini.cluster.workers: Field required"),
        ("evaluate.servers", SERVERS | {"urls": ["gpu1:8000"]}, "servers.urls: 'gpu1:8000' is no server's"),
        # methods
        ("evaluate.methods", ["FakeVLM", "GPT-40"], "mini.evaluate.methods.1: Input should be 'FakeVLM', "),
        ("evaluate.methods", ["CNNSpot"], "mini.evaluate: methods lacks FakeVLM"),
        ("evaluate.baselines", [SERVER | {"name": "UnivFD"}], "UnivFD appears twice among methods"),
        ("evaluate.experts", [{"name": "SRM"}], "experts.0: give kind and weights, or scores"),
        ("evaluate.experts", [EXPERT | {"scores": "a.csv"}], "experts.0: give either scores, or kind"),
        ("evaluate.experts", [EXPERT | {"kind": "lnp"}], "experts.0: features is for kind univfd"),
        ("evaluate.experts", [EXPERT | {"threshold": 0.1}], "experts.0: threshold is for scores"),
        # training
        ("training.deepspeed", {"stage": 2}, "mini.training.deepspeed.processes: Field required"),
        ("training.deepspeed", {"stage": 2, "processes": 8, "offload": "parameters"}, "needs stage: 3"),
        ("training.train_vision", False, "vision_learning_rate is set, but the vision tower is frozen"),
        # stages that need each other
        ("annotate", {"texts": "released", "val_fraction": 0.1}, "mini: annotate.texts released and"),
        ("categorize", None, "mini: annotate needs categories"),
        ("training", None, "mini: study and finetune need the section training"),
        ("experts", None, "mini: evaluate.methods: CNNSpot is made by stage experts"),
        ("experts.train", ["univfd"], "mini: evaluate.methods: CNNSpot is not among experts.train"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_key(tmp_path: Path, key: str, value: Any, error: str) -> None:
    text = message(edited(tmp_path, f"mini.{key}", value), "mini")
    assert error in text
    assert "sk-secret" not in text


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("collect.corpora.fakeclue", None, "go together: set both or neither"),
        ("collect.corpora.genimage", "x", "released.collect.corpora: fakeclue is the released training set"),
        ("collect.synthetic_documents", 5, "set collect.synthetic_* to 0"),
        ("annotate.concurrency", 3, "annotate: unknown key concurrency; allowed here: texts, val_fraction"),
    ],
)  # fmt: skip
def test_the_release_stands_alone(tmp_path: Path, key: str, value: Any, error: str) -> None:
    assert error in message(edited(tmp_path, f"released.{key}", value), "released")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("robustness.crop", [0.05, 1.0]),
        ("annotate.min_annotators", 3),
        ("annotate.annotators.1", SERVER),
        ("annotate.aggregator", AGGREGATOR),
        ("cluster", CLUSTER),
        ("evaluate.servers", SERVERS),
        ("evaluate.baselines", [SERVER | {"benchmarks": ["loki"]}]),
        ("evaluate.experts", [{"name": "SRM", "scores": "srm.csv", "threshold": 0.3}]),
        ("training.deepspeed", {"stage": 3, "processes": 8, "nodes": 2, "offload": "parameters"}),
    ],
)
def test_what_just_works_is_taken(tmp_path: Path, key: str, value: Any) -> None:
    params = load_params("mini", edited(tmp_path, f"mini.{key}", value))
    loaded: Any = params.model_dump(exclude_unset=True)
    for part in key.split("."):
        loaded = loaded[int(part) if part.isdigit() else part]
    assert loaded == value
    assert params.training.ranks == (16 if key == "training.deepspeed" else 1)


@pytest.mark.parametrize("profile", ["papper", "profile"])
def test_an_unknown_profile_lists_those_there_are(profile: str) -> None:
    text = message(ROOT / "params.yaml", profile)
    assert f"no profile '{profile}'" in text
    assert all(name in text for name in PROFILES)


@pytest.mark.parametrize("content", ["", "mini: [1, 2", "- a\n- b\n", "profile: mini\nmini: 3\n", None])
def test_files_that_are_no_params(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "params.yaml"
    if content is not None:
        file.write_text(content)
    assert "params.yaml" in message(file)


def test_a_section_that_is_null_leaves_its_stage_out(project: Path) -> None:
    assert set(left_out(load_params("released"))) == set(SHOWS)
    assert left_out(load_params("mini")) == left_out(load_params("paper")) == {}
    fields = Params.model_fields.items()
    optional = {name for name, field in fields if type(None) in get_args(field.annotation)}
    assert optional - {"cluster", "training"} == set(SHOWS), "say in parts.SHOWS what a profile goes without"
    assert begin(load_params("mini"), "study")["steps"] == load_params("mini").study.steps
    assert begin(load_params("mini"), "finetune")["batch_size"] == load_params("mini").training.batch_size
    assert not (project / "artifacts").exists()
    for place in (["study"], ["finetune", "head"]):
        with pytest.raises(LeftOut, match=f"`{place[0]}: null`"):
            begin(load_params("released"), *place)
        note = project.joinpath("artifacts", *place, "README.md").read_text()
        assert "Not part of profile `released`" in note


def test_no_default_decides_a_number() -> None:
    """What is left out in params.yaml is nothing (null), or how long and how often a server is asked."""
    free = {"concurrency", "timeout", "retries", "gpus", "nodes", "options"}
    sections = [Section]
    while sections:
        section = sections.pop()
        sections += [
            inner for inner in section.__subclasses__() if inner.__module__.startswith("fakevlm.config.")
        ]
        for name, field in section.model_fields.items():
            assert field.is_required() or field.default is None or name in free, f"{section.__name__}.{name}"


def test_the_paper_profile_has_enough_aerial_images_to_lend_maps() -> None:
    collect = load_params("paper").collect
    aerials = sum(collect.at_most[corpus] for corpus in ("cvusa", "vigor"))
    lenders, settings = (1 - collect.satellites.learn_share) * aerials, collect.satellites
    # Drawn by lot: five standard deviations and more.
    assert lenders - 5 * lenders**0.5 > max(settings.gan.images, settings.diffusion.images)
