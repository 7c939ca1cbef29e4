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

PROFILES = [name for name in yaml.safe_load((ROOT / "params.yaml").read_text()) if name != "profile"]


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
        ("mini.experts", None, "mini: evaluate.methods: CNNSpot is made by stage experts"),
        ("mini.experts.train", ["univfd"], "mini: evaluate.methods: CNNSpot is not among experts.train"),
        ("mini.evaluate.methods", ["FakeVLM", "GPT-40"], "mini.evaluate.methods.1: Input should be 'FakeVLM', "),
        ("mini.evaluate.methods", ["CNNSpot"], "mini.evaluate: methods lacks FakeVLM"),
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
    assert optional - {"cluster"} == set(SHOWS), "say in parts.SHOWS what a profile goes without"


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


def test_no_default_decides_a_number() -> None:
    """What is left out in params.yaml is nothing (null), or how long and how often a server is asked."""
    free = {"concurrency", "timeout", "retries", "gpus", "nodes"}
    sections, seen = [Params], set()
    while sections:
        section = sections.pop()
        seen.add(section)
        for name, field in section.model_fields.items():
            assert field.is_required() or field.default is None or name in free, f"{section.__name__}.{name}"
            sections += [inner for inner in explain.sections_of(field.annotation) if inner not in seen]
    assert len(seen) > 20
