"""Starts a training: in this process, or as many as params.yaml says, on this machine or several.

On one machine torchrun starts the ranks, on several DeepSpeed's launcher, over ssh and by its hostfile. Either way each rank is
`python -m fakevlm.training`, which reads the same profile and the same records; under Slurm the job starts it
(`examples/finetune.sbatch`), and what is called here then finds the training done and only exports.
"""

import gc
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd
import torch

from fakevlm import paths
from fakevlm.config.params import DeepSpeed, Params
from fakevlm.data.shards import Records
from fakevlm.errors import UserError
from fakevlm.training.finetune import Run

GRACE = 40  # seconds that the launcher has to end its ranks before it is killed
PATIENCE = 15  # seconds that a node has to answer ssh
TAIL = 15  # lines of the log that a failure shows
_BAR = re.compile(r"\d+%\|")


def _lines(hostfile: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in hostfile.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _hostfile(section: DeepSpeed) -> Path:
    """The hostfile, once it names as many nodes and slots as the ranks need."""
    file = paths.resolve(section.hostfile or "")
    if not file.is_file():
        raise UserError(f"finetune.deepspeed.hostfile: no file {file}", "a line `name slots=8` a node")
    hosts = [re.fullmatch(r"(\S+)\s+slots=(\d+)", line) for line in _lines(file)]
    if not all(hosts):
        raise UserError(f"{file} has a line that is no `name slots=8`", "edit it: one line a node")
    enough = [host[1] for host in hosts if host and int(host[2]) >= section.processes]
    if len(hosts) < section.nodes or len(enough) < len(hosts):
        raise UserError(
            f"{file} does not hold {section.nodes} node(s) of {section.processes} slots each",
            "correct it, or nodes and processes in finetune.deepspeed",
        )
    return file


def reach(section: DeepSpeed) -> None:
    """Returns once every node of the hostfile has answered over ssh; else the others would wait an hour for the missing one.

    Raises:
        UserError: nodes do not answer; all of them are named, each with what ssh said.
    """
    hosts = [line.split()[0] for line in _lines(_hostfile(section))][: section.nodes]
    asked = {
        host: subprocess.Popen(
            ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={PATIENCE}", host, "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        for host in hosts
    }
    said = {host: (process.communicate()[1].strip(), process.returncode) for host, process in asked.items()}
    failed = [
        f"{host} ({text.splitlines()[-1] if text else code})" for host, (text, code) in said.items() if code
    ]
    if failed:
        raise UserError(
            f"{section.hostfile}: no login at {', '.join(failed)}",
            "let `ssh NODE true` work without a password, for each line of the hostfile, from where this runs",
        )


def _port() -> int:
    """A port that is free here, and hardly ever taken on the first node; two trainings must not share DeepSpeed's default."""
    with socket.socket() as free:
        free.bind(("", 0))
        return free.getsockname()[1]


def command(section: DeepSpeed, arguments: list[str]) -> list[str]:
    """The launcher's command line.

    Args:
        section: `finetune.deepspeed`.
        arguments: of `python -m fakevlm.training`.

    Raises:
        UserError: the hostfile is missing, malformed or too small; or several nodes and none.
    """
    module = ["fakevlm.training", *arguments]
    own = [argument for argument in arguments if not argument.startswith(("--error=", "--root="))]
    if section.hostfile is None:
        if section.nodes > 1:
            raise UserError(
                f"finetune.deepspeed.nodes is {section.nodes}, and there is no hostfile to reach them by",
                "name one in finetune.deepspeed.hostfile; under Slurm, submit this first, then come back:\n"
                f"      sbatch examples/finetune.sbatch {shlex.join(own)}",
            )
        # It leaves CUDA_VISIBLE_DEVICES as it is and finds a free port.
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={section.processes}"]
        return [sys.executable, "-m", *torchrun, "-m", *module, "--watch"]
    nodes = [f"--hostfile={_hostfile(section)}", f"--num_nodes={section.nodes}"]
    nodes += [f"--master_port={_port()}"]
    slots = [f"--num_gpus={section.processes}", "--no_local_rank", "--module"]
    return [sys.executable, "-m", "deepspeed.launcher.runner", *nodes, *slots, *module]


@contextmanager
def _started(command: list[str]) -> Iterator[subprocess.Popen]:
    """The launcher, alone in its process group; whatever ends this block early ends it and its ranks."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # never written to: its end tells the ranks that this process is gone (`--watch`)
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=paths.root(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        process.stdin.close()
        process.stdout.close()


def _watch(process: subprocess.Popen, log: Path) -> list[str]:
    """Shows the progress lines, keeps all others in `log`; returns the last ones once the launcher has ended."""
    last: deque[str] = deque(maxlen=TAIL)
    with log.open("a", encoding="utf-8") as kept:
        for line in process.stdout:
            if _BAR.search(line):
                print(line.rstrip(), file=sys.stderr, flush=True)
            else:
                kept.write(line)
                kept.flush()
                last.append(line.rstrip())
    process.wait()
    return list(last)


def start(run: Run, arguments: list[str]) -> None:
    """Trains `run` by several processes and returns when they are done.

    Args:
        run: what is trained; its folder gets the ranks' output (`ranks.log`).
        arguments: of `python -m fakevlm.training`, which make the same run there.

    Raises:
        UserError: as a rank raised it, or the launcher cannot start.
        RuntimeError: a rank failed otherwise; the message ends with the last lines of the log.
    """
    section = run.params.finetune.deepspeed
    log, told = run.folder / "ranks.log", run.folder / "error.json"
    told.unlink(missing_ok=True)
    line = command(section, [*arguments, f"--error={told}", f"--root={paths.root()}"])
    if section.hostfile is not None:
        reach(section)
    # What this process used of the GPU before (the study asks the untuned model first) is the ranks' now.
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with _started(line) as process:
        last = _watch(process, log)
    error = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
    if "what" in error:
        raise UserError(error["what"], error["cure"])
    if process.returncode or not run.done:
        end = error.get("traceback", "\n".join(last))
        raise RuntimeError(f"a rank failed (exit code {process.returncode}); all of it is in {log}\n{end}")


def finetune(
    params: Params,
    objective: str,
    out: Path,
    *,
    data: Path | None = None,
    work: Path | None = None,
    steps: int | None = None,
) -> pd.DataFrame:
    """Tunes `params.base` on FakeClue and writes `out/model/` (HF format, processor) and `out/log.csv`.

    Interrupted or killed and called again, it goes on from the last complete checkpoint; called after it has finished, it only
    exports again. `opened(…).forget()` removes its checkpoints.

    Args:
        params: a profile as params.yaml has it; `finetune.deepspeed` says by how many processes.
        objective: `explanation`, `label` or `head`.
        out: the stage's folder.
        data: folder with the shards of `train` and `val`; default: FakeClue as stage `annotate` made it.
        work: where runs keep their checkpoints; default `runs/finetune`.
        steps: optimizer steps; default: `finetune.epochs` times the data.

    Returns:
        The log: step, epoch, loss, learning_rate, val_loss.

    Raises:
        UserError: nothing to train, no base model, no answers, a prompt too long, a hostfile too small, …
        RuntimeError: a rank failed.
    """
    run = opened(params, objective, data, work, steps)
    _tell_others(run)
    if params.finetune.deepspeed is None:
        run.train()
    elif not run.done:
        chosen = {"data": data, "work": work, "steps": steps}
        given = [f"--{name}={value}" for name, value in chosen.items() if value is not None]
        start(run, [f"--profile={params.profile}", f"--objective={objective}", *given])
    return run.export(out)


def _tell_others(run: Run) -> None:
    """Names runs beside this one: another profile's, or of settings since changed. Nobody else would miss their gigabytes."""
    others = sorted(set(run.folder.parent.glob(f"{run.objective}-*")) - {run.folder})
    for other in others:
        size = 0
        for file in other.rglob("*"):
            with suppress(OSError):  # it may be training, and drop an old checkpoint just now
                size += file.stat().st_size
        print(
            f"{other} holds {size / 1e9:.1f} GB of another run: remove it if nobody is to go on with it",
            file=sys.stderr,
        )


def opened(
    params: Params,
    objective: str,
    data: Path | None = None,
    work: Path | None = None,
    steps: int | None = None,
) -> Run:
    """The run on the shards in `data`; see `finetune` for the arguments."""
    data = data or paths.artifacts("annotate", "fakeclue")
    train, val = (Records(data / split) for split in ("train", "val"))
    return Run(params, train, val, objective, work, steps=steps)
