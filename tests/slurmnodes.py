"""A Slurm cluster for the tests on this machine: a controller and two nodes, with their own ports."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_PATH = f"{os.environ['PATH']}:/usr/sbin"
MUNGED, CONTROLLER, NODE = (shutil.which(name, path=_PATH) for name in ("munged", "slurmctld", "slurmd"))
READY = bool(MUNGED and CONTROLLER and NODE and shutil.which("sbatch"))
# Names that lead here everywhere, since ranks look for each other by the names of their nodes; Slurm wants
# two that differ.
NODES = ("127.0.0.2", "127.0.0.3")

# What the nodes claim to have is what examples/finetune.sbatch asks for; nothing is bound to it.
_CONF = Path(__file__).with_name("slurm.conf").read_text()


def _ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def running() -> Iterator[None]:
    """Starts the cluster; `SLURM_CONF` leads to it while it runs."""
    # Its sockets' paths must have less than 108 characters, which pytest's own folders may exceed.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o755)
        with _running(Path(folder)):
            yield


@contextmanager
def _running(folder: Path) -> Iterator[None]:
    for name in ("state", *(f"spool-{name}" for name in NODES)):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    controller, *ports = _ports(1 + len(NODES))
    nodes = "\n".join(
        f"NodeName={name} NodeAddr={name} Port={port} CPUs=96 RealMemory=1000 Gres=gpu:8"
        for name, port in zip(NODES, ports, strict=True)
    )
    values = {"host": socket.gethostname(), "user": getpass.getuser(), "controller": controller}
    conf = folder / "slurm.conf"
    conf.write_text(_CONF.format(**values, folder=folder, nodes=nodes))
    for n in range(8):
        (folder / f"gpu{n}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    munge = [MUNGED, "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    commands = [munge, [CONTROLLER, "-D", "-f", conf]]
    commands += [[NODE, "-D", "-N", name, "-f", conf] for name in NODES]
    before, servers = os.environ.get("SLURM_CONF"), []
    os.environ["SLURM_CONF"] = str(conf)
    try:
        for command in commands:
            with (folder / f"{Path(command[0]).name}.out").open("a") as output:
                servers.append(subprocess.Popen(command, stdout=output, stderr=output))
            time.sleep(0.5)
        _wait(folder)
        yield
    finally:
        for server in reversed(servers):
            server.terminate()
        for server in servers:
            server.wait()
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def _wait(folder: Path) -> None:
    sinfo = ["sinfo", "--noheader", "--format=%D", "--states=idle"]
    for _ in range(100):
        idle = subprocess.run(sinfo, capture_output=True, text=True, timeout=60).stdout.strip()
        if idle == str(len(NODES)):
            return
        time.sleep(0.3)
    logs = sorted(folder.glob("*.log")) + sorted(folder.glob("*.out"))
    output = "\n".join(file.read_text() for file in logs)
    raise RuntimeError(f"the cluster did not come up:\n{output}")
