"""Two nodes under Slurm, for real: a controller and two nodes of this machine's, and examples/finetune.sbatch as it is."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import slurmnodes
import tinyllava
from conftest import ROOT
from fakevlm.config.params import load_params
from fakevlm.data.records import write_records
from fakevlm.training import checkpoints, launch
from fakevlm.training.finetune import Run
from test_training_launch import TUNE

LONG = TUNE | {"epochs": 12.0}  # else it is over before it can be cancelled
pytestmark = pytest.mark.skipif(not slurmnodes.READY, reason="needs slurm-wlm")


def _submit(**told: str) -> str:
    """A job's number."""
    given = ",".join(f"{name}={value}" for name, value in told.items())
    command = ["sbatch", "--parsable", f"--export=ALL,{given}", ROOT / "examples/finetune.sbatch"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def _state(job: str) -> str:
    asked = ["scontrol", "show", "job", job]
    said = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=60).stdout
    return re.search(r"JobState=(\w+)", said)[1]


def _until(what, job: str, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        log = Path(f"runs/slurm-{job}.log")
        assert time.monotonic() < deadline, log.read_text() if log.exists() else _state(job)
        time.sleep(0.05)


@pytest.mark.slow
def test_a_cancelled_job_submitted_again_goes_on_and_learns_what_one_process_learns(project, monkeypatch):
    base = tinyllava.build(project / "base")
    for split, records in (("train", tinyllava.records(20)), ("val", tinyllava.records(8, 1))):
        write_records(records, project / "artifacts/annotate/fakeclue" / split)
    values = tinyllava.params(base, **LONG).model_dump(exclude={"profile"})
    values["finetune"]["deepspeed"] = {"stage": 2, "processes": 1, "nodes": 2}
    (project / "params.yaml").write_text(yaml.safe_dump({"profile": "mini", "mini": values}))
    (project / "runs").mkdir()
    (project / ".venv").symlink_to(sys.prefix)
    monkeypatch.chdir(project)

    with slurmnodes.running():
        first, runs = _submit(PROFILE="mini", GPUS="1"), project / "runs/finetune"
        _until(lambda: list(runs.glob("*/checkpoint-*/complete")) or _state(first) == "FAILED", first)
        subprocess.run(["scancel", first], check=True, timeout=60)
        _until(lambda: _state(first) not in ("RUNNING", "COMPLETING"), first)
        assert _state(first) == "CANCELLED", Path(f"runs/slurm-{first}.log").read_text()
        (run,) = runs.iterdir()
        params = load_params()
        steps = launch.opened(params, "explanation").steps
        reached = max(checkpoints.completed(run))
        assert reached < steps, "it was to be cancelled before it was done"

        second, written = _submit(PROFILE="mini", GPUS="1"), set()

        def ended() -> bool:
            written.update(checkpoints.completed(run))
            return _state(second) in ("COMPLETED", "FAILED")

        _until(ended, second)
        log = Path(f"runs/slurm-{second}.log").read_text()
        assert _state(second) == "COMPLETED", log
    assert min(written - {reached}) > reached, "it went on"

    out = project / "artifacts/finetune/explanation"
    launch.finetune(params, "explanation", out)  # finds the training done, and exports
    assert [folder.name for folder in runs.iterdir()] == [run.name]
    alone = tinyllava.params(base, **LONG | {"batch_size": 4})
    whole = Run(alone, tinyllava.records(20), tinyllava.records(8, 1), "explanation", project / "one")
    whole.train()
    whole.export(project / "exported")
    ours, theirs = (load_file(folder / "model/model.safetensors") for folder in (out, project / "exported"))
    assert ours.keys() == theirs.keys()
    worst = max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in ours)
    print(f"largest difference of a weight: {worst:.2e}")
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4)
