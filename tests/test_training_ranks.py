"""Two ranks with ZeRO-2 and ZeRO-3: they learn what one process learns, go on where they were killed, export what others load."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

import tinyllava
import tworanks
from fakevlm.model import chat
from fakevlm.training.finetune import Run, read_log
from fakevlm.training.head import load_head, predict_head

pytestmark = pytest.mark.slow

FULL = ["zero2", "zero3", "zero3-offload"]
HALF = ["zero3-bf16"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tinyllava.build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def two(base, tmp_path_factory):
    """The folder in which two ranks left all their trainings."""
    folder = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*torchrun, tworanks.__file__, str(base), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


@pytest.fixture(scope="module")
def one(base, tmp_path_factory):
    """The same training by one process, with the two ranks' batch of a step."""
    folder = tmp_path_factory.mktemp("one")
    params = tworanks.params(base, **tworanks.SETTINGS, batch_size=8, gradient_accumulation=1)
    run = Run(params, *tworanks.data(), "explanation", folder / "work", steps=tworanks.STEPS)
    tworanks.train(run, folder, None)
    return folder


def last(folder: Path) -> Path:
    (found,) = folder.glob(f"work/*/checkpoint-{tworanks.STEPS}")
    return found


def moved(weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    return max(float((weights[name].float() - others[name].float()).abs().max()) for name in weights)


@pytest.mark.parametrize("name", FULL)
def test_two_ranks_learn_what_one_process_learns(base, one, two, name):
    """Accumulation, clipping, warm-up, mirroring and the vision tower's own rate included."""
    ours, theirs = read_log(last(two / name)), read_log(last(one))
    for column in ("loss", "val_loss", "learning_rate"):
        assert ours[column].dropna().tolist() == pytest.approx(theirs[column].dropna().tolist(), rel=1e-4)
    start, alone, together = (
        load_file(folder / "model.safetensors") for folder in (base, last(one), last(two / name))
    )
    assert moved(alone, start) > 0.02
    assert moved(alone, together) < 1e-4


@pytest.mark.parametrize("name", HALF)
def test_weights_of_16_bits_learn_nearly_the_same(one, two, name):
    ours, theirs = read_log(last(two / name)), read_log(last(one))
    for column in ("loss", "val_loss"):
        assert ours[column].dropna().tolist() == pytest.approx(theirs[column].dropna().tolist(), rel=0.01)
    assert {w.dtype for w in load_file(last(two / name) / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize("name", sorted(tworanks.KILLED))
def test_killed_they_go_on_where_they_were(base, two, name):
    reached = int((two / f"{name}-killed/reached").read_text())
    assert 0 < reached < tworanks.STEPS
    ours, undisturbed = (last(folder) for folder in (two / f"{name}-killed", two / name))
    pick = ["step", "loss", "val_loss", "learning_rate"]
    assert read_log(ours)[pick].equals(read_log(undisturbed)[pick])
    weights = [load_file(folder / "model.safetensors") for folder in (ours, undisturbed)]
    assert moved(*weights) == 0
    said = [load_file(two / f / "logits.safetensors")["logits"] for f in (f"{name}-killed", name)]
    assert torch.equal(*said)


@pytest.mark.parametrize("name", ["zero2", "zero3", *HALF])
def test_the_export_says_what_the_trained_model_said(base, two, tmp_path, name):
    tune = tworanks.TUNES[name]
    run = tworanks.run(base, name, two / name / "work")
    assert run.folder == last(two / name).parent
    assert run.done
    run.export(tmp_path)
    folder = tmp_path / "model"
    dtype = torch.bfloat16 if tune.get("precision") == "bf16" else torch.float32
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype="auto").eval()
    assert model.dtype == dtype
    assert model.generation_config.eos_token_id == model.config.text_config.eos_token_id
    batch = tworanks.probe(run)
    batch["pixel_values"] = batch["pixel_values"].to(dtype)
    with torch.no_grad():
        said = model(**batch).logits.float()
    expected = load_file(two / name / "logits.safetensors")["logits"]
    assert torch.allclose(said, expected, atol=0.05 if dtype == torch.bfloat16 else 1e-5)
    processor = AutoProcessor.from_pretrained(folder)
    assert chat.prompt(processor) == chat.prompt(run.collator.processor)


@pytest.mark.parametrize("name", list(tworanks.TUNES))
def test_exported_names_are_those_of_the_base(base, two, name):
    """What vLLM looks for are the names of llava-1.5-7b-hf."""
    names = []
    for folder in base, last(two / name):
        with safe_open(folder / "model.safetensors", framework="pt") as weights:
            names.append({key: weights.get_slice(key).get_shape() for key in weights.keys()})  # noqa: SIM118
    extra = {"score.weight", "score.bias"} if name == "head" else set()
    assert names[1].keys() - names[0].keys() == extra
    assert all(names[1][key] == names[0][key] for key in names[0])
    known = (
        r"language_model\.lm_head\.weight",
        r"language_model\.model\.(embed_tokens|norm|layers\.\d+\..+)\.weight",
        r"multi_modal_projector\.linear_[12]\.(weight|bias)",
        r"vision_tower\.vision_model\.(embeddings|pre_layrnorm|post_layernorm|encoder\.layers\.\d+)\..+",
    )
    assert [key for key in names[0] if not re.fullmatch("|".join(known), key)] == []


def test_a_linear_head_trained_by_ranks_predicts(base, two, tmp_path):
    tworanks.run(base, "head", two / "head" / "work").export(tmp_path)
    head = load_head(tmp_path / "model")
    fake, real = predict_head(head.model, head.processor, tinyllava.records(2, 3), 2)
    assert fake > real
