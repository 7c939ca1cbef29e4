"""Nodes for the tests on this machine: an ssh server each, on loopback addresses of their own."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Nobody listens at the last one.
ADDRESSES = {"node1": "127.0.0.2", "node2": "127.0.0.3", "gone": "127.0.0.4"}
SSH, PDSH = shutil.which("ssh"), shutil.which("pdsh")
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
READY = bool(SSH and PDSH and SSHD)


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.2", 0))
        return free.getsockname()[1]


@contextmanager
def running(folder: Path) -> Iterator[Path]:
    """Start `node1` and `node2`; yield a folder for the head of PATH, whose `ssh` reaches them."""
    folder.mkdir(mode=0o700)
    for key in ("user", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    port, servers = _port(), []
    common = {"Port": port, "HostKey": folder / "host", "AuthorizedKeysFile": folder / "user.pub"}
    common |= {"StrictModes": "no", "UsePAM": "no", "PasswordAuthentication": "no"}
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd asks for it when it may drop privileges
    for name in ("node1", "node2"):
        settings = {**common, "ListenAddress": ADDRESSES[name], "PidFile": folder / f"{name}.pid"}
        file = folder / f"{name}.conf"
        file.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        servers.append(subprocess.Popen([SSHD, "-D", "-f", file, "-E", folder / f"{name}.log"]))
    lines = [f"Host {name}\n  HostName {address}" for name, address in ADDRESSES.items()]
    options = {"Port": port, "IdentityFile": folder / "user", "UserKnownHostsFile": folder / "known"}
    options |= {"StrictHostKeyChecking": "no", "LogLevel": "ERROR", "IdentitiesOnly": "yes"}
    lines += ["Host *", *(f"  {key} {value}" for key, value in options.items())]
    (folder / "config").write_text("\n".join(lines) + "\n")
    (folder / "bin").mkdir()
    (folder / "bin/ssh").write_text(f'#!/bin/sh\nexec {SSH} -F {folder / "config"} "$@"\n')
    (folder / "bin/ssh").chmod(0o755)
    try:
        for name in ("node1", "node2"):
            _wait(ADDRESSES[name], port)
        yield folder / "bin"
    finally:
        for server in servers:
            server.terminate()
            server.wait()


def _wait(address: str, port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection((address, port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"no ssh server came up at {address}:{port}")
