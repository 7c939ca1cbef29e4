"""The stage runner, with tiny notebooks executed for real in a throwaway project."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from conftest import ROOT
from fakevlm import stage
from fakevlm.cache import Cache
from fakevlm.errors import UserError

SPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}
LIVELY = """\
import os, sys
import matplotlib.pyplot as plt
print(f"profile {profile}, benchmark {benchmark}, {os.environ['OMP_NUM_THREADS']} thread, {object()}")
print("half way", file=sys.stderr)
print("[2026-01-02 03:04:05,678] [WARNING] [x.py:2:f] as DeepSpeed logs")
print("again, 0x10")
object()
"""


def write(project: Path, *sources: str) -> None:
    parameters, tags = 'profile = None\nbenchmark = "fakeclue"', {"tags": ["parameters"]}
    cells = [new_markdown_cell("# A test", id="title"), new_code_cell(parameters, id="params", metadata=tags)]
    cells += [new_code_cell(source, id=f"step-{i}") for i, source in enumerate(sources)]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": SPEC})
    nbformat.write(notebook, project / "notebooks" / "tiny.ipynb")


def command(*arguments: str) -> subprocess.CompletedProcess:
    run = [sys.executable, "-m", "fakevlm", "stage", *arguments]
    return subprocess.run(run, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_two_runs_leave_the_same_bytes(project: Path) -> None:
    write(project, LIVELY, "plt.plot([1, 3, 2]);")
    copies = []
    for _ in range(2):
        done = command("tiny", "--profile", "mini", "benchmark=loki")
        assert done.returncode == 0, done.stderr
        assert "profile mini, benchmark loki" in done.stdout  # shown live
        # A kernel that ends on a busy machine may lose a race with itself and say so (ipykernel's pull
        # request 1518); a new machine's first plot builds a font cache.
        shown = done.stderr.partition("ERROR:tornado.general:Uncaught exception in ZMQStream callback")[0]
        lines = [line for line in shown.splitlines() if "font cache" not in line]
        assert lines == ["half way"]  # progress lines, and no noise beside them
        copies.append((project / "artifacts/executed/tiny_loki.ipynb").read_text())
    assert copies[0] == copies[1]
    executed = nbformat.reads(copies[0], as_version=4)
    nbformat.validate(executed)
    cells = {cell.id: cell for cell in executed.cells}
    assert set(cells) == {"title", "params", "injected-parameters", "step-0", "step-1"}
    output, result = cells["step-0"].outputs
    assert output.text == "profile mini, benchmark loki, 1 thread, <object object at 0x…>\nagain, 0x10\n"
    assert result.data == {"text/plain": "<object at 0x…>"}
    assert "image/png" in cells["step-1"].outputs[0].data
    assert "papermill" not in copies[0].replace("papermill.record", "")


@pytest.mark.slow
def test_an_experiment_stays_in_its_workspace_and_saving_in_jupyterlab_makes_nothing_stale(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: str) -> str:
        return subprocess.check_output(command.split(), cwd=project, text=True)

    monkeypatch.delenv("FAKEVLM_ROOT")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(project / "runs/site"))
    shutil.copytree(ROOT / "tests/pipeline", project, dirs_exist_ok=True)
    shutil.copytree(ROOT / "src/fakevlm", project / "src/fakevlm")
    (project / "src/fakevlm/mine.py").write_text("NUMBER = 5")
    shutil.copy(ROOT / "notebooks/jupyter_server_config.py", project / "notebooks")
    run("git init -q")
    run("dvc init -q")
    for command in "config user.name me", "config user.email me@here", "add .", "commit -qm all":
        run(f"git {command}")
    run("dvc exp run --temp -S mini.report.cases=4")
    assert run("git status --porcelain") == ""
    (result,) = run("git for-each-ref --format=%(refname) refs/exps/*/*/*").split()
    assert run(f"git show {result}:figures/numbers") == "4 5", "the workspace's settings and code"
    assert Cache(project / "runs/answers.sqlite").get("00") == b"paid for"

    run("dvc repro")
    source = (project / "notebooks/tiny.ipynb").read_bytes()
    run("python lab.py")
    assert (project / "notebooks/tiny.ipynb").read_bytes() == source
    assert "up to date" in run("dvc status")
    assert r'"done\n"' in (project / "notebooks/copy.ipynb").read_text(), "other notebooks keep their outputs"


FULL_DISK = """\
try:
    raise OSError(28, "No space left on device")
finally:
    raise ValueError("Operation on closed file")
"""
MISTAKE = ["from fakevlm.errors import UserError", "raise UserError('no images in x', 'fetch them')"]
ENDS = {
    "a user's mistake": (MISTAKE, stage.USER_ERROR, "\ntiny: no images in x\n  → fetch them\n"),
    "a full disk": (
        [FULL_DISK],
        stage.USER_ERROR,
        "\ntiny: No space left on device (Operation on closed file)\n",
    ),
    "a failing cell": (
        ["x = 0", "1 / x"],
        stage.FAILED,
        '\ntiny failed in cell 4 ("step-1"); the end of its traceb',
    ),
    "a dying kernel": (["import os\nos.kill(os.getpid(), 9)"], stage.FAILED, "its kernel died"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("sources", "code", "error"), ENDS.values(), ids=ENDS)
def test_what_goes_wrong_is_told(project: Path, sources: list[str], code: int, error: str) -> None:
    write(project, *sources)
    done = command("tiny", "benchmark=loki")
    assert done.returncode == code
    assert error in done.stderr
    assert ("Traceback" in done.stderr) == ("ZeroDivisionError: division by zero" in done.stderr)
    assert "\x1b" not in done.stderr, "no colours in a log"
    assert not (project / "artifacts/executed/tiny_loki.ipynb").exists()
    raw = project / "runs/notebooks/tiny_loki.ipynb"
    assert (str(raw) in done.stderr) == (code == stage.FAILED)


def test_mistakes_stop_before_a_kernel_starts(project: Path) -> None:
    write(project)
    mistakes = {"choose one of: merged, tiny": ["tinny"], "no profile 'papper'": ["tiny", "papper"]}
    (project / "notebooks/merged.ipynb").write_text('<<<<<<< HEAD\n{"cells": []}\n')
    mistakes["conflict marks"] = ["merged"]
    mistakes["it has: profile, benchmark"] = ["tiny", None, {"benchmrk": "loki"}]
    for error, arguments in mistakes.items():
        with pytest.raises(UserError, match=error):
            stage.run(*arguments)
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("  seed:", "  sead:", 1))
    done = command("tiny")
    assert done.returncode == stage.USER_ERROR
    assert "mini: unknown key sead" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((project / "runs").glob("notebooks/*.ipynb"))


ABSENT = """\
from fakevlm.config.params import load_params
from fakevlm.config.parts import begin
begin(load_params(profile), "study")
"""


@pytest.mark.slow
def test_a_stage_that_the_profile_leaves_out_is_done(project: Path) -> None:
    write(project, ABSENT, "print('not in this profile')")
    done = command("tiny", "--profile", "released")
    assert done.returncode == stage.DONE, done.stderr
    assert "Not part of profile `released`" in done.stderr
    assert "not in this profile" not in done.stdout
    executed = nbformat.read(project / "artifacts/executed/tiny.ipynb", as_version=4)
    nbformat.validate(executed)
    (output,) = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert output["traceback"] == [output["evalue"]]  # the sentence, and no traceback
    assert "error" not in "".join(c.source for c in executed.cells).lower()
