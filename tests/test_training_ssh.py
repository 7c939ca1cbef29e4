"""Two nodes over ssh, for real: ssh servers of this machine's, pdsh, DeepSpeed's launcher, our own start."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

import sshnodes
import tinyllava
from fakevlm.config.params import DeepSpeed, load_params
from fakevlm.data.records import write_records
from fakevlm.errors import UserError
from fakevlm.training import checkpoints, launch
from fakevlm.training.finetune import Run
from test_training_launch import NOTEBOOK, TUNE, alive

LONG = TUNE | {"epochs": 12.0}  # else it is over before anything can be killed
pytestmark = pytest.mark.skipif(not sshnodes.READY, reason="needs openssh-server and pdsh")


@pytest.fixture
def nodes(project, monkeypatch):
    with sshnodes.running(project / "ssh") as folder:
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        yield project


@pytest.mark.slow
def test_two_nodes_learn_what_one_process_learns_and_go_on_after_a_kill(nodes):
    base = tinyllava.build(nodes / "base")
    for split, records in (("train", tinyllava.records(20)), ("val", tinyllava.records(8, 1))):
        write_records(records, nodes / "artifacts/annotate/fakeclue" / split)
    values = tinyllava.params(base, **LONG).model_dump(exclude={"profile"})
    values["finetune"]["deepspeed"] = {"stage": 2, "processes": 1, "nodes": 2, "hostfile": "hosts"}
    (nodes / "params.yaml").write_text(yaml.safe_dump({"profile": "mini", "mini": values}))
    (nodes / "hosts").write_text("node1 slots=1\nnode2 slots=1\n")

    (nodes / ".deepspeed_env").write_text("TOLD_EVERY_NODE=yes\n")

    # A rank of the second node is killed: the notebook fails instead of waiting, and nothing goes on behind it.
    notebook = subprocess.Popen([sys.executable, "-c", NOTEBOOK], stderr=subprocess.PIPE, text=True)
    deadline, runs = time.monotonic() + 600, nodes / "runs/finetune"
    while not list(runs.glob("*/checkpoint-*/complete")):
        assert notebook.poll() is None, notebook.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (run,) = runs.iterdir()
    second = rank(1, run)
    assert (
        second.environ()["TOLD_EVERY_NODE"] == "yes"
    )  # DeepSpeed takes .deepspeed_env along, ssh by itself nothing
    second.kill()
    _, said = notebook.communicate(timeout=300)
    assert notebook.returncode, "it was to be killed before it was done"
    assert "a rank failed" in said
    while alive(str(run)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    params = load_params()
    steps = launch.opened(params, "explanation").steps
    assert max(checkpoints.completed(run)) < steps

    out = nodes / "artifacts/finetune/explanation"
    launch.finetune(params, "explanation", out)
    assert [folder.name for folder in runs.iterdir()] == [run.name]
    alone = tinyllava.params(Path(params.base), **LONG | {"batch_size": 4})
    whole = Run(alone, tinyllava.records(20), tinyllava.records(8, 1), "explanation", nodes / "one")
    whole.train()
    ours = load_file(out / "model/model.safetensors")
    whole.export(nodes / "exported")
    theirs = load_file(nodes / "exported/model/model.safetensors")
    assert ours.keys() == theirs.keys()
    worst = max(float((ours[name].float() - theirs[name].float()).abs().max()) for name in ours)
    print(f"largest difference of a weight: {worst:.2e}")
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-4)


def rank(number: int, run: Path) -> psutil.Process:
    """The process of that rank."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            ours = "fakevlm.training" in words and any(str(run) in word for word in words)
            if ours and process.environ().get("RANK") == str(number):
                return process
    raise AssertionError(f"no rank {number}")


def test_a_node_that_cannot_be_reached_is_named(nodes):
    (nodes / "hosts").write_text("node1 slots=1\ngone slots=1\n")
    section = DeepSpeed(stage=2, processes=1, nodes=2, hostfile="hosts")
    with pytest.raises(UserError, match=r"hosts.*gone.*refused") as caught:
        launch.reach(section)
    assert "ssh" in caught.value.cure
