"""params.yaml's loader: what is wrong is named, with the key's full name and what is allowed."""

from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from fakevlm.errors import UserError
from fakevlm.params import Params, load_params

PROFILES = [name for name in yaml.safe_load((ROOT / "params.yaml").read_text()) if name != "profile"]


def edited(tmp_path: Path, old: str, new: str) -> Path:
    """A copy of params.yaml with its first `old` replaced."""
    text = (ROOT / "params.yaml").read_text()
    assert old in text, f"params.yaml has no {old!r} any more: adapt the test"
    file = tmp_path / "params.yaml"
    file.write_text(text.replace(old, new, 1))
    return file


def message(file: Path, profile: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_params(profile, file)
    return str(caught.value)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_in_params_yaml_loads(profile: str) -> None:
    params = load_params(profile)
    assert params.profile == profile
    assert set(params.show("finetune")) >= {"profile", "seed", "learning_rate"}


def test_without_a_name_the_profile_that_params_yaml_names() -> None:
    assert load_params().profile == yaml.safe_load((ROOT / "params.yaml").read_text())["profile"]


def test_unknown_key_is_named_with_the_allowed_ones(tmp_path: Path) -> None:
    text = message(edited(tmp_path, "    warmup_ratio:", "    warm_up_ratio:"))
    assert "mini.finetune.warm_up_ratio: unknown key" in text
    assert "warmup_ratio" in text.split("allowed here:")[1]
    assert "mini.finetune.warmup_ratio: missing" in text


def test_unknown_key_in_a_nested_section(tmp_path: Path) -> None:
    text = message(edited(tmp_path, "      genimage:", "      genimages:"))
    assert "mini.collect.corpora.genimages: unknown key; allowed here: genimage, ffpp, chameleon" in text


def test_unknown_section(tmp_path: Path) -> None:
    text = message(edited(tmp_path, "  categorize:", "  categorise:"))
    assert "mini.categorise: unknown key" in text
    assert "categorize" in text.split("allowed here:")[1]


def test_a_rate_that_yaml_reads_as_text_gets_a_hint(tmp_path: Path) -> None:
    text = message(edited(tmp_path, "learning_rate: 1.0e-3", "learning_rate: 1e-3"))
    assert "mini.categorize.learning_rate" in text
    assert "'1e-3'" in text
    assert "write 2.0e-5" in text


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("seed: 17", "seed: seventeen", "mini.seed"),
        ("seed: 17", "seed: 17.5", "mini.seed"),
        ("warmup_ratio: 0.03", "warmup_ratio: 1.5", "mini.finetune.warmup_ratio"),
        ("precision: fp32", "precision: fp8", "mini.finetune.precision"),
        ("train_vision: true", "train_vision: 1", "mini.finetune.train_vision"),
        ("backend: observer", "backend: oracle", "mini.annotate.annotators.0.backend"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, old: str, new: str, key: str) -> None:
    assert f"{key}: " in message(edited(tmp_path, old, new))


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
