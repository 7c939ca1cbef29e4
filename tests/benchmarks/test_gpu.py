"""benchmarks/gpu.py: in tiny shapes on a CPU without what a bare machine lacks; its shapes and counts."""

import subprocess
import sys

from conftest import ROOT, imported

SCRIPT = ROOT / "benchmarks/gpu.py"
LACKING = (
    "pydantic deepspeed datasets sentence_transformers ray openai sklearn av cv2 scipy timm torchvision PIL"
)


def test_every_part_runs_on_a_bare_machine_and_both_ways_give_the_same(tmp_path):
    block = f"import sys; sys.modules.update(dict.fromkeys({LACKING.split()}))"
    run = f"import runpy; sys.argv = ['gpu.py', '--tiny', '--out', {str(tmp_path)!r}]"
    code = f"{block}; {run}; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    (file,) = tmp_path.glob("gpu-tiny_*.md")
    lines = file.read_text().splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith(("| ours", "| auth"))]
    assert len(rows) == 10
    assert all(float(row[4 if len(row) == 7 else 3]) > 0 for row in rows)
    assert all(row[-1] == "100% |" for row in rows if len(row) == 6)  # answers


def test_shapes_are_llava_1_5s_and_flops_are_six_a_weight_and_token_and_little_more(monkeypatch):
    script = imported(SCRIPT)
    monkeypatch.setattr(script, "device", lambda: "meta")
    llava = script.model(script.LARGE, script.torch.bfloat16)
    assert sum(p.numel() for p in llava.parameters()) == 7_063_427_072  # as the hub counts llava-1.5-7b-hf
    assert llava.config.image_seq_length == 576
    processor, records = script.build(script.LARGE, 32)
    examples = script.Examples(records, script.Collator(processor, prompt="bare"), "explanation")
    tokens = [len(examples[n][0].ids) for n in range(32)]
    assert 700 < sum(tokens) / 32 < 750
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)  # weights of the language model's 32 layers
    by_hand = 6 * sum(tokens) / 32 * linear
    assert by_hand < script.flops(llava, examples) < 1.1 * by_hand
