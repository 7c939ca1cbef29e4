"""The benchmark of the 7B model: its shapes, its count of FLOPs, and the script at its tiny size on a CPU."""

import subprocess
import sys

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from conftest import ROOT, imported

SCRIPT = ROOT / "benchmarks/llava7b_gpu.py"


@pytest.fixture(scope="module")
def script():
    return imported(SCRIPT)


def test_shapes_are_llava_1_5s_and_flops_are_six_a_weight_and_token_and_little_more(script):
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 32001}
    with torch.device("meta"):
        large = LlavaForConditionalGeneration(script.configuration("7b", 32000, special))
    sizes = script.weights(large)
    assert sizes["all"] == 7_063_427_072  # as the hub counts llava-hf/llava-1.5-7b-hf
    assert sizes["text"] + 2 * sizes["head"] == 6_738_939_904  # Vicuna's, and 64 tokens more
    assert large.config.image_seq_length == 576
    found = script.flops(large.config, sizes, 700, 120, 577)
    by_hand = 6 * 700 * 32 * (4 * 4096**2 + 3 * 4096 * 11008)  # the linear layers of the language model
    assert by_hand < found < 1.1 * by_hand


@pytest.mark.slow
def test_the_script_runs_and_says_what_it_ran(tmp_path):
    out = tmp_path / "table.md"
    tiny = ["--size", "tiny", "--steps", "4", "--batch", "4", "--micro", "2", "--stage", "3"]
    short = ["--answers", "2", "--new-tokens", "4", "--out", str(out)]
    done = subprocess.run([sys.executable, SCRIPT, *tiny, *short], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in out.read_text().splitlines() if line.startswith("| ") and line != "| | |"]
    rows = dict(line[2:-2].split(" | ") for line in lines)
    assert rows["configuration"].startswith("`tiny`: 32,")
    assert "ZeRO-3, offloaded: nothing" in rows["training"]
    assert rows["batch"].startswith("4 a step: 2 a device")
    for name in ("samples", "generated tokens", "verdicts"):
        assert float(rows[f"{name} a second"].split()[0]) > 0
    if not torch.cuda.is_available():
        assert "CPU (tries the script, measures nothing)" in rows["device"]


def test_a_batch_that_cannot_be_cut_is_refused(script):
    with pytest.raises(SystemExit, match=r"--batch 5 is no multiple of --micro 2 × 1 rank"):
        script.settings(script.parse(["--batch", "5", "--micro", "2"]))
