"""params.yaml's loader: what is wrong is named, with the key's full name and what is allowed."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from conftest import ROOT
from fakevlm.errors import UserError
from fakevlm.params import (
    Embedding,
    Endpoint,
    Observer,
    Params,
    RayEngine,
    ServedAggregator,
    ServersEngine,
    load_params,
)
from fakevlm.parts import SHOWS, LeftOut, begin, left_out

KEEP = object()
PROFILES = [name for name in yaml.safe_load((ROOT / "params.yaml").read_text()) if name != "profile"]


def edited(tmp_path: Path, key: str, value: Any, name: str | None = None) -> Path:
    """A copy of params.yaml in which `key` (dotted, numbers index lists) has another value, and perhaps another name."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    section = content
    for part in path:
        section = section[part]
    value = section[last] if value is KEEP else value
    if name:
        del section[last]
    section[name or last] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def message(file: Path, profile: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_params(profile, file)
    return str(caught.value)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_in_params_yaml_loads(profile: str) -> None:
    params = load_params(profile)
    assert params.profile == profile
    assert set(params.show("evaluate")) >= {"profile", "seed", "batch_size"}


def test_without_a_name_the_profile_that_params_yaml_names() -> None:
    assert load_params().profile == yaml.safe_load((ROOT / "params.yaml").read_text())["profile"]


def test_unknown_key_is_named_with_the_allowed_ones(tmp_path: Path) -> None:
    text = message(edited(tmp_path, "mini.finetune.warmup_ratio", KEEP, "warm_up_ratio"))
    assert "mini.finetune.warm_up_ratio: unknown key" in text
    assert "warmup_ratio" in text.split("allowed here:")[1]
    assert "mini.finetune.warmup_ratio: missing" in text


def test_unknown_key_in_a_nested_section(tmp_path: Path) -> None:
    text = message(edited(tmp_path, "mini.collect.corpora.genimage", KEEP, "genimages"))
    assert "mini.collect.corpora.genimages: unknown key; allowed here: genimage, ffpp, chameleon" in text
    text = message(edited(tmp_path, "mini.collect.satellites.gan.width", KEEP, "wide"))
    assert "mini.collect.satellites.gan.wide: unknown key; allowed here: images, width, depth" in text


def test_sizes_that_do_not_fit_each_other(tmp_path: Path) -> None:
    text = message(edited(tmp_path, "mini.collect.satellites.image_size", 98))
    assert "mini.collect.satellites: image_size 98 and gan.crop 64 must be multiples of 16" in text


def test_unknown_section(tmp_path: Path) -> None:
    text = message(edited(tmp_path, "mini.categorize", KEEP, "categorise"))
    assert "mini.categorise: unknown key" in text
    assert "categorize" in text.split("allowed here:")[1]


def test_a_rate_that_yaml_reads_as_text_gets_a_hint(tmp_path: Path) -> None:
    text = message(edited(tmp_path, "mini.categorize.learning_rate", "1e-3"))
    assert "mini.categorize.learning_rate" in text
    assert "'1e-3'" in text
    assert "write 2.0e-5" in text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", "seventeen"),
        ("seed", 17.5),
        ("finetune.warmup_ratio", 1.5),
        ("finetune.precision", "fp8"),
        ("finetune.train_vision", 1),
        ("annotate.annotators.0.backend", "oracle"),
        ("robustness.jpeg", [90, "seventy"]),
        ("evaluate", None),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, key: str, value: Any) -> None:
    text = message(edited(tmp_path, f"mini.{key}", value))
    assert f"mini.{key}" in text
    assert "got" in text


ENDPOINT = {
    "name": "Qwen2-VL",
    "backend": "endpoint",
    "model": "Qwen/Qwen2-VL-72B-Instruct",
    "revision": "abc",
    "urls": ["http://localhost:8000/v1"],
    "max_tokens": 512,
    "temperature": 0.0,
}


def with_endpoint(tmp_path: Path, **changes: Any) -> Path:
    values = {key: value for key, value in {**ENDPOINT, **changes}.items() if value is not KEEP}
    return edited(tmp_path, "mini.annotate.annotators.1", values)


def test_back_ends_stand_side_by_side(tmp_path: Path) -> None:
    loaded = load_params("mini", with_endpoint(tmp_path)).annotate.annotators
    assert [(type(a), a.backend) for a in loaded] == [
        (Observer, "observer"),
        (Endpoint, "endpoint"),
        (Observer, "observer"),
    ]
    assert loaded[1].retries == 5
    assert loaded[1].api_key_env is None


def test_keys_of_one_back_end_are_refused_on_the_other(tmp_path: Path) -> None:
    observer = {"name": "Qwen2-VL", "backend": "observer", "urls": ["http://localhost:8000/v1"]}
    text = message(edited(tmp_path, "mini.annotate.annotators.0", observer))
    assert (
        "mini.annotate.annotators.0.urls: unknown key of back end observer (it belongs to endpoint)" in text
    )
    assert text.split("allowed here: ")[1].startswith("name, backend\n")
    text = message(with_endpoint(tmp_path, url="http://localhost:8000/v1"))
    assert "mini.annotate.annotators.1.url: unknown key; allowed here: name, backend, model" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": KEEP}, "annotators.1.model: missing"),
        ({"backend": KEEP}, "annotators.1.backend: missing; allowed here: observer, endpoint"),
        (
            {"backend": "vllm"},
            "annotators.1.backend: no such back end; allowed here: observer, endpoint, got 'vllm'",
        ),
        ({"urls": []}, "annotators.1.urls"),
        ({"urls": ["localhost:8000"]}, "no server's address such as"),
        ({"urls": ["http://a/v1", "http://a/v1"]}, "appears twice"),
        ({"urls": ["http://user:sk-secret@host/v1"]}, "api_key_env"),
        ({"api_key_env": "sk-secret"}, "never the key itself"),
        ({"temperature": "0"}, "annotators.1.temperature"),
        ({"retries": -1}, "annotators.1.retries"),
    ],
)
def test_what_an_endpoint_cannot_be(tmp_path: Path, changes: dict, said: str) -> None:
    text = message(with_endpoint(tmp_path, **changes))
    assert said in text
    assert "sk-secret" not in text


def with_aggregator(tmp_path: Path, **changes: Any) -> Path:
    values = {**ENDPOINT, "with_image": False, **changes}
    return edited(
        tmp_path, "mini.annotate.aggregator", {key: v for key, v in values.items() if v is not KEEP}
    )


def test_the_aggregator_may_be_a_server(tmp_path: Path) -> None:
    assert isinstance(load_params("mini").annotate.aggregator, Embedding)
    loaded = load_params("mini", with_aggregator(tmp_path)).annotate.aggregator
    assert isinstance(loaded, ServedAggregator)
    assert (loaded.attempts, loaded.retries, loaded.with_image) == (3, 5, False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"with_image": KEEP}, "aggregator.with_image: missing"),
        ({"attempts": 0}, "aggregator.attempts"),
        ({"similarity": 0.3}, "aggregator.similarity: unknown key of back end endpoint (it belongs to embedding)"),
        ({"model": KEEP}, "aggregator.model: missing"),
        ({"backend": KEEP}, "aggregator.backend: missing; allowed here: embedding, endpoint"),
        ({"backend": "observer"}, "aggregator.backend: no such back end; allowed here: embedding, endpoint, got 'observer'"),
        ({"urls": ["http://user:sk-secret@host/v1"]}, "api_key_env"),
    ],
)  # fmt: skip
def test_what_an_aggregator_cannot_be(tmp_path: Path, changes: dict, said: str) -> None:
    text = message(with_aggregator(tmp_path, **changes))
    assert said in text
    assert "sk-secret" not in text


def test_an_aggregator_by_its_bare_name_is_refused(tmp_path: Path) -> None:
    assert "mini.annotate.aggregator" in message(edited(tmp_path, "mini.annotate.aggregator", "embedding"))


def test_engines_are_told_by_their_kind(tmp_path: Path) -> None:
    engine = {"kind": "ray", "address": None, "workers": 4, "gpus_per_worker": 1}
    loaded = load_params("mini", edited(tmp_path, "mini.evaluate.engine", engine)).evaluate.engine
    assert (type(loaded), loaded.workers, loaded.gpus_per_worker) == (RayEngine, 4, 1.0)
    engine = {"kind": "servers", "urls": ["http://a:8000/v1", "http://b:8000/v1"], "model": "lingcco/fakeVLM"}
    loaded = load_params("mini", edited(tmp_path, "mini.evaluate.engine", engine)).evaluate.engine
    assert (type(loaded), loaded.top_logprobs) == (ServersEngine, 20)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({}, "evaluate.engine.kind: missing; allowed here: local, ray, servers"),
        ({"kind": "slurm"}, "engine.kind: no such kind; allowed here: local, ray, servers, got 'slurm'"),
        ({"kind": "ray", "address": None, "gpus_per_worker": 1}, "mini.evaluate.engine.workers: missing"),
        (
            {"kind": "local", "workers": 2},
            "mini.evaluate.engine.workers: unknown key of kind local (it belongs to ray); allowed here: kind\n",
        ),
        (
            {"kind": "local", "worker": 2},
            "mini.evaluate.engine.worker: unknown key; allowed here: kind\n",
        ),
        ({"kind": "servers", "urls": ["gpu1:8000"], "model": "m"}, "engine.urls: 'gpu1:8000' is no server's"),
        ({"kind": "servers", "urls": ["http://a/v1"], "model": "m", "api_key_env": "sk-1"}, "never the key itself"),
        ("ray", "mini.evaluate.engine"),
    ],
)  # fmt: skip
def test_what_an_engine_cannot_be(tmp_path: Path, engine: Any, said: str) -> None:
    assert said in message(edited(tmp_path, "mini.evaluate.engine", engine))


EXPERT = {"name": "Gram-Net", "kind": "gramnet", "weights": "data/gram.pth"}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "baselines",
            [{**ENDPOINT, "url": "x"}],
            "baselines.0.url: unknown key; allowed here: name, backend",
        ),
        ("baselines", [{**ENDPOINT, "benchmarks": ["imagenet"]}], "baselines.0.benchmarks.0"),
        ("baselines", [{**ENDPOINT, "name": "UnivFD"}], "UnivFD appears twice among methods, baselines"),
        ("experts", [EXPERT, EXPERT], "Gram-Net appears twice"),
        ("experts", [{**EXPERT, "kind": "gram"}], "experts.0.kind"),
        ("experts", [{**EXPERT, "weight": "x"}], "experts.0.weight: unknown key; allowed here: name, kind"),
        ("experts", [{"name": "SRM"}], "experts.0: give kind and weights, or scores"),
        ("experts", [{**EXPERT, "scores": "a.csv"}], "experts.0: give either scores, or kind"),
        ("experts", [{**EXPERT, "features": "clip"}], "experts.0: features is for kind univfd"),
        ("experts", [{**EXPERT, "kind": "lnp"}], "experts.0: features is for kind univfd"),
        ("experts", [{**EXPERT, "threshold": 0.1}], "experts.0: threshold is for scores"),
    ],
)
def test_what_further_methods_cannot_be(tmp_path: Path, key: str, value: list, said: str) -> None:
    assert said in message(edited(tmp_path, f"mini.evaluate.{key}", value))


def test_further_methods_are_entries(tmp_path: Path) -> None:
    file = edited(tmp_path, "mini.evaluate.baselines", [{**ENDPOINT, "benchmarks": ["loki"]}])
    (entry,) = load_params("mini", file).evaluate.baselines
    assert (entry.benchmarks, entry.prompt, entry.retries) == (["loki"], None, 5)
    served = {"name": "SRM", "scores": "srm.csv", "threshold": 0.3}
    (entry,) = load_params("mini", edited(tmp_path, "mini.evaluate.experts", [served])).evaluate.experts
    assert (entry.kind, entry.threshold) == (None, 0.3)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"stage": 4, "processes": 8}, "mini.finetune.deepspeed.stage"),
        ({"stage": 2}, "mini.finetune.deepspeed.processes: missing"),
        (
            {"stage": 2, "processes": 8, "host_file": "hosts"},
            "deepspeed.host_file: unknown key; allowed here: stage, offload, processes, nodes, hostfile",
        ),
        ({"stage": 2, "processes": 8, "offload": "parameters"}, "offload: parameters needs stage: 3"),
        ("zero2.json", "mini.finetune.deepspeed"),
    ],
)
def test_what_deepspeed_cannot_be(tmp_path: Path, section: Any, said: str) -> None:
    assert said in message(edited(tmp_path, "mini.finetune.deepspeed", section))


def test_ranks_are_processes_times_nodes(tmp_path: Path) -> None:
    assert load_params("mini").finetune.ranks == 1
    section = {"stage": 3, "processes": 8, "nodes": 2, "offload": "parameters"}
    assert load_params("mini", edited(tmp_path, "mini.finetune.deepspeed", section)).finetune.ranks == 16


def test_unknown_profile_lists_those_there_are(tmp_path: Path) -> None:
    text = message(ROOT / "params.yaml", "papper")
    assert "no profile 'papper'" in text
    assert all(name in text for name in PROFILES)


def test_profile_is_no_profile(tmp_path: Path) -> None:
    assert "no profile 'profile'" in message(ROOT / "params.yaml", "profile")


@pytest.mark.parametrize("content", ["", "mini: [1, 2", "- a\n- b\n", "profile: mini\nmini: 3\n"])
def test_files_that_are_no_params(tmp_path: Path, content: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(content)
    assert "params.yaml" in message(file)


def test_missing_file(tmp_path: Path) -> None:
    assert "git checkout params.yaml" in message(tmp_path / "params.yaml")


def test_params_cannot_be_changed_by_a_notebook() -> None:
    params = load_params()
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 3
    assert isinstance(params, Params)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("mini.annotate", {"texts": "released", "val_fraction": 0.1}, "mini: annotate.texts released and"),
        ("mini.categorize", None, "mini: annotate needs categories"),
        ("mini.finetune", None, "mini: study tunes with finetune's settings"),
        ("released.collect.corpora.fakeclue", None, "go together: set both or neither"),
        ("released.collect.corpora.genimage", "x", "released.collect.corpora: fakeclue is the released training set"),
        ("released.collect.synthetic_documents", 5, "set collect.synthetic_* to 0"),
        ("released.annotate.concurrency", 3, "unknown key of texts released (it belongs to asked)"),
        ("released.annotate.texts", "vote", "released.annotate.texts: no such texts; allowed here: asked, released"),
        ("mini.annotate.aggregator.similarity", 1.5, "mini.annotate.aggregator.similarity: "),
        ("mini.evaluate.prompt", "vicuna", "mini.evaluate.prompt: "),
    ],
)  # fmt: skip
def test_sections_that_do_not_fit_each_other(tmp_path: Path, key: str, value: Any, said: str) -> None:
    file = tmp_path / "params.yaml"
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    *path, last = key.split(".")
    section = content
    for part in path:
        section = section[part]
    section[last] = value
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    assert said in message(file, path[0] if path else key)


def test_a_section_that_is_null_leaves_its_stage_out() -> None:
    assert set(left_out(load_params("released"))) == set(SHOWS)
    assert left_out(load_params("mini")) == left_out(load_params("paper")) == {}
    optional = {
        name for name, field in Params.model_fields.items() if type(None) in get_args(field.annotation)
    }
    assert optional == set(SHOWS), "say in parts.SHOWS what a profile goes without"


def test_a_notebook_begins_or_leaves_a_note(project: Path) -> None:
    params = load_params("released")
    assert begin(load_params("mini"), "study")["steps"] == load_params("mini").study.steps
    assert not (project / "artifacts").exists()
    with pytest.raises(LeftOut, match="`study: null`"):
        begin(params, "study")
    with pytest.raises(LeftOut):
        begin(params, "finetune", "head")
    for place in ("study", "finetune/head"):
        assert "Not part of profile `released`" in (project / "artifacts" / place / "README.md").read_text()
