"""Two ranks with ZeRO-2 and ZeRO-3: what they learn, and what they export."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tinyllava
import tworanks
from fakevlm.model.head import load_head
from fakevlm.model.llava import load_model
from fakevlm.training.trainer import finished, read_log

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def two(base, tmp_path_factory):
    """The folder in which two ranks left all their trainings."""
    folder = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, tworanks.__file__, base, folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


@pytest.fixture(scope="module")
def one(base, tmp_path_factory):
    """The same training by one process, with the two ranks' batch of a step."""
    run = tworanks.run(base, "", tmp_path_factory.mktemp("one"), batch_size=8, gradient_accumulation=1)
    run.train()
    return finished(run.folder)


def last(folder: Path) -> Path:
    (run,) = folder.iterdir()
    return finished(run)


def difference(one: Path, other: Path) -> float:
    a, b = (load_file(folder / "model.safetensors") for folder in (one, other))
    return max(float((a[name].float() - b[name].float()).abs().max()) for name in a)


@pytest.mark.parametrize(("name", "tolerance"), [("zero2", 1e-4), ("zero3", 1e-4), ("zero3-bf16", 0.01)])
def test_two_ranks_learn_what_one_process_learns(base, one, two, name, tolerance):
    """Accumulation, clipping, warm-up, mirroring and the vision tower's own rate included."""
    logs = [read_log(place)[["loss", "val_loss", "learning_rate"]] for place in (last(two / name), one)]
    np.testing.assert_allclose(*logs, rtol=tolerance)
    assert difference(one, base) > 0.02
    if tolerance < 0.01:
        assert difference(one, last(two / name)) < 1e-4


@pytest.mark.parametrize("name", list(tworanks.TUNES))
def test_the_export_has_the_names_of_the_base_and_loads(base, two, tmp_path, name):
    tworanks.run(base, name, two / name).export(tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "model"))
    assert after.keys() - before.keys() == ({"score.weight", "score.bias"} if name == "head" else set())
    assert all(after[key].shape == before[key].shape for key in before)
    dtype = torch.bfloat16 if "bf16" in name else torch.float32
    assert {weights.dtype for weights in after.values()} == {dtype}
    if name == "head":
        images = [record.pil() for record in tinyllava.records(2, 3)]
        fake, real = load_head(tmp_path / "model").predict(images)
        assert fake > real
    else:
        load_model(tmp_path / "model", dtype=str(dtype).split(".")[1], device="cpu")
