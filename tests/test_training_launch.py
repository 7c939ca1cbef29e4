"""Starting ranks: the command, what they tell, how they end; and one training that changes its launcher after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import tinyllava
from conftest import ROOT
from fakevlm.config.params import DeepSpeed, load_params
from fakevlm.data.records import write_records
from fakevlm.errors import UserError
from fakevlm.training import __main__ as child
from fakevlm.training import checkpoints, launch, loop, ranks
from fakevlm.training.finetune import Run, read_log
from fakevlm.training.zero import config

TWO = {"stage": 3, "processes": 2}
TUNE = {"batch_size": 2, "epochs": 3.0, "checkpoint_every": 3}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tinyllava.build(tmp_path_factory.mktemp("base"))


@pytest.fixture
def tuned(base, project):
    """A project whose params.yaml trains the tiny base on shards; called with the section `deepspeed`, returns its parameters."""
    for split, records in (("train", tinyllava.records(20)), ("val", tinyllava.records(8, 1))):
        write_records(records, project / "artifacts/annotate/fakeclue" / split)

    def write(section, **tune):
        values = tinyllava.params(base, **TUNE, **tune).model_dump(exclude={"profile"})
        values["finetune"]["deepspeed"] = section
        (project / "params.yaml").write_text(yaml.safe_dump({"profile": "mini", "mini": values}))
        return load_params()

    return write


# ── what is started ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_machine_is_torchruns_several_are_deepspeeds(project):
    alone = launch.command(DeepSpeed(stage=2, processes=8), ["--objective=head"])
    assert alone[1:6] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=8", "-m"]
    assert alone[6:] == ["fakevlm.training", "--objective=head", "--watch"]
    (project / "hosts").write_text("# ours\nnode1 slots=8\n\nnode2 slots=8  # the new one\n")
    several = launch.command(DeepSpeed(stage=2, processes=8, nodes=2, hostfile="hosts"), ["--objective=head"])
    assert several[1:3] == ["-m", "deepspeed.launcher.runner"]
    assert several[3:5] == [f"--hostfile={project / 'hosts'}", "--num_nodes=2"]
    assert re.fullmatch(r"--master_port=\d+", several[5])
    assert several[6] == "--num_gpus=8"
    assert several[-2:] == ["fakevlm.training", "--objective=head"]


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        (None, "no file"),
        ("node1 slots=8\n", "does not hold 2 node"),
        ("node1 slots=8\nnode2 slots=4\n", "does not hold 2 node"),
        ("node1 slots=8\nnode2\n", "no `name slots=8`"),
        ("", "does not hold 2 node"),
    ],
)
def test_a_hostfile_that_does_not_fit_is_named(project, hosts, said):
    if hosts is not None:
        (project / "hosts").write_text(hosts)
    with pytest.raises(UserError, match=said):
        launch.command(DeepSpeed(stage=2, processes=8, nodes=2, hostfile="hosts"), [])


def test_nodes_without_a_hostfile_are_slurms(project):
    with pytest.raises(UserError, match=r"nodes is 2.*no hostfile") as caught:
        launch.command(
            DeepSpeed(stage=2, processes=8, nodes=2),
            ["--objective=label", "--work=my runs", "--error=e.json", "--root=."],
        )
    assert caught.value.cure.endswith("sbatch examples/finetune.sbatch --objective=label '--work=my runs'")


def test_the_slurm_example_starts_what_the_notebook_starts():
    script = ROOT / "examples/finetune.sbatch"
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    given = script.read_text().split("-m fakevlm.training")[1].replace('"', "").split()
    assert given.pop() == "$@", "what is said after `sbatch examples/finetune.sbatch` reaches the training"
    parsed = child._arguments(given)
    assert (parsed.profile, parsed.objective) == ("$PROFILE", "$OBJECTIVE")


def test_what_deepspeed_is_told():
    zero2 = config(DeepSpeed(stage=2, processes=8), overlap=True)["zero_optimization"]
    assert zero2["stage"] == 2
    assert zero2["overlap_comm"] is True
    assert not any(key.startswith(("stage3", "offload")) for key in zero2)
    whole = config(DeepSpeed(stage=3, processes=8, offload="parameters"), overlap=True)
    assert whole["zero_force_ds_cpu_optimizer"] is False
    assert whole["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is True
    assert {"offload_optimizer", "offload_param"} <= whole["zero_optimization"].keys()
    some = config(DeepSpeed(stage=3, processes=8, offload="optimizer"), overlap=False)["zero_optimization"]
    assert "offload_param" not in some


def test_a_run_is_named_after_what_decides_its_weights(base, tmp_path):
    def folder(**section):
        params = tinyllava.params(base, deepspeed=DeepSpeed(**section) if section else None)
        return Run(params, tinyllava.records(4), tinyllava.records(2, 1), "label", tmp_path).folder

    plain = folder(stage=2, processes=4)
    assert folder(stage=2, processes=2, nodes=2, hostfile="hosts", offload="optimizer") == plain
    assert len({plain, folder(stage=3, processes=4), folder(stage=2, processes=2), folder()}) == 4


def test_wrong_numbers_of_ranks_do_not_train(base, tmp_path, monkeypatch):
    data = tinyllava.records(4), tinyllava.records(2, 1)
    run = Run(tinyllava.params(base), *data, "label", tmp_path)
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert (ranks.rank(), ranks.count()) == (0, 4)
    with pytest.raises(UserError, match=r"says 1 process\(es\), and 4 were started"):
        run.train()


def test_a_checkpoint_is_marked_once_all_ranks_have_written(tmp_path, monkeypatch):
    mark, found = tmp_path / "checkpoint-4" / checkpoints.MARK, []
    mark.parent.mkdir()
    monkeypatch.setattr(ranks, "wait", lambda: found.append(mark.exists()))
    args = SimpleNamespace(output_dir=str(tmp_path))
    for first in False, True:
        loop._Mark().on_save(args, SimpleNamespace(is_world_process_zero=first, global_step=4), None)
        found.append(mark.exists())
    assert found == [False, False, False, True]


# ── what ranks tell, and how they end ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pretend(base, project, monkeypatch):
    """Lets a few lines of Python stand in for launcher and ranks; returns their run."""
    params = tinyllava.params(base, deepspeed=DeepSpeed(**TWO))
    run = Run(params, tinyllava.records(4), tinyllava.records(2, 1), "label", project / "work")

    def pretended(script):
        monkeypatch.setattr(launch, "command", lambda _, given: [sys.executable, "-c", script, *given])
        return run

    return pretended


TELL = "import json, sys; file = [a for a in sys.argv if a.startswith('--error=')][0].split('=', 1)[1]; "


def test_progress_is_shown_and_the_rest_is_kept(pretend, capfd):
    lines = ["finetune label:  50%|#####     | 1/2 [00:01<00:01]", "[2026-01-01 00:00:00,000] [INFO] noise"]
    run = pretend(f"print({lines[0]!r}); print({lines[1]!r})")
    (run.folder / f"checkpoint-{run.steps}").mkdir()
    checkpoints.mark(run.folder / f"checkpoint-{run.steps}")
    launch.start(run, [])
    assert capfd.readouterr().err.strip().splitlines() == [lines[0]]
    assert (run.folder / "ranks.log").read_text() == lines[1] + "\n"


def test_a_users_mistake_in_a_rank_is_one_here(pretend):
    error = {"what": "a prompt takes 30 tokens", "cure": "raise max_length"}
    run = pretend(TELL + f"open(file, 'w').write(json.dumps({error})); sys.exit(2)")
    with pytest.raises(UserError) as caught:
        launch.start(run, [])
    assert (caught.value.what, caught.value.cure) == (error["what"], error["cure"])
    # what an earlier start left does not count
    with pytest.raises(RuntimeError, match=r"exit code 3(.|\n)*the end"):
        launch.start(pretend("print('the end'); raise SystemExit(3)"), [])


def test_a_failing_ranks_traceback_is_shown(pretend):
    run = pretend(TELL + "json.dump({'traceback': 'CUDA out of memory'}, open(file, 'w')); sys.exit(1)")
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        launch.start(run, [])


def test_ranks_that_end_without_finishing_are_a_failure(pretend):
    with pytest.raises(RuntimeError, match="exit code 0"):
        launch.start(pretend("pass"), [])


def test_an_interrupted_notebook_ends_its_ranks(pretend, monkeypatch):
    started, honest = [], launch._watch

    def interrupted(process, log):
        started.append(process)
        assert process.stdout.readline()
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_watch", interrupted)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    for script in stubborn, "import time; print(1, flush=True); time.sleep(600)":
        monkeypatch.setattr(launch, "GRACE", 0.2 if script is stubborn else 40)
        with pytest.raises(KeyboardInterrupt):
            launch.start(pretend(script), [])
    assert [process.returncode for process in started] == [-signal.SIGKILL, -signal.SIGTERM]
    assert honest is not launch._watch


def test_the_child_tells_its_first_failure(tmp_path, project, capsys, monkeypatch):
    file = tmp_path / "error.json"
    assert child.main(["--profile=papper", f"--error={file}"]) == 2
    first = json.loads(file.read_text())
    assert first["what"].endswith("no profile 'papper'")
    assert "no profile 'papper'" in capsys.readouterr().err
    monkeypatch.setattr(child, "_train", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        child.main([f"--error={file}"])
    assert json.loads(file.read_text()) == first
    with pytest.raises(ZeroDivisionError):
        child.main([f"--error={tmp_path / 'other.json'}"])
    assert "ZeroDivisionError" in json.loads((tmp_path / "other.json").read_text())["traceback"]


# ── for real ─────────────────────────────────────────────────────────────────────────────────────────────────────────

NOTEBOOK = """
from fakevlm import paths
from fakevlm.config.params import load_params
from fakevlm.training.launch import finetune
finetune(load_params(), "explanation", paths.artifacts("finetune", "explanation"))
"""
# Stand in for ssh and pdsh: every node is this machine.
SSH = '#!/bin/sh\n[ "$4" = "-I" ] || [ "$3" = "-I" ] && echo 127.0.0.1\nexit 0\n'
PDSH = """#!/bin/bash
shift 5  # -S -f 1024 -w HOSTS
for n in 0 1; do bash -c "$(echo "$*" | sed "s/%n/$n/")" & done
wait -n && wait -n
"""


@pytest.mark.slow
def test_a_killed_notebooks_ranks_end_and_other_nodes_go_on(tuned, project, monkeypatch):
    params = tuned(TWO)
    runs = project / "runs/finetune"
    notebook = subprocess.Popen([sys.executable, "-c", NOTEBOOK], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 900
    while not list(runs.glob("*/checkpoint-*/complete")):
        assert notebook.poll() is None, notebook.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (run,) = runs.iterdir()
    notebook.kill()
    notebook.wait()
    notebook.stderr.close()
    while alive(str(run)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    reached = max(checkpoints.completed(run))
    steps = launch.opened(params, "explanation").steps
    assert reached < steps

    # Two nodes of one rank each go on with the checkpoint that two ranks of one node left.
    (project / "bin").mkdir()
    for name, script in {"ssh": SSH, "pdsh": PDSH}.items():
        (project / "bin" / name).write_text(script)
        (project / "bin" / name).chmod(0o755)
    (project / "hosts").write_text("node1 slots=1\nnode2 slots=1\n")
    monkeypatch.setenv("PATH", f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}")
    nodes = tuned({"stage": 3, "processes": 1, "nodes": 2, "hostfile": "hosts"})
    out = project / "artifacts/finetune/explanation"
    launch.finetune(nodes, "explanation", out)
    assert [folder.name for folder in runs.iterdir()] == [run.name]

    alone = tinyllava.params(Path(params.base), **TUNE | {"batch_size": 4})
    whole = Run(alone, tinyllava.records(20), tinyllava.records(8, 1), "explanation", project / "one")
    whole.train()
    theirs = read_log(whole.folder / f"checkpoint-{steps}")
    ours = read_log(run / f"checkpoint-{steps}")
    for column in ("loss", "val_loss"):
        assert ours[column].dropna().tolist() == pytest.approx(theirs[column].dropna().tolist(), rel=1e-4)
    assert (out / "model/model.safetensors").is_file()


def alive(word: str) -> list[int]:
    """Processes with `word` in their command lines or, what ranks inherit, among their arguments."""
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if word in line]
