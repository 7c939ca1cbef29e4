# ruff: noqa: E402
"""Kill, interrupt, crowd and damage the pipeline; are its bytes those of an undisturbed run?

    python benchmarks/faults.py                           about 40 minutes on two cores
    python benchmarks/faults.py --minutes 15 --kills 20 --seed 3

Two copies of the checkout run the miniature at a twentieth (`tests/rehearse.py`), one stage after another,
with annotators behind a stand-in server that notes every request. One copy runs undisturbed. In the other,
beside it, each stage is stopped at random moments and started again until it is through:

- SIGKILL to all its processes, as when a machine is reset, or to one, as when it is short of memory;
- SIGINT (Ctrl-C) and SIGTERM (how a batch system ends a job): it must end with exit code 130, and no process
  may be left;
- a second `fakevlm repro` or `dvc repro` beside it.

Then stages run on a disk without room (a tmpfs in a user namespace, which needs no root), on work in progress
with a flipped byte in it, and `dvc status` looks at flipped bytes in what is done. Each must end in the
undisturbed run's bytes, or in a sentence that says what is wrong. The command prints a table and one summary
line; its exit code is 1 if something is wrong.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / folder) for folder in ("src", "tests")]

import psutil
import yaml

import rehearse
from jsonserver import completion, serving

PATIENCE = 300  # seconds that a command may take to end
LATENCY = 0.1  # seconds that the server takes to answer
UNDER_WAY = 1.0  # seconds before a kill in which a request may have been put whose answer is lost
ORPHAN = 3.0  # seconds that a kernel may outlive who started it
ALL, ONE = "SIGKILL to all processes", "SIGKILL to one process"
SIGNALS = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM}
REPRO, DVC = ("fakevlm", "repro"), ("dvc", "repro", "--single-item")  # what runs a stage
BESIDE = {"a second fakevlm repro": REPRO, "a second dvc repro": DVC}
Started = tuple[subprocess.Popen, Path, float]  # the process, the file of its output, since when
FULL = "no space left|disk is full|disk i/o error"  # in what a stage says on a full disk


@dataclass
class Ended:
    """How a command ended: its exit code (None: killed because it hung), its output, the seconds it took."""

    code: int | None
    text: str
    seconds: float

    def wrong(self, *codes: int) -> str:
        """Return what is wrong with it, if anything."""
        if self.code is None:
            return "hangs"
        if "Traceback (most recent call last)" in self.text:
            return "ends in a traceback"
        return "" if self.code in codes or not codes else f"ends with exit code {self.code}"


@dataclass
class Project:
    """A folder in which DVC runs stages by `fakevlm stage`."""

    folder: Path
    environment: dict[str, str]
    address: str = ""  # of the server, which executed notebooks and the page name; not compared

    def start(self, *command: str) -> Started:
        """Start a Python module as a command, its output into a file."""
        file = Path(tempfile.mkstemp(dir=self.folder.parent, suffix=".log")[1])
        options = {"cwd": self.folder, "env": self.environment, "stdin": subprocess.DEVNULL}
        with file.open("w") as log:
            options |= {"stdout": log, "stderr": log, "start_new_session": True}
            return subprocess.Popen([sys.executable, "-m", *command], **options), file, time.monotonic()

    def end(self, started: Started) -> Ended:
        """Wait for a command to end; kill everything in the folder if it hangs."""
        run, file, since = started
        try:
            code = run.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            code = self.kill()
        return Ended(code, file.read_text(errors="replace"), time.monotonic() - since)

    def run(self, *command: str) -> Ended:
        return self.end(self.start(*command))

    def must(self, *command: str) -> Ended:
        """Run what nothing disturbs; end the program if it fails."""
        ended = self.run(*command)
        if ended.code != 0:
            raise SystemExit(f"{ended.text[-5000:]}\nfaults: {' '.join(command)} in {self.folder} failed")
        return ended

    def processes(self) -> list[psutil.Process]:
        """Return all processes that work in this folder, orphans too."""
        working = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                if process.environ().get("FAKEVLM_ROOT") == str(self.folder) and process.pid != os.getpid():
                    working.append(process)
        return working

    def kill(self) -> None:
        while working := self.processes():
            for process in working:
                with suppress(psutil.Error):
                    process.kill()
            time.sleep(0.05)  # psutil's own wait would take the exit code from `subprocess`
        self.wait()

    def wait(self) -> None:
        """Wait until what a kill left has ended; until then DVC says that the stage is busy."""
        time.sleep(2)
        until = time.monotonic() + PATIENCE
        while self.processes() and time.monotonic() < until:
            time.sleep(0.2)

    def stages(self) -> list[str]:
        return self.must("dvc", "stage", "list", "--name-only").text.split()

    def outs(self, stage: str) -> list[Path]:
        """Return the outputs of a stage that has run."""
        lock = yaml.safe_load((self.folder / "dvc.lock").read_text())
        return [self.folder / out["path"] for out in lock["stages"][stage]["outs"]]

    def hashes(self, *places: Path) -> dict[str, str]:
        """Return the SHA-256 of every file in these places, by default all artifacts and figures."""
        places = places or (self.folder / "artifacts", self.folder / "figures")
        files = [
            f for place in places for f in (place.rglob("*") if place.is_dir() else [place]) if f.is_file()
        ]
        return {
            str(file.relative_to(self.folder)): hashlib.sha256(
                file.read_bytes().replace(self.address.encode(), b"")
            ).hexdigest()
            for file in sorted(files)
        }


class Server:
    """Notes when it was asked what, and answers after a while."""

    def __init__(self) -> None:
        self.asked: dict[str, list[float]] = {}

    def __call__(self, path: str, body: dict) -> dict:
        question = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        self.asked.setdefault(question, []).append(time.monotonic())
        time.sleep(LATENCY)
        return completion(rehearse.reply(body))

    def repeated(self, stops: list[tuple[float, float]]) -> tuple[int, int]:
        """Return how many requests were put again because a stop came before the answer, or without one."""
        firsts = [first for times in self.asked.values() for first, _ in pairwise(sorted(times))]
        excused = sum(any(start <= first <= end for start, end in stops) for first in firsts)
        return excused, len(firsts) - excused


@dataclass
class Table:
    """What was tried and how often it ended well, by kind."""

    tried: Counter = field(default_factory=Counter)
    right: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def note(self, kind: str, what: str, wrong: str) -> None:
        self.tried[kind] += 1
        self.right[kind] += not wrong
        print(f"{kind}: {what}{': ' if wrong else ''}{wrong}", file=sys.stderr, flush=True)
        if wrong:
            self.faults.append(f"{kind}: {what}: {wrong}")

    def __str__(self) -> str:
        lines = ["| what | tried | as it should be |", "|---|---:|---:|"]
        return "\n".join(lines + [f"| {kind} | {n} | {self.right[kind]} |" for kind, n in self.tried.items()])


def disturb(project: Project, stage: str, fault: str, after: float, rng: Random) -> tuple[Ended, str, float]:
    """Run a stage and disturb it after so many seconds.

    Returns: how it ended; what was wrong with that; the moment of the disturbance, 0 if it ended before.
    """
    started = project.start(*REPRO, stage)
    with suppress(subprocess.TimeoutExpired):
        started[0].wait(after)
        ended = project.end(started)
        return ended, ended.wrong(0), 0.0
    moment = time.monotonic()
    if fault == ALL:
        project.kill()
        return project.end(started), "", moment
    if fault == ONE:
        with suppress(psutil.Error, IndexError):
            rng.choice(project.processes()).kill()
        ended = project.end(started)
        project.wait()
        return ended, ended.wrong(), moment
    if fault in BESIDE:
        other = project.start(*BESIDE[fault], stage)
        ended, beside = project.end(started), project.end(other)
        told = re.search("lock|busy", beside.text)
        return ended, ended.wrong(0) or beside.wrong(*([0, 1, 255] if told else [0])), moment
    started[0].send_signal(SIGNALS[fault])
    ended = project.end(started)
    _, left = psutil.wait_procs(project.processes(), timeout=10)
    wrong = ended.wrong(0, 130) or (f"leaves {left[0].name()} running" if left else "")
    if ended.code == -SIGNALS[fault]:  # Python had not yet begun with the command
        wrong = ""
    return ended, wrong, moment


def disturbed_run(
    project: Project, plain: dict[str, Future], kills: int, rng: Random, table: Table, until: float
) -> tuple[list[tuple[float, float]], float]:
    """Run all stages, each disturbed until it is through.

    Args:
        plain: of each stage, how long it takes undisturbed.
        kills: how many SIGKILLs there are to be in all.
        until: after this moment (`time.monotonic`) nothing is disturbed any more.

    Returns: when a kill or signal may have lost a request under way (from, to), and the mean of the seconds
    that each of them cost.
    """
    stops, spent, killed, signals = [], 0.0, 0, [*SIGNALS] * len(plain)
    for number, stage in enumerate(plain):
        seconds = plain[stage].result()
        now = -((killed - kills) // (len(plain) - number))
        faults = [*rng.choices([ALL, ONE], k=max(0, now)), signals.pop()]
        rng.shuffle(faults)
        faults += rng.sample([*BESIDE], k=number % 2)
        ended = None
        while faults and not (ended and ended.code == 0) and time.monotonic() < until:
            fault = faults.pop(0)
            # Not later: what an earlier run left makes the next one shorter, and it is not to end before.
            after = seconds * (rng.uniform(0.2, 0.6) if fault in BESIDE else rng.uniform(0, 0.6))
            ended, wrong, moment = disturb(project, stage, fault, after, rng)
            spent += ended.seconds
            if moment or wrong:
                table.note(fault, f"{stage} after {after:.1f} s", wrong)
                killed += fault in (ALL, ONE)
                stops += [] if fault in BESIDE else [(moment - UNDER_WAY, time.monotonic() + ORPHAN)]
        if not (ended and ended.code == 0):
            spent += project.must(*REPRO, stage).seconds
        spent -= seconds
    return stops, spent / max(1, len(stops))


def flip(file: Path, rng: Random) -> int:
    """Flip bits of one byte of a file; return where."""
    data = bytearray(file.read_bytes())
    at = rng.randrange(len(data))
    data[at] ^= rng.randrange(1, 256)
    file.write_bytes(data)
    return at


def kinds(folder: Path) -> dict[str, list[Path]]:
    """Return the files below a folder that are not empty, by path without its numbers and hashes."""
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and file.stat().st_size:
            kind = re.sub(r"\b[0-9a-f]{16}\b|\d+", "#", str(file.relative_to(folder)))
            files.setdefault(kind, []).append(file)
    return files


def flips_in_progress(
    project: Project, stage: str, seconds: float, rng: Random, table: Table, until: float
) -> None:
    """Stop a stage, flip a byte in one kind of file under `runs/` after another, and let the stage go on."""
    again = (*DVC, "--force", stage)
    right, runs = project.hashes(*project.outs(stage)), project.folder / "runs"
    for share in (0.75, 0.85, 0.65, 0.9):
        started = project.start(*again)
        with suppress(subprocess.TimeoutExpired):
            started[0].wait(share * seconds)
        project.kill()
        project.end(started)
        if any(kinds(runs / "work")):
            break
    saved = project.folder.with_name("runs.saved")
    shutil.rmtree(saved, ignore_errors=True)
    shutil.copytree(runs, saved)
    for kind in sorted(kinds(saved), key=lambda _: rng.random()):
        if time.monotonic() > until or kind.startswith(("ipython", "notebooks")):  # nothing reads these
            continue
        shutil.rmtree(runs)
        shutil.copytree(saved, runs)
        file = rng.choice(kinds(runs)[kind])
        at, ended = flip(file, rng), project.run(*again)
        same = ended.code == 0 and project.hashes(*project.outs(stage)) == right
        told = ended.code != 0 and (file.name in ended.text or file.parent.name in ended.text)
        wrong = ended.wrong() or ("" if same or told else f"not noticed, exit code {ended.code}")
        what = f"{stage}, {kind}, byte {at}: {'same bytes' if same else 'an error'}"
        table.note("a flipped byte in runs/", what, wrong)
    shutil.rmtree(runs)
    shutil.rmtree(saved)
    project.must(*again)


def flips_in_artifacts(project: Project, rng: Random, table: Table) -> None:
    """Flip a byte in each kind of file of each output, which `dvc status` must name; then restore all."""
    before, outs = project.hashes(), [out for stage in project.stages() for out in project.outs(stage)]
    kinds_of = {out: [*kinds(out).values()] if out.is_dir() else [[out]] for out in outs}
    saved = project.folder.with_name("figures.saved")  # git keeps these, not DVC
    if (figures := project.folder / "figures").is_dir():
        shutil.copytree(figures, saved)
    while any(kinds_of.values()):
        damaged = {out: rng.choice(files.pop()) for out, files in kinds_of.items() if files}
        for file in damaged.values():
            flip(file, rng)
        text = project.must("dvc", "status", "--json").text
        items = [item for part in json.loads(text[text.index("{") :]).values() for item in part]
        changed = {out for item in items if isinstance(item, dict) for out in item.get("changed outs", ())}
        for out, file in damaged.items():
            place, name = (str(path.relative_to(project.folder)) for path in (out, file))
            kind = f"a flipped byte in {place.split('/')[0]}/"
            table.note(kind, name, "" if place in changed else "not noticed")
        project.run("dvc", "checkout", "--force")
        if saved.is_dir():
            shutil.copytree(saved, figures, dirs_exist_ok=True)
    wrong = "" if project.hashes() == before else "other bytes"
    table.note("`dvc checkout` and `git checkout figures`", "after flipped bytes", wrong)


def full_disk(folder: Path, stage: str, seed: int) -> list[tuple[str, str]]:
    """Run a stage on disks of several sizes, too small, then on a large one; return what was tried and wrong.

    To be called in a user namespace of its own, where anybody may mount a tmpfs.
    """
    rng, small, results = Random(seed), folder.with_name("small"), []
    small.mkdir(exist_ok=True)  # from the stage before
    mount = ["mount", "-t", "tmpfs", "-o"]
    subprocess.run([*mount, "size=8g", "tmpfs", str(small)], check=True)
    shutil.copytree(folder, small, dirs_exist_ok=True, symlinks=True)
    project = Project(small, rehearse.environment(small))
    right, size = project.hashes(*project.outs(stage)), 0
    for out in project.outs(stage):  # what the run writes anew
        size += sum(file.stat().st_size for file in (out.rglob("*") if out.is_dir() else [out]))
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    again = (*DVC, "--force", stage)
    for share in (0.0, rng.uniform(0.02, 0.3), rng.uniform(0.3, 0.9)):
        room = 65536 + int(share * size)
        used = shutil.disk_usage(small).used
        subprocess.run([*mount, f"remount,size={used + room}", "tmpfs", str(small)], check=True)
        ended = project.run(*again)
        told = re.search(FULL, ended.text, re.IGNORECASE)
        wrong = ended.wrong() or ("" if ended.code == 0 or told else f"says only {ended.text[-300:]!r}")
        results.append((f"{stage} with {room / 1e6:.2f} MB", wrong))
    subprocess.run([*mount, "remount,size=8g", "tmpfs", str(small)], check=True)
    ended = project.run(*again)
    wrong = ended.wrong(0) or ("" if project.hashes(*project.outs(stage)) == right else "other bytes")
    return [*results, (f"{stage}, goes on with room", wrong)]


def full_disks(project: Project, stages: list[str], rng: Random, table: Table, until: float) -> None:
    """See `full_disk`."""
    for stage in stages:
        if time.monotonic() > until:
            break
        command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, __file__]
        command += ["--full-disk", str(project.folder), stage, "--seed", str(rng.randrange(10**6))]
        done = subprocess.run(command, capture_output=True, text=True)
        if re.search("(unshare|mount): ", done.stderr):
            print(f"a full disk: not tried, no user namespaces here: {done.stderr}", file=sys.stderr)
            return
        results = (
            json.loads(done.stdout.splitlines()[-1])
            if done.returncode == 0
            else [(stage, done.stderr[-900:])]
        )
        for what, wrong in results:
            table.note("a full disk", what, wrong)


def write_params(folder: Path, address: str) -> None:
    """Write params.yaml of the smoke run, its annotators and one baseline behind the server."""
    rehearse.write_params("smoke", folder, address)
    file = folder / "params.yaml"
    params = yaml.safe_load(file.read_text())
    paper, smoke = params["paper"], params["smoke"]
    for section, name, benchmarks in (("annotate", "annotators", None), ("evaluate", "baselines", ["loki"])):
        models = [rehearse.located(model, address, folder) for model in paper[section][name][:3]]
        models = [model | ({"benchmarks": benchmarks} if benchmarks else {}) for model in models]
        smoke[section][name] = [model | {"concurrency": 4} for model in models]
    file.write_text(yaml.safe_dump(params, sort_keys=False))


def faults(folder: Path, minutes: float, kills: int, seed: int) -> int:
    """Do it all in an empty folder; print the table and the summary line; return the exit code."""
    start, rng, table = time.monotonic(), Random(seed), Table()
    until: Callable[[float], float] = lambda share: start + 60 * minutes * share  # noqa: E731
    server, undisturbed = Server(), Server()
    with serving(undisturbed) as plain_address, serving(server) as address:
        for name, where in (("plain", plain_address), ("disturbed", address)):
            (folder / name).mkdir()
            rehearse.copy_checkout(folder / name)
            write_params(folder / name, where)
        pairs = ((folder / "plain", plain_address), (folder / "disturbed", address))
        plain, project = (Project(place, rehearse.environment(place), where) for place, where in pairs)
        for each in (plain, project):
            each.must("dvc", "repro", "data.dvc")
        stages = plain.stages()
        with ThreadPoolExecutor(1) as beside:
            seconds = {s: beside.submit(lambda s=s: plain.must(*REPRO, s).seconds) for s in stages}
            stops, cost = disturbed_run(project, seconds, kills, rng, table, until(0.75))
        excused, twice = server.repeated(stops)
        what = f"{len(server.asked)}, {excused} put again since a kill came before the answer"
        table.note("requests", what, f"{twice} put twice" if twice else "")
        wanted, got = plain.hashes(), project.hashes()
        differing = sorted(name for name in wanted | got if wanted.get(name) != got.get(name))
        table.note("all bytes", f"{len(wanted)} files", ", ".join(differing[:9]))
        for stage in ("annotate", "finetune@head", "experts", "evaluate@loki", "collect"):
            flips_in_progress(project, stage, seconds[stage].result(), rng, table, until(0.9))
        full_disks(project, ["collect", "finetune@head", "evaluate@ffpp"], rng, table, until(1))
        flips_in_artifacts(project, rng, table)
    print(table)
    killed, stopped = (sum(table.tried[kind] for kind in kinds) for kinds in ((ALL, ONE), SIGNALS))
    same = "the same bytes" if not differing else f"{len(differing)} files differ"
    print(
        f"faults: {killed} SIGKILLs and {stopped} signals over {len(seconds)} stages cost {cost:.1f} s each; "
        f"{len(got)} files: {same}; {len(server.asked)} requests, {twice} put twice; "
        f"{sum(table.tried.values())} cases, {len(table.faults)} wrong; "
        f"seed {seed}, {(time.monotonic() - start) / 60:.0f} minutes"
    )
    return bool(table.faults)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=40, help="after which nothing is disturbed any more")
    parser.add_argument("--kills", type=int, default=75, help="SIGKILLs in all, at most")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--folder", type=Path, help="an empty one, kept; default: a temporary one, deleted")
    parser.add_argument("--full-disk", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.full_disk:
        print(json.dumps(full_disk(Path(options.full_disk[0]), options.full_disk[1], options.seed)))
        return 0
    with tempfile.TemporaryDirectory(prefix="faults-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return faults(folder, options.minutes, options.kills, options.seed)


if __name__ == "__main__":
    sys.exit(main())
