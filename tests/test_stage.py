"""The stage runner, with tiny notebooks executed for real in a throwaway project."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from fakevlm import stage
from fakevlm.errors import UserError

SPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}
LIVELY = """\
import sys
print(f"profile {profile}, benchmark {benchmark}, {object()}")
print("half way", file=sys.stderr)
print("again")
"""
DRAWING = """\
import matplotlib.pyplot as plt
plt.plot([1, 3, 2]);
"""


def write(
    project: Path, name: str, *sources: str, parameters: str = 'profile = None\nbenchmark = "fakeclue"'
) -> None:
    cells = [
        new_markdown_cell("# A test", id="title"),
        new_code_cell(parameters, id="params", metadata={"tags": ["parameters"]}),
        *[new_code_cell(source, id=f"step-{i}") for i, source in enumerate(sources)],
    ]
    notebook = new_notebook(cells=cells, metadata={"kernelspec": SPEC})
    nbformat.write(notebook, project / "notebooks" / f"{name}.ipynb")


def command(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "fakevlm", "stage", *arguments], capture_output=True, text=True, timeout=600
    )


@pytest.mark.slow
def test_two_runs_leave_the_same_bytes(project: Path) -> None:
    write(project, "tiny", LIVELY, DRAWING)
    copies = []
    for _ in range(2):
        done = command("tiny", "--profile", "mini", "benchmark=loki")
        assert done.returncode == 0, done.stderr
        assert "profile mini, benchmark loki" in done.stdout  # shown live
        # A kernel that ends on a busy machine may lose a race with itself and say so (ipykernel's pull
        # request 1518).
        shown = done.stderr.partition("ERROR:tornado.general:Uncaught exception in ZMQStream callback")[0]
        told = [line for line in shown.splitlines() if "font cache" not in line]  # a new machine's first plot
        assert told == ["half way"]  # progress lines, and no noise beside them
        copies.append((project / "artifacts/executed/tiny_loki.ipynb").read_bytes())
    assert copies[0] == copies[1]
    executed = nbformat.reads(copies[0].decode(), as_version=4)
    nbformat.validate(executed)
    cells = {cell.id: cell for cell in executed.cells}
    assert set(cells) == {"title", "params", "injected-parameters", "step-0", "step-1"}
    assert [output.text for output in cells["step-0"].outputs] == [
        "profile mini, benchmark loki, <object object at 0x…>\nagain\n"
    ]
    assert "image/png" in cells["step-1"].outputs[0].data
    assert "papermill" not in copies[0].decode().replace("papermill.record", "")


@pytest.mark.slow
def test_a_users_mistake_is_shown_without_traceback(project: Path) -> None:
    write(
        project,
        "tiny",
        "from fakevlm.errors import UserError",
        "raise UserError('no images in x', 'fetch them')",
    )
    done = command("tiny")
    assert done.returncode == stage.USER_ERROR
    assert done.stderr == "\ntiny: no images in x\n  → fetch them\n"
    assert not (project / "artifacts/executed/tiny.ipynb").exists()


@pytest.mark.slow
def test_a_failing_cell_is_named_with_the_end_of_its_traceback(project: Path) -> None:
    write(project, "tiny", "x = 0", "print('before')\n1 / x")
    done = command("tiny", "benchmark=loki")
    assert done.returncode == stage.FAILED
    assert 'tiny failed in cell 4 ("step-1")' in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "\x1b" not in done.stderr  # no colours in a log
    raw = project / "runs/notebooks/tiny_loki.ipynb"
    assert str(raw) in done.stderr
    assert "before" in raw.read_text()


@pytest.mark.slow
def test_a_dying_kernel_is_told(project: Path) -> None:
    write(project, "tiny", "import os\nos.kill(os.getpid(), 9)")
    done = command("tiny")
    assert done.returncode == stage.FAILED
    assert "its kernel died" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_notebook_lists_those_there_are(project: Path) -> None:
    write(project, "tiny")
    done = command("tinny")
    assert done.returncode == stage.USER_ERROR
    assert "choose one of: tiny" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("profile", "extra", "said"),
    [("papper", {}, "no profile 'papper'"), (None, {"benchmrk": "loki"}, "it has: profile, benchmark")],
)
def test_mistakes_stop_before_a_kernel_starts(project: Path, profile: str, extra: dict, said: str) -> None:
    write(project, "tiny")
    with pytest.raises(UserError, match=said):
        stage.run("tiny", profile, extra)
    assert not list((project / "runs").glob("notebooks/*.ipynb"))


def test_a_mistyped_params_file_stops_before_a_kernel_starts(project: Path) -> None:
    write(project, "tiny")
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("  seed:", "  sead:", 1))
    with pytest.raises(UserError, match=r"mini\.sead: unknown key"):
        stage.run("tiny")


def test_a_parameter_without_a_value_is_refused(project: Path) -> None:
    done = command("tiny", "benchmark")
    assert done.returncode == 1
    assert "'benchmark' is not KEY=VALUE" in done.stderr


def test_normalised_copy_loses_only_what_changes_by_itself() -> None:
    cell = new_code_cell(
        "x",
        metadata={
            "tags": ["injected-parameters"],
            "papermill": {"duration": 1},
            "execution": {"iopub.status.busy": "2026-01-01"},
        },
        outputs=[
            new_output(
                "stream", name="stdout", text="[2026-01-02 03:04:05,678] [WARNING] [x.py:2:f] no GPU\na\n"
            ),
            new_output("stream", name="stderr", text="12% 3 img/s\n"),
            new_output("stream", name="stdout", text="b <x at 0x7f00deadbeef>\n"),
            new_output("execute_result", data={"text/plain": "0x10 stays", "text/html": "<b>1</b>"}),
        ],
    )
    stamped = new_output("stream", name="stdout", text="[2026-01-02 03:04:05,678] [INFO] [x.py:2:f] hello\n")
    chatty = new_code_cell("y", outputs=[stamped])
    text = new_markdown_cell("Read me", id="prose", metadata={"papermill": {}})
    notebook = new_notebook(
        cells=[text, cell, chatty], metadata={"papermill": {"start": "now"}, "kernelspec": SPEC}
    )
    normal = stage.normalise(notebook)
    assert normal.metadata == {"kernelspec": SPEC}
    assert normal.cells[0] == {"cell_type": "markdown", "id": "prose", "metadata": {}, "source": "Read me"}
    assert normal.cells[1].id == "injected-parameters"
    assert normal.cells[1].metadata == {"tags": ["injected-parameters"]}
    stream, result = normal.cells[1].outputs
    assert stream.text == "a\nb <x at 0x…>\n"
    assert result.data == {"text/plain": "0x10 stays", "text/html": "<b>1</b>"}
    assert normal.cells[2].outputs == []


def test_starting_costs_no_heavy_import() -> None:
    code = "import sys, fakevlm.cli, fakevlm.stage; print(sorted({'torch', 'papermill', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


ASKED = """\
from fakevlm.config.params import load_params
from fakevlm.config.parts import begin
begin(load_params(profile), "study")
"""


@pytest.mark.slow
def test_a_stage_that_the_profile_leaves_out_is_done(project: Path) -> None:
    write(project, "asked", ASKED, "print('not in this profile')")
    done = command("asked", "--profile", "released")
    assert done.returncode == stage.DONE, done.stderr
    assert "Not part of profile `released`" in done.stderr
    assert "not in this profile" not in done.stdout
    text = (project / "artifacts/executed/asked.ipynb").read_text(encoding="utf-8")
    executed = nbformat.reads(text, as_version=4)
    nbformat.validate(executed)
    (output,) = [output for cell in executed.cells for output in cell.get("outputs", [])]
    assert [line for line in output["traceback"]] == [output["evalue"]]  # the sentence, and no traceback
    assert "error" not in "".join(c.source for c in executed.cells).lower()
    before = text
    assert command("asked", "--profile", "released").returncode == stage.DONE
    assert (project / "artifacts/executed/asked.ipynb").read_text(encoding="utf-8") == before
    assert command("asked", "--profile", "mini").returncode == stage.DONE
    assert "not in this profile" in (project / "artifacts/executed/asked.ipynb").read_text(encoding="utf-8")


@pytest.mark.slow
def test_work_in_progress_outlives_a_failure_and_goes_with_success(project: Path) -> None:
    source = """\
from fakevlm import paths
from fakevlm import cache
with cache.work() as store:
    store.put("00", b"half way")
assert (paths.root() / "now").exists()
"""
    write(project, "tiny", source, parameters="profile = None")
    work = project / "runs" / "work" / "mini" / "tiny"
    assert command("tiny").returncode == stage.FAILED
    assert (work / "cache.sqlite").is_file()
    (project / "now").touch()
    assert command("tiny").returncode == stage.DONE
    assert not work.exists()
