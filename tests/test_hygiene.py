"""The repository as a whole: what is in git, and whether dvc.yaml names the code that each stage runs."""

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from fakevlm import summary
from fakevlm.config.params import Params
from imports import ROOT, imported, modules, reached, syntax

MB = 1_000_000
MODULES = modules()
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())
# Modules that decide no number: a change of theirs runs no stage again.
PLUMBING = {
    "fakevlm",
    "fakevlm.errors",
    "fakevlm.paths",
    "fakevlm.progress",
    "fakevlm.plugins",
    "fakevlm.prefetch",
    "fakevlm.cache",
    "fakevlm.inference.ray_cluster",
}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


# ── git
# ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_large_in_git() -> None:
    sizes = {file: file.stat().st_size for file in tracked()}
    assert [str(file) for file, size in sizes.items() if size > 20 * MB] == []
    embedded = sum(size for file, size in sizes.items() if file.is_relative_to(ROOT / "embedded"))
    assert embedded < 20 * MB


def test_nothing_in_git_that_is_made_or_private() -> None:
    names = [str(file.relative_to(ROOT)) for file in tracked()]
    made = re.compile(
        r"(^|/)(__pycache__|\.ipynb_checkpoints|\.venv)/|^(runs|artifacts|data)/|\.(pyc|log|tmp)$|(^|/)\.env$"
    )
    assert [name for name in names if made.search(name)] == []


def test_no_path_of_somebodys_home_in_git() -> None:
    home = re.compile(rb"/(home|Users|root)/[A-Za-z]|[A-Z]:\\Users")
    binary = {".png", ".jpg", ".jpeg", ".PNG", ".JPEG", ".mp4", ".safetensors", ".parquet"}
    texts = [file for file in tracked() if file.suffix not in binary]
    assert [
        str(f.relative_to(ROOT)) for f in texts if home.search(f.read_bytes()) and f != Path(__file__)
    ] == []


# ── the environment
# ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_lock_pins_everything_and_names_no_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|--(extra-)?index|--find-links|@ ", text)
    pins = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert [pin for pin in pins if not re.match(r"[a-z0-9.-]+==[0-9][\w.+!]*( ; .+)?$", pin)] == []
    locked = {pin.split("==")[0] for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[^A-Za-z0-9._-]", name)[0].lower().replace("_", "-") for name in wanted}
    assert names <= locked


def test_conda_installs_the_same_lock() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {"pip": ["-r requirements.lock"]} in conda
    assert "python=3.11" in conda


def test_make_help_lists_every_command() -> None:
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rules = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert len(rules) >= 8
    assert [rule for rule in rules if f"make {rule}" not in re.sub(r"\x1b\[\d*m", "", done.stdout)] == []


def test_make_says_what_to_do_without_python_311(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    done = subprocess.run(["make", "setup", "PYTHON="], cwd=copy, capture_output=True, text=True)
    assert done.returncode != 0
    assert "FakeVLM needs Python 3.11" in done.stdout
    assert not (copy / ".venv").exists()


def test_ci_runs_the_two_commands() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    steps = re.findall(r"^step (.+)$", script.read_text(), re.M)
    assert steps == ["make test", "make repro"]
    assert subprocess.run(["bash", "-n", script]).returncode == 0


# ── the code
# ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_only_draws_or_starts_does_not_load_torch() -> None:
    for name, file in MODULES.items():
        if name.split(".")[1:2] in (
            ["reporting"],
            ["stage"],
            ["cli"],
            ["summary"],
            ["config"],
            ["data"],
        ):
            files = [file, *(MODULES[inner] for inner in reached(file, lazy=False))]
            outer = {other.split(".")[0] for each in files for other in imported(each, lazy=False)}
            assert not outer & {"torch", "transformers", "timm", "sentence_transformers"}, name


def _calls(file: Path) -> list[tuple[str, dict[str, ast.expr]]]:
    calls = [node for node in ast.walk(syntax(file)) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), {k.arg: k.value for k in call.keywords if k.arg}) for call in calls]


@pytest.mark.parametrize(
    "file", [*MODULES.values(), *sorted((ROOT / "notebooks").glob("*.ipynb"))], ids=lambda f: f.stem
)
def test_nothing_that_runs_code_from_a_file(file: Path) -> None:
    roots = {name.split(".")[0] for name in imported(file)}
    assert not roots & {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "shelve", "marshal"}
    for function, keywords in _calls(file):
        told = {key: getattr(value, "value", None) for key, value in keywords.items()}
        assert not told.get("trust_remote_code"), function
        assert not told.get("allow_pickle"), function
        assert function not in ("eval", "exec", "yaml.load", "pd.read_pickle")
        if function in ("torch.load", "load") and "torch" in function:
            assert told.get("weights_only") is True
        assert not (function.startswith("subprocess.") and told.get("shell"))


# ── the pipeline
# ─────────────────────────────────────────────────────────────────────────────────────────────────────


def instances(stage: dict) -> list[dict]:
    """A stage, or what its matrix makes of it."""
    if "matrix" not in stage:
        return [stage]
    ((key, values),) = stage["matrix"].items()
    text = yaml.safe_dump(stage)
    return [yaml.safe_load(text.replace(f"${{item.{key}}}", value)) for value in values]


STAGES = {name: instances(stage) for name, stage in DVC["stages"].items()}
OUTS = [
    next(iter(out)) if isinstance(out, dict) else out
    for all_ in STAGES.values()
    for s in all_
    for out in s["outs"]
]


def under(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


@pytest.mark.parametrize("name", list(STAGES))
def test_dependencies_exist(name: str) -> None:
    for stage in STAGES[name]:
        for dep in stage["deps"]:
            if dep.startswith("artifacts/"):
                assert any(under(dep, out) for out in OUTS), f"no stage makes {dep}"
                assert not dep.startswith("artifacts/executed"), "executed copies are to look at"
            elif dep.startswith("data/"):
                assert (ROOT / "embedded" / dep.removeprefix("data/")).exists(), f"{dep} is not in embedded/"
            else:
                assert (ROOT / dep).exists(), f"{dep} does not exist"


@pytest.mark.parametrize("name", list(STAGES))
def test_code_dependencies_are_those_that_the_notebook_imports(name: str) -> None:
    stage = STAGES[name][0]
    (notebook,) = [dep for dep in stage["deps"] if dep.startswith("notebooks/")]
    assert Path(notebook).stem == stage["cmd"].split()[2]
    reach = {
        module for module in reached(ROOT / notebook) - PLUMBING if not module.startswith("fakevlm.config")
    }
    if name != "report":  # elsewhere pictures are only shown: a new colour must not train a model again
        reach = {module for module in reach if not under(module.replace(".", "/"), "fakevlm/reporting")}
    used = {str(MODULES[module].relative_to(ROOT)) for module in reach}
    # a module's data lies beside it, under the same name
    used |= {file[:-3] + ".yaml" for file in used if (ROOT / file).with_suffix(".yaml").exists()}
    declared = [dep for dep in stage["deps"] if dep.startswith("src/")]
    # a package's empty __init__.py decides nothing
    used = {file for file in used if (ROOT / file).name != "__init__.py" or syntax(ROOT / file).body[1:]}
    assert sorted(file for file in used if not any(under(file, dep) for dep in declared)) == [], (
        "imported, not declared"
    )
    assert sorted(dep for dep in declared if not any(under(file, dep) for file in used)) == [], (
        "declared, not imported"
    )


def test_stages_and_sections_fit_each_other() -> None:
    sections = {name for name in Params.model_fields if name != "profile"}
    read = {
        key.removeprefix("${profile}.").split(".")[0]
        for all_ in STAGES.values()
        for s in all_
        for key in s["params"]
    }
    assert read - {"profile", "${profile}"} == sections - {
        "report",
        "cluster",
    }  # report: the whole profile; a cluster decides no number
    assert "${profile}" in STAGES["report"][0]["params"]
    for all_ in STAGES.values():
        for stage in all_:
            assert "profile" in stage["params"]
            assert "--profile ${profile}" in stage["cmd"]


def test_figures_come_from_the_report_alone() -> None:
    makers = [
        name for name, all_ in STAGES.items() for s in all_ if any("figures" in str(out) for out in s["outs"])
    ]
    assert makers == ["report"]
    assert {"figures": {"cache": False}} in DVC["stages"]["report"]["outs"]


def test_data_is_an_import_that_needs_no_remote() -> None:
    data = yaml.safe_load((ROOT / "data.dvc").read_text())
    assert [dep["path"] for dep in data["deps"]] == ["embedded"]
    assert [out["path"] for out in data["outs"]] == ["data"]
    assert not data.get("frozen"), "frozen: a fresh clone would look for a remote"
    settings = (ROOT / ".dvc/config").read_text()
    assert "analytics = false" in settings
    assert "url" not in settings


# ── README and docs
# ──────────────────────────────────────────────────────────────────────────────────────────────────


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_only_what_exists(page: Path) -> None:
    text = page.read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []
    code = re.findall(r"`((?:src|notebooks|tests|figures|benchmarks|integrations)/[\w./-]+\w)`", text)
    assert [path for path in code if not (ROOT / path).exists()] == []
    rules = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"make ([a-z]+)`", text)) <= set(rules)


def test_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 140] == []


def test_readme_shows_the_numbers_of_the_committed_tables(tmp_path: Path) -> None:
    """A run on another processor rounds differently and may change figures/; what is committed must agree."""
    for name in {table for table, *_ in summary.MAIN}:
        show = ["git", "show", f"HEAD:figures/{name}.csv"]
        done = subprocess.run(show, cwd=ROOT, capture_output=True)
        if done.returncode:
            pytest.skip("not a git checkout")
        (tmp_path / f"{name}.csv").write_bytes(done.stdout)
    table = (ROOT / "README.md").read_text().split("<!-- results")[1].split("-->", 1)[1].split("<!--")[0]
    assert table.strip() == summary.markdown(tmp_path)
