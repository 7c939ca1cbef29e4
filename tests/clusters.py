"""Clusters of two nodes on this machine: over ssh, on loopback addresses of their own, and under Slurm."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

ROOM = Path(__file__).parent
PATH = f"{os.environ['PATH']}:/usr/sbin"
SSH, PDSH, SSHD = (shutil.which(name, path=PATH) for name in ("ssh", "pdsh", "sshd"))
MUNGED, CONTROLLER, NODE = (shutil.which(name, path=PATH) for name in ("munged", "slurmctld", "slurmd"))
HAS_SSH = bool(SSH and PDSH and SSHD)
HAS_SLURM = bool(MUNGED and CONTROLLER and NODE and shutil.which("sbatch"))
# Ranks look for each other by the names of their nodes: Slurm's lead here everywhere.
NODES = ("127.0.0.2", "127.0.0.3")
HOSTS = {"node1": NODES[0], "node2": NODES[1], "gone": "127.0.0.4"}  # nobody listens at the last one


def ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def _wait(ready: Callable[[], bool], folder: Path) -> None:
    for _ in range(100):
        if ready():
            return
        time.sleep(0.3)
    logs = sorted(folder.glob("*.log")) + sorted(folder.glob("*.out"))
    raise RuntimeError("\n".join(["the nodes did not come up:", *(file.read_text() for file in logs)]))


@contextmanager
def _servers(folder: Path, commands: list[list]) -> Iterator[None]:
    """Start servers one after the other; end them in the opposite order."""
    with ExitStack() as started:
        for command in commands:
            output = started.enter_context((folder / f"{Path(command[0]).name}.out").open("a"))
            server = subprocess.Popen(command, stdout=output, stderr=output)
            started.callback(server.wait)
            started.callback(server.terminate)
            time.sleep(0.5)
        yield


@contextmanager
def over_ssh(folder: Path) -> Iterator[Path]:
    """Start an ssh server for `node1` and `node2` each; yield a folder for PATH, whose `ssh` reaches them."""
    folder.mkdir(mode=0o700)
    for key in ("user", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    (port,) = ports(1)
    common = {"Port": port, "HostKey": folder / "host", "AuthorizedKeysFile": folder / "user.pub"}
    common |= {"StrictModes": "no", "UsePAM": "no", "PasswordAuthentication": "no"}
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd asks for it when it may drop privileges
    for address in NODES:
        settings = {**common, "ListenAddress": address, "PidFile": folder / f"{address}.pid"}
        lines = "".join(f"{key} {value}\n" for key, value in settings.items())
        (folder / f"{address}.conf").write_text(lines)
    options = {"Port": port, "IdentityFile": folder / "user", "UserKnownHostsFile": folder / "known"}
    options |= {"StrictHostKeyChecking": "no", "LogLevel": "ERROR", "IdentitiesOnly": "yes"}
    lines = "".join(f"Host {name}\n  HostName {address}\n" for name, address in HOSTS.items())
    lines += "Host *\n" + "".join(f"  {key} {value}\n" for key, value in options.items())
    (folder / "config").write_text(lines)
    (folder / "bin").mkdir()
    (folder / "bin/ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {folder / "config"} "$@"\n')
    (folder / "bin/ssh").chmod(0o755)

    def listening() -> bool:
        with ExitStack() as probes:
            return all(not probes.enter_context(socket.socket()).connect_ex((node, port)) for node in NODES)

    commands = [[SSHD, "-D", "-f", folder / f"{node}.conf", "-E", folder / f"{node}.log"] for node in NODES]
    with _servers(folder, commands):
        _wait(listening, folder)
        yield folder / "bin"


@contextmanager
def under_slurm() -> Iterator[None]:
    """Start a controller and two nodes; `SLURM_CONF` leads to them meanwhile."""
    # Paths of their sockets must have less than 108 characters, which pytest's own folders may exceed.
    with tempfile.TemporaryDirectory(prefix="slurm-") as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        folder.chmod(0o755)
        for name in ("state", *(f"spool-{node}" for node in NODES)):
            (folder / name).mkdir()
        key, conf = folder / "munge.key", folder / "slurm.conf"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        controller, *node_ports = ports(1 + len(NODES))
        # What the nodes claim to have is what examples/finetune.sbatch asks for; nothing is bound to it.
        nodes = "\n".join(
            f"NodeName={node} NodeAddr={node} Port={port} CPUs=96 RealMemory=1000 Gres=gpu:8"
            for node, port in zip(NODES, node_ports, strict=True)
        )
        values = {"host": socket.gethostname(), "user": getpass.getuser(), "controller": controller}
        conf.write_text((ROOM / "slurm.conf").read_text().format(**values, folder=folder, nodes=nodes))
        for n in range(8):
            (folder / f"gpu{n}").touch()
        (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-7]\n")
        (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        munge = [MUNGED, "--foreground", "--force", f"--key-file={key}", f"--socket={folder}/munge.socket"]
        munge += [f"--{kind}-file={folder}/munge.{kind}" for kind in ("pid", "log", "seed")]
        daemons = [[NODE, "-D", "-N", node, "-f", conf] for node in NODES]
        patch.setenv("SLURM_CONF", str(conf))
        sinfo = ["sinfo", "--noheader", "--format=%D", "--states=idle"]

        def idle() -> bool:
            counted = subprocess.run(sinfo, capture_output=True, text=True, timeout=60).stdout.strip()
            return counted == str(len(NODES))

        with _servers(folder, [munge, [CONTROLLER, "-D", "-f", conf], *daemons]):
            _wait(idle, folder)
            yield
