"""A training that is killed goes on where it was and ends in the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tinyllava
from fakevlm.training import checkpoints, finetune, loop

TESTS = Path(__file__).parent
STEPS = 30  # of 5 an epoch: checkpoints every 4 steps fall into and between epochs
RUN = f"""
import sys
from pathlib import Path
import tinyllava
from fakevlm.training.finetune import finetune
base, out, work = map(Path, sys.argv[1:])
finetune(tinyllava.params(base), tinyllava.records(18), tinyllava.records(6, 1), "explanation", out, work, steps={STEPS})
"""


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tinyllava.build(tmp_path_factory.mktemp("base"))


def tune(base: Path, folder: Path, objective: str = "explanation", **more) -> None:
    finetune.finetune(
        tinyllava.params(base, **more),
        tinyllava.records(18),
        tinyllava.records(6, 1),
        objective,
        folder / "out",
        folder / "work",
        steps=STEPS,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def undisturbed(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    tune(base, folder)
    return contents(folder / "out")


def die_after(batches: int, monkeypatch) -> None:
    """Lets the next training raise once it asks for its `batches`-th batch."""
    count, honest = [0], loop.Batches.__call__

    def dying(self, items):
        count[0] += 1
        if count[0] > batches:
            raise Killed
        return honest(self, items)

    monkeypatch.setattr(loop.Batches, "__call__", dying)


# Validation asks for batches as well: two at each checkpoint. 27 batches end between two checkpoints within an epoch, 9 right
# behind the first one.
@pytest.mark.parametrize("batches", [9, 27])
def test_goes_on_where_it_was(base, undisturbed, tmp_path, monkeypatch, batches):
    with monkeypatch.context() as patch:
        die_after(batches, patch)
        with pytest.raises(Killed):
            tune(base, tmp_path)
    (run,) = (tmp_path / "work").iterdir()
    reached = max(checkpoints.completed(run))
    assert 0 < reached < STEPS
    assert not (tmp_path / "out").exists()
    # A later checkpoint that a kill left half-written: all there but its mark.
    torn = run / f"checkpoint-{reached + 4}"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    tune(base, tmp_path)
    assert contents(tmp_path / "out") == undisturbed


@pytest.mark.parametrize(
    "more",
    [
        {"gradient_accumulation": 3, "batch_size": 2, "objective": "head"},
        {"mirror": True, "vision_learning_rate": 2e-3, "batch_size": 2, "checkpoint_every": 3},
    ],
    ids=["accumulation and a head", "mirrored, two rates"],
)
def test_goes_on_where_it_was_in_other_ways_too(base, tmp_path, monkeypatch, more):
    tune(base, tmp_path / "a", **more)
    with monkeypatch.context() as patch:
        die_after(40, patch)
        with pytest.raises(Killed):
            tune(base, tmp_path / "b", **more)
    tune(base, tmp_path / "b", **more)
    assert contents(tmp_path / "a/out") == contents(tmp_path / "b/out")


def test_only_complete_checkpoints_count(tmp_path):
    for step in (4, 8, 12, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (8, 100, 4):
        checkpoints.mark(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-x").mkdir()
    assert list(checkpoints.completed(tmp_path)) == [4, 8, 100]
    checkpoints.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-100",
        "checkpoint-4",
        "checkpoint-8",
    ]


@pytest.mark.slow
def test_survives_kill_9(base, undisturbed, tmp_path):
    command = [sys.executable, "-c", RUN, str(base), str(tmp_path / "out"), str(tmp_path / "work")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
    }
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 180
    while not list((tmp_path / "work").glob("*/checkpoint-*/complete")):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stderr.close()
    (run,) = (tmp_path / "work").iterdir()
    assert max(checkpoints.completed(run)) < STEPS
    assert not (tmp_path / "out").exists()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == undisturbed
