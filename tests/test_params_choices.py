"""Sections of several kinds in params.yaml: annotators, aggregators, clusters, further methods, launchers."""

from pathlib import Path
from typing import Any

import pytest

from editedparams import KEEP, edited, message
from fakevlm.config.params import (
    Embedding,
    Endpoint,
    Observer,
    ServedAggregator,
    load_params,
)

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
    values = {**ENDPOINT, "with_image": False, "attempts": 3, **changes}
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


CLUSTER = {"address": None, "workers": 4, "gpus_per_worker": 1}
SERVERS = {"urls": ["http://a:8000/v1", "http://b:8000/v1"], "model": "lingcco/fakeVLM", "top_logprobs": 20}


def test_a_cluster_and_servers(tmp_path: Path) -> None:
    loaded = load_params("mini", edited(tmp_path, "mini.cluster", CLUSTER)).cluster
    assert (loaded.workers, loaded.gpus_per_worker) == (4, 1.0)
    assert (
        load_params("mini", edited(tmp_path, "mini.evaluate.servers", SERVERS)).evaluate.servers.top_logprobs
        == 20
    )


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("cluster", {"address": None, "gpus_per_worker": 1}, "mini.cluster.workers: missing"),
        ("cluster", CLUSTER | {"worker": 2}, "mini.cluster.worker: unknown key; allowed here: address, workers, gpus_per_worker"),
        ("cluster", CLUSTER | {"workers": 0}, "mini.cluster.workers"),
        ("cluster", "ray", "mini.cluster"),
        ("evaluate.servers", SERVERS | {"urls": ["gpu1:8000"]}, "servers.urls: 'gpu1:8000' is no server's"),
        ("evaluate.servers", SERVERS | {"api_key_env": "sk-1"}, "never the key itself"),
        ("evaluate.servers", {}, "mini.evaluate.servers.urls: missing"),
    ],
)  # fmt: skip
def test_what_a_cluster_and_servers_cannot_be(tmp_path: Path, key: str, value: Any, said: str) -> None:
    assert said in message(edited(tmp_path, f"mini.{key}", value))


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


def test_the_font_renderer_paints_no_satellites(tmp_path: Path) -> None:
    text = message(edited(tmp_path, "mini.collect.renderer", "fonts"))
    assert "mini.collect: " in text
    assert "set synthetic_satellites to 0" in text


def test_the_paper_profiles_aerials_suffice_for_the_satellites_that_are_to_be_made() -> None:
    collect = load_params("paper").collect
    aerials = sum(collect.at_most[corpus] for corpus in ("cvusa", "vigor"))
    lenders, made = (1 - collect.satellites.learn_share) * aerials, collect.satellites
    # Drawn by lot: five standard deviations and more.
    assert lenders - 5 * lenders**0.5 > max(made.gan.images, made.diffusion.images)
