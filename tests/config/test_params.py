"""params.yaml's loader: what is wrong is named, with the key's full name and what is allowed."""

import copy
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from conftest import ROOT
from fakevlm.config.params import Params, load_params
from fakevlm.config.parts import SHOWS, LeftOut, begin, left_out
from fakevlm.errors import UserError
from rehearse import changed, located

CONTENT = yaml.safe_load((ROOT / "params.yaml").read_text())
PROFILES = [name for name in CONTENT if name != "profile"]
VALUES = yaml.safe_load(Path(__file__).with_name("values.yaml").read_text("utf-8"))
REFUSED = [(profile, *case) for profile, cases in VALUES["refused"].items() for case in cases]


def edited(tmp_path: Path, key: str, value: Any) -> Path:
    """Copy params.yaml with another value of `key` (dotted, numbers index lists)."""
    section = content = copy.deepcopy(CONTENT)
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in path:
        section = section[part]
    section[last] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def message(file: Path, profile: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        load_params(profile, file)
    return str(caught.value)


def test_every_profile_loads_and_the_file_names_the_default() -> None:
    assert [load_params(profile).profile for profile in PROFILES] == PROFILES
    assert load_params().profile == CONTENT["profile"]
    with pytest.raises(ValueError, match="frozen"):
        load_params().seed = 3


def test_dvc_sets_a_value_by_changing_its_line_which_is_read_as_dvc_writes_it(tmp_path: Path) -> None:
    file = Path(shutil.copy(ROOT / "params.yaml", tmp_path))
    apply_overrides(str(file), ["mini.training.learning_rate=2.0e-5"])
    pairs = zip((ROOT / "params.yaml").open(), file.open(), strict=True)
    assert [after for before, after in pairs if before != after] == ["    learning_rate: 2e-05\n"]
    assert load_params("mini", file).training.learning_rate == 2e-5
    file.write_text(f"{file.read_text()}profile: mini\n")
    assert 'found duplicate key "profile"' in message(file)


@pytest.mark.parametrize("profile", ["paper", "released", "smoke"])
def test_the_rehearsals_values_fit(tmp_path: Path, profile: str) -> None:
    changes = yaml.safe_load((ROOT / "tests/rehearsal.yaml").read_text())[profile]
    section = CONTENT["mini" if profile == "smoke" else profile]
    Params(profile=profile, **located(changed(section, changes), "http://a:8000", tmp_path))


@pytest.mark.parametrize(("profile", "key", "value", "error"), REFUSED)
def test_a_wrong_value_or_key_is_named(tmp_path, profile: str, key: str, value: Any, error: str) -> None:
    text = message(edited(tmp_path, f"{profile}.{key}", value), profile)
    assert (error in text, "sk-secret" in text) == (True, False), text


@pytest.mark.parametrize(("key", "value"), VALUES["taken"].items())
def test_what_just_works_is_taken(tmp_path: Path, key: str, value: Any) -> None:
    taken = load_params("mini", edited(tmp_path, f"mini.{key}", value))
    loaded: Any = taken.model_dump(exclude_unset=True)
    for part in key.split("."):
        loaded = loaded[int(part) if part.isdigit() else part]
    assert loaded == value
    assert taken.training.ranks == (16 if key == "training.deepspeed" else 1)


@pytest.mark.parametrize("profile", ["papper", "profile"])
def test_an_unknown_profile_lists_those_there_are(profile: str) -> None:
    text = message(ROOT / "params.yaml", profile)
    assert all(name in text for name in (f"no profile '{profile}'", *PROFILES))


LAUGHS = "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefgh"))
CONTENTS = [None, "", "mini: [1, 2", "- a\n- b\n", "profile: mini\nmini: 3\n", "[" * 5000, "&a [*a]"]
CONTENTS.append(f"a: &a [x]\n{LAUGHS}")


@pytest.mark.parametrize("content", CONTENTS)
def test_files_that_are_no_params(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "params.yaml").write_text(content)
    assert "params.yaml" in message(tmp_path / "params.yaml")


def test_a_section_that_is_null_leaves_its_stage_out(project: Path) -> None:
    assert set(left_out(load_params("released"))) == set(SHOWS)
    assert left_out(load_params("mini")) == left_out(load_params("paper")) == {}
    optional = {n for n, field in Params.model_fields.items() if type(None) in get_args(field.annotation)}
    assert optional - {"cluster", "training"} == set(SHOWS), "say in parts.SHOWS what a profile goes without"
    assert begin(load_params("mini"), "study")["steps"] == load_params("mini").study.steps
    assert begin(load_params("mini"), "finetune")["batch_size"] == load_params("mini").training.batch_size
    assert not (project / "artifacts").exists()
    for place in (["study"], ["finetune", "head"]):
        with pytest.raises(LeftOut, match=f"`{place[0]}: null`"):
            begin(load_params("released"), *place)
        note = project.joinpath("artifacts", *place, "README.md").read_text()
        assert "Not part of profile `released`" in note
