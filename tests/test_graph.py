"""dvc.yaml as DVC itself resolves it, in every profile: the same stages, outputs and dependencies; only names differ."""

import shutil
from pathlib import Path

import pytest
import yaml

from conftest import ROOT

CONTENT = yaml.safe_load((ROOT / "params.yaml").read_text())
PROFILES = [name for name in CONTENT if name != "profile"]


def resolved(folder: Path, profile: str) -> dict[str, dict]:
    """Stage name → its command, dependencies, parameters and outputs in a profile, by DVC's own resolver."""
    from dvc.repo import Repo

    folder.mkdir()
    shutil.copy(ROOT / "dvc.yaml", folder)
    (folder / "params.yaml").write_text(yaml.safe_dump(CONTENT | {"profile": profile}, sort_keys=False))
    Repo.init(str(folder), no_scm=True).close()
    found = {}
    with Repo(str(folder)) as repo:
        for stage in repo.index.stages:
            params = [key for dep in stage.params for key in dep.params]
            deps = [str(dep.def_path) for dep in stage.deps if dep not in stage.params]
            found[stage.name] = {
                "cmd": stage.cmd,
                "params": sorted(params),
                "deps": sorted(deps),
                "outs": sorted(str(out.def_path) for out in stage.outs),
            }
    return found


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict]]:
    folder = tmp_path_factory.mktemp("graphs")
    return {profile: resolved(folder / profile, profile) for profile in PROFILES}


def test_every_profile_has_the_same_graph(graphs: dict[str, dict[str, dict]]) -> None:
    assert {"mini", "released", "paper"} <= set(graphs)
    mini = graphs["mini"]
    assert {"collect", "finetune@head", "evaluate@ffpp", "report"} <= set(mini)
    for profile, graph in graphs.items():
        assert list(graph) == list(mini)
        for address, stage in graph.items():
            for key in ("deps", "outs"):
                assert stage[key] == mini[address][key], f"{profile}, {address}"


def test_only_the_profiles_name_differs(graphs: dict[str, dict[str, dict]]) -> None:
    for profile, graph in graphs.items():
        for address, stage in graph.items():
            assert stage["cmd"] == graphs["mini"][address]["cmd"].replace("mini", profile)
            assert stage["params"] == sorted(
                key.replace("mini", profile) for key in graphs["mini"][address]["params"]
            )


def test_a_stage_depends_on_whole_folders_of_those_that_may_be_left_out(
    graphs: dict[str, dict[str, dict]],
) -> None:
    from fakevlm.config.parts import SHOWS

    made = {
        out
        for stage in graphs["mini"].values()
        for out in stage["outs"]
        if any(out == f"artifacts/{name}" or out.startswith(f"artifacts/{name}/") for name in SHOWS)
    }
    assert len(made) == 6
    inside = [
        dep
        for stage in graphs["mini"].values()
        for dep in stage["deps"]
        if any(dep.startswith(f"{out}/") for out in made)
    ]
    assert inside == [], "a profile that leaves the stage out would lack it"
