"""What LLaVA-1.5-7B costs on this machine: training steps at the paper's batch, answers, verdicts.

    python benchmarks/llava7b_gpu.py                           # one GPU of 141 GB
    python benchmarks/llava7b_gpu.py --offload optimizer       # one GPU of 80 GB and 128 GB of memory
    python -m torch.distributed.run --nproc-per-node=8 benchmarks/llava7b_gpu.py --micro 32   # the paper's
    python benchmarks/llava7b_gpu.py --size tiny --steps 3 --batch 4 --micro 2   # a CPU: tries the script

Weights are random, shapes are real. Training is the project's own loop with DeepSpeed, on noise with answers
of FakeClue's length. With fewer GPUs the step's batch (the paper's 32 × 8) is accumulated. Each
run adds a table to `--out`. Numbers of `tiny` say nothing about the 7B model.

Model FLOPs of a training step, after PaLM (Chowdhery et al. 2022, appendix B): 6 per weight and token that
passes it, and 12·layers·width·length per token for attention; nothing for what activation checkpointing
computes twice. Utilisation is that over time and the card's dense bf16 peak.
"""

import argparse
import datetime
import gc
import importlib.metadata
import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    TrainerCallback,
)

from fakevlm.config.params import DeepSpeed, Training, load_params
from fakevlm.data.records import FAKE, REAL, Record
from fakevlm.inference.generate import Llava
from fakevlm.inference.predict import Predictor, predict
from fakevlm.model.build import IMAGE, build_processor, build_tokenizer
from fakevlm.model.collate import Collator, ask
from fakevlm.training import ranks, trainer
from fakevlm.training.data import Examples
from fakevlm.training.finetune import freeze


def _layers(width: int, depth: int, heads: int, mlp: int) -> dict[str, int]:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return dict(zip(names, (width, depth, heads, mlp), strict=True))


# llava-hf/llava-1.5-7b-hf, as its config.json has it; and a miniature of it.
LARGE = {"vision": _layers(1024, 24, 16, 4096), "text": _layers(4096, 32, 32, 11008)}
TINY = {"vision": _layers(16, 2, 2, 32), "text": _layers(16, 2, 2, 32)}
SIZES: dict[str, dict[str, Any]] = {
    "7b": {"image": 336, "patch": 14, "vocab": 32064, **LARGE},
    "tiny": {"image": 32, "patch": 8, "vocab": 600, **TINY},
}
PEAKS = {"A100": 312, "H100": 989, "H200": 989}  # TFLOP/s, bf16, dense; the data sheets' (SXM)
WARM_UP = 2  # steps that are not timed: buffers are laid out, kernels chosen
ANSWER = (
    "This is a fake image. Texture: skin looks waxy and lacks pores; hair merges into the background; fabric "
    "repeats the same weave without folds. Geometry: the left hand shows six fingers; the railing bends "
    "where it passes behind the shoulder; letters on the sign are garbled. Lighting: the shadow of the face "
    "falls towards the lamp, and reflections in both eyes differ."
)


def configuration(size: str, image_token: int, special: dict[str, int]) -> LlavaConfig:
    """Return the model's configuration; `vision_feature_layer` is −2 as in LLaVA-1.5."""
    shape = SIZES[size]
    return LlavaConfig(
        vision_config=CLIPVisionConfig(
            **shape["vision"],
            image_size=shape["image"],
            patch_size=shape["patch"],
            hidden_act="quick_gelu",
            projection_dim=shape["vision"]["hidden_size"],
        ),
        text_config=LlamaConfig(
            **shape["text"],
            num_key_value_heads=shape["text"]["num_attention_heads"],
            vocab_size=shape["vocab"],
            max_position_embeddings=4096,
            **special,
        ),
        image_token_index=image_token,
        image_seq_length=(shape["image"] // shape["patch"]) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        **special,
    )


def make_processor(size: str) -> LlavaProcessor:
    """Return a processor with the model's image size and a few words of its vocabulary."""
    return build_processor(build_tokenizer([ANSWER] * 4, 500), SIZES[size]["image"], SIZES[size]["patch"])


def make_model(size: str, processor: LlavaProcessor) -> LlavaForConditionalGeneration:
    """Return a model of random bf16 weights on the device."""
    tokenizer = processor.tokenizer
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    config = configuration(size, tokenizer.convert_tokens_to_ids(IMAGE), special)
    torch.manual_seed(1)
    with torch.device(f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"):
        return LlavaForConditionalGeneration._from_config(config, dtype=torch.bfloat16)


def make_records(count: int, side: int) -> list[Record]:
    """Return images of noise, each with the same answer."""
    made = []
    for n in range(count):
        buffer = io.BytesIO()
        noise = np.random.default_rng([n, 3]).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(buffer, "JPEG", quality=90)
        label = (FAKE, REAL)[n % 2]
        made.append(Record(f"{n}.jpg", buffer.getvalue(), label, "noise", str(n), references=[ANSWER]))
    return made


def flops(config: LlavaConfig, sizes: dict[str, int], tokens: int, answer: int, patches: int) -> float:
    """Return the model FLOPs of training on one image and its text (see this file's head).

    Args:
        config: of the model.
        sizes: weights of `vision` (up to the layer that is read), `projector`, `text` (without embeddings)
            and `head`.
        tokens: of prompt, image and answer together.
        answer: tokens that the head is asked about, the others' logits not being needed.
        patches: that the vision tower sees, its class token included.
    """
    vision, text = config.vision_config, config.text_config
    depth = vision.num_hidden_layers + config.vision_feature_layer + 1
    image = sizes["vision"] * patches + sizes["projector"] * (patches - 1)
    passed = image + sizes["text"] * tokens + sizes["head"] * answer
    squares = depth * vision.hidden_size * patches**2
    squares += text.num_hidden_layers * text.hidden_size * tokens**2
    return 6.0 * passed + 12.0 * squares


def weights(model: LlavaForConditionalGeneration) -> dict[str, int]:
    """Return how many weights each part has, as `flops` counts them."""

    def count(module: torch.nn.Module) -> int:
        return sum(getattr(p, "ds_numel", p.numel()) for p in module.parameters())

    inner = model.model
    tower, unread = inner.vision_tower, -1 - model.config.vision_feature_layer
    layers = next(m for m in tower.modules() if isinstance(m, torch.nn.ModuleList))
    return {
        "vision": count(tower) - sum(count(layer) for layer in list(layers)[len(layers) - unread :]),
        "projector": count(inner.multi_modal_projector),
        "text": count(inner.language_model) - count(inner.language_model.embed_tokens),
        "head": count(model.lm_head),
        "all": count(model),
    }


def synchronise() -> float:
    """Wait for the device and return the time in seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory() -> float:
    """Return the most GB of the device in use since the last call; 0 without a GPU."""
    if not torch.cuda.is_available():
        return 0.0
    most = torch.cuda.max_memory_allocated() / 1e9
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return most


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.times.append(synchronise())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.times.append(synchronise())


def settings(arguments: argparse.Namespace) -> Training:
    """Return the paper's settings (section 4.3) with the batch divided as the arguments say."""
    if arguments.steps <= WARM_UP:
        sys.exit(f"--steps must be above {WARM_UP}: the first are not timed")
    accumulation, rest = divmod(arguments.batch, arguments.micro * ranks.count())
    if rest:
        each = f"--micro {arguments.micro} × {ranks.count()} rank(s)"
        sys.exit(f"--batch {arguments.batch} is no multiple of {each}")
    return load_params("paper").training.model_copy(
        update={
            "batch_size": arguments.micro,
            "gradient_accumulation": accumulation,
            "learning_rate": 2e-5,
            "precision": "bf16",
            "gradient_checkpointing": not arguments.keep_activations,
            "max_length": 2048,
            "deepspeed": DeepSpeed(stage=arguments.stage, offload=arguments.offload, processes=ranks.count()),
        }
    )


def training(arguments: argparse.Namespace, processor: LlavaProcessor) -> dict[str, float]:
    """Train; return seconds a step (median), weights, tokens and FLOPs a sample, peak memory in GB."""
    tune, shape = settings(arguments), SIZES[arguments.size]
    with tempfile.TemporaryDirectory() as folder:
        args = trainer.arguments(tune, Path(folder), seed=1, workers=0, max_steps=arguments.steps)
        for name in ("save_strategy", "eval_strategy"):
            setattr(args, name, type(getattr(args, name))("no"))
        model = make_model(arguments.size, processor)
        freeze(model, tune)
        sizes, clock = weights(model), Clock()
        collator = Collator(processor, tune.max_length)
        # A step's worth: an epoch that is shorter would end a step early.
        examples = Examples(make_records(arguments.batch, shape["image"]), collator, "explanation")
        trainer.train(model, examples, examples, tune, args, callbacks=[clock])
    steps = np.diff(clock.times)[WARM_UP:]
    encoded, patches = examples[0][0], (shape["image"] // shape["patch"]) ** 2 + 1
    tokens, answer = len(encoded.ids), len(encoded.ids) - encoded.prompt + 1
    return {
        "seconds": statistics.median(steps),
        "weights": sizes["all"],
        "tokens": tokens,
        "flops": flops(model.config, sizes, tokens, answer, patches),
        "memory": peak_memory(),
    }


def answering(arguments: argparse.Namespace, processor: LlavaProcessor) -> dict[str, float]:
    """Return generated tokens and verdicts a second of one device, in bf16, and peak memory in GB."""
    shape = SIZES[arguments.size]
    model = make_model(arguments.size, processor).eval()
    many = make_records(4 * arguments.answers, shape["image"])
    batch = ask(model, processor, [record.pil() for record in many[: arguments.answers]])
    length = dict.fromkeys(("max_new_tokens", "min_new_tokens"), arguments.new_tokens)
    times = []
    with torch.inference_mode():
        for _ in range(4):
            start = synchronise()
            model.generate(**batch, **length, do_sample=False)
            times.append(synchronise() - start)
    start = synchronise()
    predict(Predictor(lambda: Llava(model, processor, 12), None, arguments.answers), many)
    verdicts = synchronise() - start
    return {
        "tokens": arguments.answers * arguments.new_tokens / statistics.median(times[1:]),
        "verdicts": len(many) / verdicts,
        "memory": peak_memory(),
    }


def table(
    arguments: argparse.Namespace, trained: dict[str, float], answered: dict[str, float], peak: float | None
) -> str:
    """Return the run as Markdown."""
    on_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_gpu else "CPU (tries the script, measures nothing)"
    rate = arguments.batch / trained["seconds"]
    used = rate * trained["flops"] / ranks.count()
    memory = [f"{part['memory']:.1f} GB" if on_gpu else "not a GPU" for part in (trained, answered)]
    names = ("torch", "transformers", "accelerate", "deepspeed")
    zero = f"ZeRO-{arguments.stage}, offloaded: {arguments.offload or 'nothing'}"
    kept = "kept" if arguments.keep_activations else "computed twice"
    tokens = f"{trained['tokens']} tokens a sample"
    share = f"{used / peak / 1e12:.1%} of {peak:g} TFLOP/s" if peak else "peak of this device unknown"
    answers = f"{arguments.answers} answers of {arguments.new_tokens} tokens at a time"
    second = "12 tokens each, and the second pass that a text without verdict takes"
    rows = [
        ("configuration", f"`{arguments.size}`: {trained['weights']:,.0f} weights, random"),
        ("device", f"{ranks.count()} × {device}"),
        ("versions", ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)),
        ("training", f"bf16, all weights, {zero}, activations {kept}"),
        ("batch", f"{arguments.batch} a step: {arguments.micro} a device, accumulated; {tokens}"),
        ("seconds a step", f"{trained['seconds']:.3g} (median of {arguments.steps - WARM_UP} steps)"),
        ("samples a second", f"{rate:.4g}"),
        ("model FLOPs a sample", f"{trained['flops']:.4g}"),
        ("model FLOP/s a device", f"{used:.4g}"),
        ("utilisation", share),
        ("peak device memory, training", memory[0]),
        ("generated tokens a second", f"{answered['tokens']:.4g} ({answers})"),
        ("verdicts a second", f"{answered['verdicts']:.4g} ({second})"),
        ("peak device memory, answering", memory[1]),
    ]
    today = datetime.date.today().isoformat()
    body = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"## {today}: `{arguments.size}` on {ranks.count()} × {device}\n\n| | |\n|---|---|\n{body}\n"


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="7b")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps")
    parser.add_argument(
        "--batch", type=int, default=256, help="images a step, all ranks together (paper: 32 × 8)"
    )
    parser.add_argument("--micro", type=int, default=8, help="images a device at a time")
    parser.add_argument("--stage", type=int, choices=(2, 3), default=2, help="of ZeRO")
    parser.add_argument("--offload", choices=("optimizer", "parameters"), help="to this machine's memory")
    parser.add_argument("--keep-activations", action="store_true", help="no activation checkpointing")
    parser.add_argument("--answers", type=int, default=16, help="generated at a time")
    parser.add_argument("--new-tokens", type=int, default=128, help="of an answer")
    parser.add_argument(
        "--peak", type=float, help="the card's dense bf16 TFLOP/s (default: known for A100, H100, H200)"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="gets the table")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    if "WORLD_SIZE" not in os.environ:  # alone; port 0 is any that is free
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
        os.environ.update(alone | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"})
    ranks.connect()
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    peak = arguments.peak or next((PEAKS[name] for name in PEAKS if name in card), None)
    settings(arguments)  # a batch that cannot be cut so stops here
    processor = make_processor(arguments.size)
    answered = answering(arguments, processor)
    trained = training(arguments, processor)
    if ranks.rank() == 0:
        text = table(arguments, trained, answered, peak)
        print(text)
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
    ranks.wait()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
