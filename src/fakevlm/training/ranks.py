"""The processes ("ranks") of one training: how they are started, and what they agree on.

torchrun starts them on one machine, DeepSpeed's launcher over ssh on several, `examples/finetune.sbatch` with
Slurm. Each is `python -m fakevlm.training`, which reads the same profile and the same records.
"""

import gc
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import torch
from torch import distributed

from fakevlm import paths
from fakevlm.errors import UserError

if TYPE_CHECKING:
    from fakevlm.config.params import DeepSpeed

T = TypeVar("T")

ERROR = "error.json"  # in the run's folder: the user's mistake that a rank found
LOG = "ranks.log"  # in the run's folder: the output of all ranks
TAIL = 30  # lines of the log that a failure shows
# Rank 0 hashes the base model and the data while the others wait; 14 GB from a slow disk take minutes.
TIMEOUT = timedelta(hours=1)


def connect() -> None:
    """Connect this process to the others: NCCL between GPUs, Gloo between CPUs."""
    import deepspeed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:  # CPUs only test this; DeepSpeed would compile a faster exchange for them, for minutes
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # DeepSpeed must know of the connection before ZeRO-3 loads the model.
    deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False, timeout=TIMEOUT)


def rank() -> int:
    """Return this process's number, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def count() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def agree(compute: Callable[[], T]) -> T:
    """Return what `compute` returns in rank 0. Nodes may see a shared folder differently for a while."""
    if not distributed.is_initialized():
        return compute()
    values = [compute() if rank() == 0 else None]
    distributed.broadcast_object_list(values)
    return values[0]  # type: ignore[return-value]


def gather(value: T) -> list[T]:
    """Return the values of all ranks."""
    values = [value] * count()
    if distributed.is_initialized():
        distributed.all_gather_object(values, value)
    return values


def wait() -> None:
    """Return once all ranks are here."""
    if distributed.is_initialized():
        distributed.barrier()


def disconnect() -> None:
    """Wait for the others, then end the connection."""
    if distributed.is_initialized():
        wait()
        distributed.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End this process at once with an exit code.

    While Python takes itself apart at a normal end, threads of Gloo, DeepSpeed and Arrow still run. One that
    asks for Python then aborts the process, and a training that is complete would count as failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def command(section: "DeepSpeed", arguments: list[str]) -> list[str]:
    """Return the launcher's command line for `python -m fakevlm.training` with `arguments`.

    Raises `UserError` if the hostfile is missing, malformed or too small, a node does not answer, or there
    are several nodes and no hostfile.
    """
    module = ["fakevlm.training", *arguments]
    if section.hostfile is not None:
        file = paths.resolve(section.hostfile)
        _check_nodes(section, file)
        with socket.socket() as free:  # two trainings must not share DeepSpeed's default port
            free.bind(("", 0))
            port = f"--master_port={free.getsockname()[1]}"
        nodes = [f"--hostfile={file}", f"--num_nodes={section.nodes}", f"--num_gpus={section.processes}"]
        runner = [*nodes, port, "--no_local_rank", "--module"]
        return [sys.executable, "-m", "deepspeed.launcher.runner", *runner, *module]
    if section.nodes > 1:
        raise UserError(
            f"training.deepspeed.nodes is {section.nodes}, and there is no hostfile to reach them by",
            "name one in training.deepspeed.hostfile; under Slurm, submit this first, then come back:\n"
            f"      sbatch examples/finetune.sbatch {shlex.join(arguments)}",
        )
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={section.processes}"]
    return [sys.executable, "-m", *torchrun, "-m", *module]


def _check_nodes(section: "DeepSpeed", file: Path) -> None:
    """Check a hostfile, and that ssh reaches its nodes: else all would wait an hour for a missing one."""
    from deepspeed.launcher.runner import fetch_hostfile

    line = "write a line `name slots=8` for each node"
    if not file.is_file():
        raise UserError(f"training.deepspeed.hostfile: no file {file}", line)
    try:
        slots = fetch_hostfile(str(file))
    except ValueError as error:
        raise UserError(f"{file} is no hostfile of DeepSpeed's: {error}", line) from error
    names = list(slots)[: section.nodes]
    if len(names) < section.nodes or any(slots[name] < section.processes for name in names):
        raise UserError(
            f"{file} does not hold {section.nodes} node(s) of {section.processes} slots each",
            "correct it, or nodes and processes in training.deepspeed",
        )
    for name in names:
        ssh = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15", name, "true"]
        done = subprocess.run(ssh, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise UserError(
                f"{section.hostfile}: no login at {name} ({done.stderr.strip() or done.returncode})",
                "let `ssh NODE true` work without a password, from this machine to each line of the hostfile",
            )


def start(section: "DeepSpeed", arguments: list[str], folder: Path) -> None:
    """Start the launcher and return when it has ended; the ranks end with this process, also if it is killed.

    Progress lines are shown; all output goes to `ranks.log` in `folder`, the run's.

    Raises `UserError` if the launcher cannot start, or a rank found a mistake of the user, and `RuntimeError`
    if a rank failed; the message ends with the last lines of the log.
    """
    (folder / ERROR).unlink(missing_ok=True)
    line = command(section, arguments)
    gc.collect()  # the study has asked the untuned model: free its GPU memory for the ranks
    torch.cuda.empty_cache()
    if shutil.which("setpriv"):  # of util-linux: the launcher gets SIGTERM when this process dies
        line = ["setpriv", "--pdeathsig=TERM", *line]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    options = {"text": True, "errors": "replace", "cwd": paths.root(), "start_new_session": True}
    last: deque[str] = deque(maxlen=TAIL)
    with (
        (folder / LOG).open("a", encoding="utf-8") as log,
        subprocess.Popen(line, **streams, **options) as process,
    ):
        try:
            for text in process.stdout:
                print(text, end="", file=log, flush=True)
                last.append(text)
                if "%|" in text:  # tqdm's
                    print(text, end="", file=sys.stderr, flush=True)
        except BaseException:
            process.terminate()
            raise
    if (folder / ERROR).is_file():
        raise UserError(*json.loads((folder / ERROR).read_text(encoding="utf-8")))
    if process.returncode:
        end = "".join(last)
        raise RuntimeError(f"a rank failed (exit code {process.returncode}); see {folder / LOG}\n{end}")
