"""The repository as a whole: what is in git, and whether dvc.yaml names the code that each stage runs."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache, reduce
from operator import getitem
from pathlib import Path

import grimp
import numpy as np
import pytest
import yaml
from safetensors import safe_open

from conftest import ROOT
from fakevlm import plugins
from fakevlm.config.params import Params
from fakevlm.config.parts import SHOWS
from test_docs import read

MB = 1_000_000
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
# Modules that decide no number: a change of theirs runs no stage again.
PLUMBING = ("errors", "paths", "progress", "plugins", "prefetch", "cache", "inference.ray_cluster", "config")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_nothing_large_made_or_private_in_git() -> None:
    sizes = {file: file.stat().st_size for file in tracked()}
    assert [str(file) for file, size in sizes.items() if size > 20 * MB] == []
    assert sum(size for file, size in sizes.items() if file.is_relative_to(ROOT / "embedded")) < 26 * MB
    folders = r"(^|/)(__pycache__|\.ipynb_checkpoints|\.venv)/|^(runs|artifacts|data)/"
    junk = re.compile(folders + r"|\.(pyc|log|tmp|bin|pth?|ckpt|pkl|pickle|joblib|np[yz]|h5)$|(^|/)\.env$")
    assert [file for file in sizes if junk.search(str(file.relative_to(ROOT)))] == []
    home = re.compile(rb"/(home|Users|root)/[A-Za-z]|[A-Z]:\\Users")
    binary = {".png", ".jpg", ".jpeg", ".PNG", ".JPEG", ".mp4", ".safetensors", ".parquet"}
    texts = [file for file in sizes if file.suffix not in binary and file != Path(__file__)]
    assert [file for file in texts if home.search(file.read_bytes())] == []


SECRETS = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY|\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[opsur]_\w{36}|github_pat_\w{22}"
    rb"|\bhf_\w{30}|\bsk-[\w-]{20}|\bxox[abprs]-[\w-]{10}|\bAIza[\w-]{35}|\beyJ[\w-]{10,}\.eyJ"
)
IMAGES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")


def test_scan_weights_are_tensors_alone_and_texts_hold_no_secret() -> None:
    assert all(map(SECRETS.search, [b"AKIA" + b"Z" * 16, b"sk-" + b"a" * 24, b"hf_" + b"a" * 34]))
    for file in tracked():
        content = file.read_bytes()
        if content.startswith(b"\xff\xfe"):  # LOKI's texts
            content = content.decode("utf-16").encode()
        if file.suffix == ".safetensors":
            with safe_open(file, "numpy") as weights:  # refuses a header that does not fit
                names = weights.keys()  # it cannot be iterated itself
                assert all(np.isfinite(weights.get_tensor(name)).all() for name in names), file
        elif b"\0" in content:  # neither weights nor an archive, whatever their names say
            assert content[4:8] == b"ftyp" or content.startswith(IMAGES), file
        else:
            assert not SECRETS.search(content), file


def test_the_lock_pins_everything_names_no_host_and_serves_conda() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|--(extra-)?index|--find-links|@ ", text)
    pins = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert [pin for pin in pins if not re.match(r"[a-z0-9.-]+==[0-9][\w.+!]*( ; .+)?$", pin)] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[^A-Za-z0-9._-]", name)[0].lower().replace("_", "-") for name in wanted}
    assert names <= {pin.split("==")[0] for pin in pins}
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {"pip": ["-r requirements.lock"]} in conda


def test_make_says_what_to_do_without_python(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    done = subprocess.run(["make", "setup", "PYTHON="], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    assert "FakeVLM needs Python 3.11" in done.stdout
    assert not (tmp_path / ".venv").exists()


@cache
def graph() -> grimp.ImportGraph:
    """Return who imports whom. A module also imports its package, and what it loads by name."""
    imports = grimp.build_graph("fakevlm", "miniworld")
    for module in sorted(imports.modules):
        if "." in module:
            imports.add_import(importer=module, imported=module.rpartition(".")[0])
    loaded = {"annotation.annotate": plugins.ANNOTATORS, "synthesis.rendered": plugins.RENDERERS}
    for module, registered in loaded.items():
        for reference in registered.values():
            imports.add_import(importer=f"fakevlm.{module}", imported=reference.split(":")[0])
    return imports


def reached(notebook: Path) -> set[str]:
    """Return the packages' modules that a notebook imports directly or through others."""
    sources = [cell.source for cell in read(notebook).cells if cell.cell_type == "code"]
    names = set()
    for node in ast.walk(ast.parse(re.sub(r"(?m)^[%!].*$", "", "\n".join(sources)))):
        if isinstance(node, ast.ImportFrom):
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    direct = names & graph().modules
    return direct.union(*(graph().find_upstream_modules(name) for name in direct))


def file_of(module: str) -> Path:
    """Return a module's file. A folder without `__init__.py` is no package: old checkouts may hold some."""
    path = ROOT / "src" / module.replace(".", "/")
    package = path / "__init__.py"
    return package if package.is_file() else path.with_suffix(".py")


def test_what_only_draws_or_starts_does_not_load_torch() -> None:
    rooms = ("reporting", "stage", "cli", "summary", "config", "data", "annotation", "inference.endpoint")
    prefixes = tuple(f"fakevlm.{room}" for room in rooms)
    light = [name for name in sorted(graph().modules) if name.startswith(prefixes)]
    code = f"import sys, importlib, json\nfor name in {light}: importlib.import_module(name)\n"
    code += "print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "timm", "sentence_transformers", "openai", "aiohttp"}
    assert not heavy & set(json.loads(done.stdout))


def test_nothing_runs_code_from_a_file() -> None:
    """Beside what ruff checks (rules S: pickle, eval, exec, YAML's unsafe loader, shells)."""
    unsafe = re.compile(r"trust_remote_code=True|allow_pickle=True|torch\.load\((?!.*weights_only=True)")
    files = [*(ROOT / "src").rglob("*.py"), *(ROOT / "notebooks").glob("*.ipynb")]
    assert [file for file in files if unsafe.search(file.read_text(encoding="utf-8"))] == []


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    """Return by stage its command, dependencies, parameters and outputs in the miniature."""
    from dvc.repo import Repo

    folder = tmp_path_factory.mktemp("graph")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    Repo.init(str(folder), no_scm=True).close()
    with Repo(str(folder)) as repo:
        return {
            stage.name: {
                "cmd": stage.cmd,
                "params": sorted(key for dep in stage.params for key in dep.params),
                "deps": sorted(str(dep.def_path) for dep in stage.deps if dep not in stage.params),
                "outs": sorted(str(out.def_path) for out in stage.outs),
            }
            for stage in repo.index.stages
        }


def under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def test_every_profile_has_the_settings_that_stages_name(stages: dict[str, dict]) -> None:
    for profile in PARAMS.keys() - {"profile"}:
        for key in {key for stage in stages.values() for key in stage["params"]} - {"profile"}:
            reduce(getitem, key.split(".")[1:], PARAMS[profile])


def test_dependencies_exist(stages: dict[str, dict]) -> None:
    outs = [out for stage in stages.values() for out in stage["outs"]]
    for dep in {dep for stage in stages.values() for dep in stage["deps"]}:
        if dep.startswith("artifacts/"):
            assert any(under(dep, out) for out in outs), f"no stage makes {dep}"
            assert not dep.startswith("artifacts/executed"), "executed copies are to look at"
            whole = dep in outs or dep.split("/")[1] not in SHOWS
            assert whole, "a stage that may be left out: depend on its whole folder"
        elif dep.startswith("data/"):
            assert (ROOT / "embedded" / dep.removeprefix("data/")).exists(), f"{dep} is not in embedded/"
        else:
            assert (ROOT / dep).exists(), f"{dep} does not exist"
    assert [name for name, stage in stages.items() if "figures" in stage["outs"]] == ["report"]
    compared = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    assert {ROOT / name for name in compared["metrics"] + compared["plots"]} <= set(tracked()), "in git"


def test_code_dependencies_are_those_that_the_notebook_imports(stages: dict[str, dict]) -> None:
    for name, stage in stages.items():
        (notebook,) = [dep for dep in stage["deps"] if dep.startswith("notebooks/")]
        assert Path(notebook).stem == stage["cmd"].split()[2]
        # Elsewhere pictures are only shown: a new colour must not train a model again.
        free = [f"fakevlm.{room}" for room in (*PLUMBING, *(() if name == "report" else ("reporting",)))]
        prefixes = tuple(f"{module}." for module in free)
        modules = [m for m in reached(ROOT / notebook) - {"fakevlm"} if not f"{m}.".startswith(prefixes)]
        used = set()
        for file in map(file_of, modules):
            # An __init__.py that only describes its package decides nothing.
            if file.name != "__init__.py" or ast.parse(file.read_text()).body[1:]:
                data = file.with_suffix(".yaml")  # lies beside its module, under the same name
                used |= {str(f.relative_to(ROOT)) for f in (file, data) if f.exists()}
        declared = [dep for dep in stage["deps"] if dep.startswith("src/")]
        assert sorted(f for f in used if not any(under(f, dep) for dep in declared)) == [], f"{name} lacks"
        assert [d for d in declared if not any(under(f, d) for f in used)] == [], f"{name} does not import"


def test_a_setting_runs_only_the_stages_that_use_it(stages: dict[str, dict]) -> None:
    def stale(key: str) -> set[str]:
        uses = [n for n, s in stages.items() if any(f"mini.{key}.".startswith(f"{p}.") for p in s["params"])]
        return {name.split("@")[0] for name in uses} - {"report"}

    assert all(stage["params"] == ["mini", "profile"] for name, stage in stages.items() if name == "report")
    assert stale("finetune.epochs") == {"finetune"}, "the study trains by steps of its own"
    assert stale("training.batch_size") == {"study", "finetune"}
    assert stale("evaluate.baselines") == {"evaluate"}
    assert stale("annotate.annotators") == {"annotate"}
    assert stale("cluster.workers") == set(), "where models compute decides no number"
    for section in set(Params.model_fields) - {"profile", "cluster", "report"}:
        assert stale(section), f"no stage names {section}"
