"""params.yaml's loader: what is wrong is named, with the key's full name and what is allowed."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from conftest import ROOT
from editedparams import KEEP, edited, message
from fakevlm.config import explain
from fakevlm.config.params import Params, load_params
from fakevlm.config.parts import SHOWS, LeftOut, begin, left_out
from rehearse import changed, located

CONTENT = yaml.safe_load((ROOT / "params.yaml").read_text())
PROFILES = [name for name in CONTENT if name != "profile"]
GREATER, LESS, MULTIPLE = (f"Input should be {what}" for what in ("greater", "less than", "a multiple of 8"))
SERVER = {
    "name": "Qwen2-VL",
    "backend": "endpoint",
    "model": "Qwen/Qwen2-VL-72B-Instruct",
    "revision": "abc",
    "urls": ["http://localhost:8000/v1"],
    "max_tokens": 512,
    "temperature": 0.0,
}
AGGREGATOR = {**SERVER, "with_image": False, "attempts": 3}
CLUSTER = {"address": None, "workers": 4, "gpus_per_worker": 1}
SERVERS = {"urls": ["http://a:8000/v1", "http://b:8000/v1"], "model": "lingcco/fakeVLM", "top_logprobs": 20}
EXPERT = {"name": "Gram-Net", "kind": "gramnet", "weights": "data/gram.pth"}


def without(section: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name != key}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_loads(profile: str) -> None:
    params = load_params(profile)
    assert params.profile == profile
    assert set(params.show("evaluate")) >= {"profile", "seed", "batch_size"}
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 3


def test_the_file_names_the_default_profile() -> None:
    assert load_params().profile == CONTENT["profile"]


@pytest.mark.parametrize(
    ("key", "name", "allowed"),
    [
        ("finetune.warmup_ratio", "warm_up_ratio", "warmup_ratio"),
        ("collect.corpora.genimage", "genimages", "genimage, ffpp, chameleon"),
        ("collect.satellites.gan.width", "wide", "images, width, depth"),
        ("categorize", "categorise", "categorize"),
    ],
)
def test_an_unknown_key_is_named_with_the_allowed_ones(
    tmp_path: Path, key: str, name: str, allowed: str
) -> None:
    text = message(edited(tmp_path, f"mini.{key}", KEEP, name))
    assert f"mini.{'.'.join([*key.split('.')[:-1], name])}: unknown key" in text
    assert allowed in text.split("allowed here:")[1]
    assert f"mini.{key}: missing" in text


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", "seventeen", "mini.seed: "),
        ("seed", 17.5, "mini.seed: "),
        ("seed", -1, "mini.seed: Input should be greater than or equal to 0, got -1"),
        ("seed", 2**32, "mini.seed: Input should be less than 4294967296"),
        ("evaluate", None, "mini.evaluate: "),
        ("finetune.warmup_ratio", 1.5, f"mini.finetune.warmup_ratio: {LESS}"),
        ("finetune.precision", "fp8", "mini.finetune.precision: "),
        ("finetune.train_vision", 1, "mini.finetune.train_vision: "),
        ("categorize.learning_rate", "1e-3", "got '1e-3' (YAML reads 2e-5 as text: write 2.0e-5)"),
        # robustness: the limits of evaluation.robustness.perturb
        ("robustness.jpeg", [90, "seventy"], "mini.robustness.jpeg.1: "),
        ("robustness.jpeg", [90, 200], f"mini.robustness.jpeg.1: {LESS} or equal to 100, got 200"),
        ("robustness.crop", [0.0], f"mini.robustness.crop.0: {GREATER} than or equal to 0.05"),
        ("robustness.resize", [0.0], f"mini.robustness.resize.0: {GREATER}"),
        ("robustness.blur", [-0.5], f"mini.robustness.blur.0: {GREATER}"),
        ("robustness.noise", [-5], f"mini.robustness.noise.0: {GREATER}"),
        # sizes that do not fit each other
        ("collect.satellites.image_size", 98, "image_size 98 and gan.crop 64 must be multiples of 16"),
        ("collect.renderer", "fonts", "set synthetic_satellites to 0"),
        ("categorize.heads", 5, "width 96 must be a multiple of 4 × heads, which is 20"),
        ("categorize.image_size", 60, "image_size 60 must be a multiple of patch_size 8"),
        ("categorize.width", 100, f"mini.categorize.width: {MULTIPLE}, got 100"),
        ("experts.cnnspot.width", 4, f"mini.experts.cnnspot.width: {MULTIPLE}, got 4"),
        ("experts.cnnspot.crop", 128, "crop 128 must be no larger than size 96"),
        ("collect.satellites.gan.width", 12, f"gan.width: {MULTIPLE}, got 12"),
        ("collect.satellites.diffusion.widths", [32, 12], "diffusion.widths.1: Input should be a multiple"),
        # annotators and aggregator
        ("annotate.min_annotators", 4, "min_annotators 4 is more than the 3 annotators"),
        ("annotate.val_fraction", 0.83, "val_fraction and test_fraction make 1: leave something"),
        ("annotate.tagged_sources", ["x"], "mini.annotate.tagged_sources.0: Input should be 'genimage', "),
        ("annotate.annotators.0.backend", "oracle", "annotators.0.backend: no such back end; allowed here: "),
        ("annotate.annotators.0.urls", ["x"], "annotators.0.urls: unknown key of back end observer"),
        ("annotate.annotators.1", without(SERVER, "model"), "annotators.1.model: missing"),
        ("annotate.annotators.1", without(SERVER, "backend"), "annotators.1.backend: missing; allowed here: "),
        ("annotate.annotators.1", SERVER | {"url": "x"}, "annotators.1.url: unknown key; allowed here: name, "),
        ("annotate.annotators.1", SERVER | {"urls": []}, "annotators.1.urls"),
        ("annotate.annotators.1", SERVER | {"urls": ["localhost:8000"]}, "no server's address such as"),
        ("annotate.annotators.1", SERVER | {"urls": ["http://a/v1"] * 2}, "appears twice"),
        ("annotate.annotators.1", SERVER | {"urls": ["http://user:sk-secret@host/v1"]}, "api_key_env"),
        ("annotate.annotators.1", SERVER | {"api_key_env": "sk-secret"}, "never the key itself"),
        ("annotate.annotators.1", SERVER | {"temperature": "0"}, "annotators.1.temperature"),
        ("annotate.annotators.1", SERVER | {"retries": -1}, "annotators.1.retries"),
        ("annotate.aggregator", "embedding", "mini.annotate.aggregator"),
        ("annotate.aggregator.similarity", 1.5, "mini.annotate.aggregator.similarity: "),
        ("annotate.aggregator", SERVER, "aggregator.with_image: missing"),
        ("annotate.aggregator", AGGREGATOR | {"attempts": 0}, "aggregator.attempts"),
        ("annotate.aggregator", AGGREGATOR | {"similarity": 0.3}, "unknown key of back end endpoint (it belongs to"),
        ("annotate.aggregator", AGGREGATOR | {"backend": "observer"}, "allowed here: embedding, endpoint, got"),
        # where models answer
        ("cluster", "ray", "mini.cluster"),
        ("cluster", without(CLUSTER, "workers"), "mini.cluster.workers: missing"),
        ("cluster", CLUSTER | {"worker": 2}, "mini.cluster.worker: unknown key; allowed here: address, workers, "),
        ("cluster", CLUSTER | {"workers": 0}, "mini.cluster.workers"),
        ("evaluate.servers", SERVERS | {"urls": ["gpu1:8000"]}, "servers.urls: 'gpu1:8000' is no server's"),
        ("evaluate.servers", {}, "mini.evaluate.servers.urls: missing"),
        # methods
        ("evaluate.prompt", "vicuna", "mini.evaluate.prompt: "),
        ("evaluate.methods", ["FakeVLM", "GPT-40"], "mini.evaluate.methods.1: Input should be 'FakeVLM', "),
        ("evaluate.methods", ["CNNSpot"], "mini.evaluate: methods lacks FakeVLM"),
        ("evaluate.baselines", [SERVER | {"benchmarks": ["imagenet"]}], "baselines.0.benchmarks.0"),
        ("evaluate.baselines", [SERVER | {"name": "UnivFD"}], "UnivFD appears twice among methods, baselines"),
        ("evaluate.experts", [EXPERT | {"kind": "gram"}], "experts.0.kind"),
        ("evaluate.experts", [EXPERT | {"weight": "x"}], "experts.0.weight: unknown key; allowed here: name, "),
        ("evaluate.experts", [{"name": "SRM"}], "experts.0: give kind and weights, or scores"),
        ("evaluate.experts", [EXPERT | {"scores": "a.csv"}], "experts.0: give either scores, or kind"),
        ("evaluate.experts", [EXPERT | {"kind": "lnp"}], "experts.0: features is for kind univfd"),
        ("evaluate.experts", [EXPERT | {"threshold": 0.1}], "experts.0: threshold is for scores"),
        # training
        ("finetune.deepspeed", {"stage": 4, "processes": 8}, "mini.finetune.deepspeed.stage"),
        ("finetune.deepspeed", {"stage": 2}, "mini.finetune.deepspeed.processes: missing"),
        ("finetune.deepspeed", {"stage": 2, "processes": 8, "offload": "parameters"}, "parameters needs stage: 3"),
        # stages that need each other
        ("annotate", {"texts": "released", "val_fraction": 0.1}, "mini: annotate.texts released and"),
        ("categorize", None, "mini: annotate needs categories"),
        ("finetune", None, "mini: study tunes with finetune's settings"),
        ("experts", None, "mini: evaluate.methods: CNNSpot is made by stage experts"),
        ("experts.train", ["univfd"], "mini: evaluate.methods: CNNSpot is not among experts.train"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_key(tmp_path: Path, key: str, value: Any, said: str) -> None:
    text = message(edited(tmp_path, f"mini.{key}", value), "mini")
    assert said in text
    assert "mini" in text
    assert "sk-secret" not in text


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("collect.corpora.fakeclue", None, "go together: set both or neither"),
        ("collect.corpora.genimage", "x", "released.collect.corpora: fakeclue is the released training set"),
        ("collect.synthetic_documents", 5, "set collect.synthetic_* to 0"),
        ("annotate.concurrency", 3, "unknown key of texts released (it belongs to asked)"),
        ("annotate.texts", "vote", "released.annotate.texts: no such texts; allowed here: asked, released"),
        ("annotate.val_fraction", 1.0, "released.annotate.val_fraction: Input should be less than 1"),
    ],
)
def test_the_release_stands_alone(tmp_path: Path, key: str, value: Any, said: str) -> None:
    assert said in message(edited(tmp_path, f"released.{key}", value), "released")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 0),
        ("robustness.crop", [0.05, 1.0]),
        ("robustness.jpeg", [1, 100]),
        ("annotate.min_annotators", 3),
        ("annotate.val_fraction", 0.82),
        ("categorize.heads", 24),
        ("experts.cnnspot.crop", 64),
        ("annotate.annotators.1", SERVER),
        ("annotate.aggregator", AGGREGATOR),
        ("cluster", CLUSTER),
        ("evaluate.servers", SERVERS),
        ("evaluate.baselines", [SERVER | {"benchmarks": ["loki"]}]),
        ("evaluate.experts", [{"name": "SRM", "scores": "srm.csv", "threshold": 0.3}]),
        ("finetune.deepspeed", {"stage": 3, "processes": 8, "nodes": 2, "offload": "parameters"}),
    ],
)
def test_what_just_works_is_taken(tmp_path: Path, key: str, value: Any) -> None:
    loaded: Any = load_params("mini", edited(tmp_path, f"mini.{key}", value)).model_dump(exclude_unset=True)
    for part in key.split("."):
        loaded = loaded[int(part) if part.isdigit() else part]
    assert loaded == value


def test_ranks_are_processes_times_nodes(tmp_path: Path) -> None:
    assert load_params("mini").finetune.ranks == 1
    section = {"stage": 2, "processes": 8, "nodes": 2}
    assert load_params("mini", edited(tmp_path, "mini.finetune.deepspeed", section)).finetune.ranks == 16


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
    assert optional - {"cluster"} == set(SHOWS), "say in parts.SHOWS what a profile goes without"
    assert begin(load_params("mini"), "study")["steps"] == load_params("mini").study.steps
    assert not (project / "artifacts").exists()
    for place in (["study"], ["finetune", "head"]):
        with pytest.raises(LeftOut, match=f"`{place[0]}: null`"):
            begin(load_params("released"), *place)
        note = project.joinpath("artifacts", *place, "README.md").read_text()
        assert "Not part of profile `released`" in note


def test_no_default_decides_a_number() -> None:
    """What is left out in params.yaml is nothing (null), or how long and how often a server is asked."""
    free = {"concurrency", "timeout", "retries", "gpus", "nodes", "options"}
    sections, seen = [Params], set()
    while sections:
        section = sections.pop()
        seen.add(section)
        for name, field in section.model_fields.items():
            assert field.is_required() or field.default is None or name in free, f"{section.__name__}.{name}"
            sections += [inner for inner in explain.sections_of(field.annotation) if inner not in seen]
    assert len(seen) > 20


def test_the_paper_profile_has_enough_aerial_images_to_lend_maps() -> None:
    collect = load_params("paper").collect
    aerials = sum(collect.at_most[corpus] for corpus in ("cvusa", "vigor"))
    lenders, settings = (1 - collect.satellites.learn_share) * aerials, collect.satellites
    # Drawn by lot: five standard deviations and more.
    assert lenders - 5 * lenders**0.5 > max(settings.gan.images, settings.diffusion.images)


@pytest.mark.parametrize("profile", ["paper", "released", "smoke"])
def test_the_rehearsals_values_fit(tmp_path: Path, profile: str) -> None:
    changes = yaml.safe_load((ROOT / "tests/rehearsal.yaml").read_text())[profile]
    section = CONTENT["mini" if profile == "smoke" else profile]
    Params(profile=profile, **located(changed(section, changes), 8000, tmp_path))
