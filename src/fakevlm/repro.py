"""Run the stages that are out of date, as many at once as there are cores (`fakevlm repro`, `make repro`).

DVC decides what is out of date, runs each stage (`dvc repro --single-item`) and keeps the records; here a
stage starts when those that it needs are done. Every stage computes in one thread (`fakevlm.stage`), so its
numbers are the same whatever runs beside it.
"""

import functools
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import networkx
from dvc.exceptions import DvcException
from dvc.fs import localfs
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, plan_repro
from dvc.rwlock import RWLockFileCorruptedError, rwlock
from dvc.utils import serialize
from dvc.utils.strictyaml import YAMLSyntaxError, YAMLValidationError

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.progress import say

MOST, MEMORY = 4, 2 * 2**30  # stages at once; bytes that a stage of the miniature takes at most
# What DVC says after each stage, about git and remotes.
ADVICE = ("To track", "\tgit add", "To enable", "\tdvc config", "Use `dvc push`", "Updating", "Generating")
GPUS = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")  # a stage has all GPUs for itself


def out_of_date(targets: list[str]) -> dict[str, set[str]]:
    """Return the stages that are out of date, or depend on one that is, with those of them that each needs.

    Stages that many others depend on come first, then long ones (dvc.yaml: meta.seconds). `targets` limits
    all to these stages and what they need.

    Raises:
        UserError: DVC knows no such stage, cannot read its files, or runs one of them already.
    """
    os.chdir(paths.root())  # DVC names a stage as seen from here
    serialize.LOADERS[".yaml"] = functools.cache(serialize.load_yaml)  # else a parse of params.yaml a stage
    stale: dict[str, set[str]] = {}
    rank: dict[str, tuple[int, float]] = {}
    try:
        with lock_repo(repo := Repo(_wait_for_lock=True)):
            try:
                with rwlock(
                    repo.tmp_dir, localfs, "", [], [], repo.config["core"].get("hardlink_lock", False)
                ):
                    pass
            except RWLockFileCorruptedError:  # a kill came while DVC wrote it; DVC itself would stop here
                Path(repo.tmp_dir, "rwlock").unlink()
            graph = repo.index.graph
            for stage in plan_repro(graph, collect_stages(repo, targets)):  # those it needs come before it
                needs = {need.addressing for need in graph.successors(stage)} & stale.keys()
                if needs or stage.changed():
                    seconds = (getattr(stage, "meta", None) or {}).get("seconds", 0)
                    rank[stage.addressing] = (-len(networkx.ancestors(graph, stage)), -seconds)
                    stale[stage.addressing] = needs
    except DvcException as error:
        context: BaseException | None = error
        while context:
            if isinstance(context, KeyboardInterrupt):  # it cut short what DVC wrote, and DVC raises that
                raise context from None
            context = context.__context__
        damaged = isinstance(error, YAMLSyntaxError | YAMLValidationError) and "dvc.lock'" in str(error)
        if damaged:  # by a kill while DVC wrote it
            lock = Path("dvc.lock").replace(".dvc/tmp/dvc.lock.damaged")
            say(f"dvc.lock was cut short and lies in {lock} now; DVC makes it anew from its cache")
            return out_of_date(targets)
        cure = "docs/troubleshooting.md has the usual causes; `dvc stage list` names the stages"
        raise UserError(f"DVC: {error}", cure) from error
    return {name: stale[name] for name in sorted(stale, key=rank.__getitem__)}


def _start(name: str) -> subprocess.Popen[str]:
    """Start a stage in a process group of its own, which one signal stops."""
    # setpriv, of util-linux: it ends when this process is killed.
    command = ["setpriv", "--pdeathsig=TERM"] if shutil.which("setpriv") else []
    command += [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "errors": "replace"}
    options |= {"env": os.environ | {"PYTHONUNBUFFERED": "1"}, "start_new_session": True}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def run(needs: dict[str, set[str]], limit: int) -> bool:
    """Run stages, at most `limit` at once, and return whether all succeeded.

    A failure or Ctrl-C stops those that run beside; the next run goes on from there.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else `make repro &` ignores it
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    ready: list[str] = []
    running: dict[str, subprocess.Popen[str]] = {}
    lines: queue.Queue[tuple[str, str | None]] = queue.Queue()  # of each stage; None: it has ended

    def read(name: str, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            lines.put((name, line))
        lines.put((name, None))

    try:
        while sorter.is_active():
            ready = sorted([*ready, *sorter.get_ready()], key=[*needs].index)
            while ready and len(running) < limit:
                process = running[ready[0]] = _start(ready[0])
                threading.Thread(target=read, args=(ready.pop(0), process), daemon=True).start()
            name, line = lines.get()
            if line is not None:
                if line.strip() and not line.startswith(ADVICE):
                    print(f"{name} │ {line}", end="", flush=True)
            elif running.pop(name).wait():
                return False
            else:
                sorter.done(name)
        return True
    finally:  # what they say when they are stopped would hide why
        for process in running.values():
            os.killpg(process.pid, signal.SIGINT)
        for process in running.values():
            process.wait()


def main(targets: list[str]) -> bool:
    """Bring stages up to date (by default all), and return whether that succeeded."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: the stages end too
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)
    if not (needs := out_of_date(targets)):
        print("Every stage is up to date.")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    most = 1 if any(map(os.path.exists, GPUS)) else min(MOST, os.cpu_count() or 1, memory // MEMORY)
    return run(needs, max(1, most))
