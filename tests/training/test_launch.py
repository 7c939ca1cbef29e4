"""Starting ranks on one machine, over ssh and under Slurm; what they report and how they end."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

import clusters
import tinyllava
from conftest import ROOT
from fakevlm.config.params import DeepSpeed, load_params
from fakevlm.data.records import write_records
from fakevlm.errors import UserError
from fakevlm.training import __main__ as child
from fakevlm.training import ranks, trainer
from fakevlm.training.finetune import Run, finetune

NOTEBOOK = """
from fakevlm import paths
from fakevlm.config.params import load_params
from fakevlm.training.finetune import finetune
finetune(load_params(), "explanation", paths.artifacts("finetune", "explanation"))
"""
DATA = tinyllava.records(20), tinyllava.records(8, 1)
TUNE = {"batch_size": 2, "epochs": 4.0, "checkpoint_every": 3}
LONG = TUNE | {"epochs": 12.0}  # else it is over before anything can be killed
SBATCH = ROOT / "examples/finetune.sbatch"


@pytest.fixture
def tuned(project, base):
    """A project with a base and shards; called with the section `deepspeed`, returns its parameters."""
    shutil.copytree(base, project / "base")
    for split, records in zip(("train", "val"), DATA, strict=True):
        write_records(records, project / "artifacts/annotate/fakeclue" / split)

    def write(section, **tune):
        values = tinyllava.params(project / "base", **tune).model_dump(exclude={"profile"})
        values["training"]["deepspeed"] = section
        (project / "params.yaml").write_text(yaml.safe_dump({"profile": "mini", "mini": values}))
        return load_params()

    return write


@pytest.fixture
def runs(project):
    return project / "runs/work/mini/05_finetune_explanation"


def until(condition, what=lambda: "", seconds: float = 280.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def processes(project: Path) -> list[psutil.Process]:
    """The ranks that train in a project."""
    running = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            ours = process.environ().get("FAKEVLM_ROOT") == str(project)
            if ours and "fakevlm.training" in process.cmdline():
                running.append(process)
    return running


def started(runs: Path) -> subprocess.Popen:
    """A notebook whose training has written a checkpoint."""
    notebook = subprocess.Popen([sys.executable, "-c", NOTEBOOK], stderr=subprocess.PIPE, text=True)
    until(lambda: list(runs.glob("*/checkpoint-*/complete")) or notebook.poll() is not None)
    assert notebook.poll() is None, notebook.stderr.read()
    return notebook


def goes_on(params, project: Path, runs: Path, **tune) -> None:
    """The one run there is goes on, and its export is that of one process with the batch of both ranks."""
    (run,) = runs.iterdir()
    finetune(params, "explanation", project / "artifacts/finetune/explanation")
    assert list(runs.iterdir()) == [run]
    alone = tinyllava.run(project / "base", project / "one", data=DATA, **tune | {"batch_size": 4})
    alone.train()
    alone.export(project / "exported")
    places = project / "artifacts/finetune/explanation", project / "exported"
    two, one = (load_file(folder / "model/model.safetensors") for folder in places)
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


def unfinished(runs: Path) -> bool:
    (run,) = runs.iterdir()
    return trainer.finished(run) is None


@pytest.mark.parametrize(
    ("hosts", "message"),
    [
        (None, "no file"), ("node1 slots=8\nnode2 slots=4\n", "does not hold 2 node"),
        ("node1 slots=8\nnode2\n", "no hostfile of DeepSpeed's"),
    ],
)  # fmt: skip
def test_a_hostfile_that_does_not_fit_is_named(project, hosts, message):
    if hosts is not None:
        (project / "hosts").write_text(hosts)
    with pytest.raises(UserError, match=message):
        ranks.command(DeepSpeed(stage=2, processes=8, nodes=2, hostfile="hosts"), [])


def test_nodes_without_a_hostfile_are_slurms(project):
    with pytest.raises(UserError, match=r"nodes is 2.*no hostfile") as caught:
        ranks.command(DeepSpeed(stage=2, processes=8, nodes=2), ["--objective=label", "--work=my runs"])
    assert caught.value.cure.endswith("sbatch examples/finetune.sbatch --objective=label '--work=my runs'")
    *arguments, others = SBATCH.read_text().split("-m fakevlm.training")[1].replace('"', "").split()
    parsed = child.parse(arguments)
    assert (parsed.profile, parsed.objective, others) == ("$PROFILE", "$OBJECTIVE", "$@")


@pytest.fixture
def pretend(project, monkeypatch):
    """Starts a few lines of Python in place of launcher and ranks; returns the run's folder."""

    def pretended(script):
        monkeypatch.setattr(ranks, "command", lambda *_: [sys.executable, "-c", script])
        ranks.start(DeepSpeed(stage=2, processes=2), [], project)

    return pretended


def test_progress_and_failures_of_ranks_arrive_and_everything_is_logged(pretend, project, capfd):
    lines = ["finetune label:  50%|#####     | 1/2 [00:01<00:01]", "[2026-01-01 00:00:00,000] [INFO] noise"]
    pretend(f"print({lines[0]!r}); print({lines[1]!r})")
    assert capfd.readouterr().err.strip().splitlines() == [lines[0]]
    assert (project / ranks.LOG).read_text().splitlines() == lines
    mistake = ["a prompt takes 30 tokens", "raise max_length"]
    file = project / ranks.ERROR
    with pytest.raises(UserError) as caught:
        pretend(f"open({str(file)!r}, 'w').write({json.dumps(mistake)!r}); raise SystemExit(2)")
    assert [caught.value.what, caught.value.cure] == mistake
    # The earlier start's mistake is gone.
    with pytest.raises(RuntimeError, match=r"exit code 3(.|\n)*the end"):
        pretend("print('the end'); raise SystemExit(3)")


def test_an_interrupted_notebook_ends_its_ranks(pretend, project, monkeypatch, capfd):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", interrupt)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pretend("import sys, time; sys.stdout.write('1\\n'); sys.stdout.flush(); time.sleep(600)")
    assert time.monotonic() - start < 60


def test_a_mistake_in_a_rank_is_written_for_the_notebook(tuned, capsys):
    params = tuned(None, **TUNE, max_length=20)
    assert child.main(["--profile=papper"]) == 2
    assert "no profile 'papper'" in capsys.readouterr().err
    assert child.main([]) == 2
    assert "max_length is 20" in capsys.readouterr().err
    folder = Run(params, "explanation").folder
    assert "max_length is 20" in json.loads((folder / ranks.ERROR).read_text())[0]


def test_a_disk_that_is_full_of_a_checkpoint_is_told(tuned, capsys, monkeypatch):
    tuned(None, **TUNE)
    save = torch.save
    monkeypatch.setattr(torch, "save", lambda state, *_, **options: save(state, "/dev/full", **options))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=4096))
    assert child.main([]) == 2
    assert "No space left on device ([enforce fail" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_notebooks_ranks_end_and_it_goes_on(tuned, project, runs):
    params = tuned({"stage": 3, "processes": 2}, **TUNE)
    with started(runs) as notebook:
        notebook.kill()
    until(lambda: not processes(project))
    assert unfinished(runs)
    goes_on(params, project, runs, **TUNE)


@pytest.fixture
def nodes(project, monkeypatch):
    with clusters.over_ssh(project / "ssh") as folder:
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        (project / ".deepspeed_env").write_text(f"FAKEVLM_ROOT={project}\n")  # ssh takes no variables along
        yield project


@pytest.mark.slow
@pytest.mark.skipif(not clusters.HAS_SSH, reason="needs openssh-server and pdsh")
def test_two_nodes_over_ssh_go_on_after_a_kill(tuned, nodes, runs):
    params = tuned({"stage": 2, "processes": 1, "nodes": 2, "hostfile": "hosts"}, **LONG)
    (nodes / "hosts").write_text("node1 slots=1\ngone slots=1\n")
    with pytest.raises(UserError, match=r"hosts.*gone.*refused"):
        finetune(params, "explanation", nodes / "out")
    (nodes / "hosts").write_text("node1 slots=1\nnode2 slots=1\n")
    # A rank of the second node is killed: the notebook fails instead of waiting, and no process remains.
    notebook = started(runs)
    (second,) = [process for process in processes(nodes) if process.environ().get("RANK") == "1"]
    second.kill()
    _, output = notebook.communicate(timeout=280)
    assert notebook.returncode, "it was to be killed before it was done"
    assert "a rank failed" in output
    until(lambda: not processes(nodes))
    assert unfinished(runs)
    goes_on(params, nodes, runs, **LONG)


SUBMIT = ("sbatch", "--parsable", "--export=ALL,PROFILE=mini,GPUS=1", SBATCH)


def slurm(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def state(job: str) -> str:
    return re.search(r"JobState=(\w+)", slurm("scontrol", "show", "job", job))[1]


@pytest.mark.slow
@pytest.mark.skipif(not clusters.HAS_SLURM, reason="needs slurm-wlm")
def test_a_cancelled_slurm_job_submitted_again_goes_on(tuned, project, runs, monkeypatch):
    params = tuned({"stage": 2, "processes": 1, "nodes": 2}, **LONG)
    (project / "runs").mkdir()
    (project / ".venv").symlink_to(sys.prefix)
    monkeypatch.chdir(project)

    def log(job: str) -> str:
        file = Path(f"runs/slurm-{job}.log")
        return file.read_text() if file.exists() else state(job)

    with clusters.under_slurm():
        job = slurm(*SUBMIT)
        until(lambda: list(runs.glob("*/checkpoint-*/complete")) or state(job) == "FAILED", lambda: log(job))
        slurm("scancel", job)
        until(lambda: state(job) not in ("RUNNING", "COMPLETING"), lambda: log(job))
        assert state(job) == "CANCELLED", log(job)
        assert unfinished(runs), "it was to be cancelled before it was done"
        job = slurm(*SUBMIT)
        until(lambda: state(job) in ("COMPLETED", "FAILED"), lambda: log(job))
        assert state(job) == "COMPLETED", log(job)
    assert not unfinished(runs), "what is left is the export"
    goes_on(params, project, runs, **LONG)
