"""What LLaVA-1.5-7B costs on one GPU: `python benchmarks/gpu.py [training] [evaluation] [towers]`.

Runs on a bare machine with Python 3.12, torch 2.11, transformers 5.17, accelerate, safetensors, pandas and
pyarrow; installs and downloads nothing (EVA-02 needs timm, and is left out without it). It times what the
stages call, and imports of this project only `fakevlm.{cache,errors,paths,prefetch,progress}`,
`fakevlm.data.{records,shards}`, `fakevlm.model.{build,chat,collate,llava,verdict}`,
`fakevlm.inference.{generate,predict}` and `fakevlm.training.{data,ranks,trainer}`. Each part ends
within four minutes and writes each row when it has it. `--tiny`, the default without a GPU, only tries the
script.

Shapes are LLaVA-1.5-7B's, weights are random, images are ready pixels. Answers have 118 ± 34 tokens, as
FakeClue's: in `recite` the model learns by heart which token follows which.

Training is one rank of eight under ZeRO-2: bf16 weights and gradients, 32-bit masters and moments of an
eighth, 32 images a step. The exchange between ranks is left out. Model FLOPs utilisation (MFU) counts, after
PaLM (Chowdhery et al. 2022, appendix B), 6 per weight and token that passes it, and 12·layers·width·length
per token for attention; nothing for padding and for what checkpointing computes twice.
"""

import argparse
import gc
import importlib.metadata
import importlib.util
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlavaForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments

from fakevlm.data.records import FAKE, FAKECLUE_QUESTION, REAL, Record
from fakevlm.inference.generate import Llava
from fakevlm.inference.predict import Predictor, predict
from fakevlm.model.collate import Collator, Example, on_device
from fakevlm.model.llava import LastLayer, SparingAttention, SparingMLP, UnreadLayer, lighten
from fakevlm.training import trainer
from fakevlm.training.data import Examples, Item

PEAK = 989e12  # FLOP/s of an H100 or H200 (SXM) in dense bf16, by the data sheet
RANKS, STEP = 8, 32  # of the paper's training; images a step and rank
LIMIT = 200  # seconds after which a part starts no further row
SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<unk>")
QUESTION = f"{FAKECLUE_QUESTION} {'Look closely . ' * 8}"  # about 30 tokens, as with a chat template


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaVA and of its answers."""

    vision: tuple[int, int, int, int]  # width, layers, heads, width of the MLP
    text: tuple[int, int, int, int]
    image: int  # side, pixels
    vocabulary: int
    padded: int  # tokens that the authors pad to
    answer: tuple[int, int]  # mean and deviation of its tokens
    patch: int = 14


LARGE = Shape((1024, 24, 16, 4096), (4096, 32, 32, 11008), 336, 32064, 1024, (118, 34))
TINY = Shape((32, 3, 2, 64), (64, 2, 4, 128), 56, 600, 128, (12, 4))


class Pixels(Record):
    """A record whose image is ready pixels: (3, side, side) uint8 of noise."""

    __slots__ = ()

    def pil(self) -> Any:
        noise = torch.Generator().manual_seed(int(self.id))
        return torch.randint(256, (3, self.width, self.width), generator=noise).byte()


class Processor:
    """Stands in for `LlavaProcessor`, which needs Pillow, where images are ready pixels."""

    image_token, image_token_id, chat_template = "<image>", SPECIAL.index("<image>"), None

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerFast, shape: Shape) -> None:
        self.tokenizer, self.patches = tokenizer, (shape.image // shape.patch) ** 2
        self.batch_decode = tokenizer.batch_decode

    def __call__(self, images: list[torch.Tensor], text: list[str], **_: Any) -> dict[str, Any]:
        text = [one.replace(self.image_token, self.image_token * self.patches) for one in text]
        return {"input_ids": self.tokenizer(text).input_ids, "pixel_values": images}

    def image_processor(self, images: list[torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        return {"pixel_values": torch.stack(images).float().div(255).sub(0.45).div(0.27)}


def build(shape: Shape, count: int) -> tuple[Processor, list[Record]]:
    """Return a processor, and records that each have their question and an answer of true length."""
    drawn = np.random.default_rng(0).normal(*shape.answer, count).round().astype(int)
    vocabulary = [*SPECIAL, "fake", "real", "Fake", "Real", *QUESTION.split(), "This", "is", "a"]
    records: list[Record] = []
    for n, length in enumerate(np.clip(drawn, 2, 2 * shape.answer[0]).tolist()):
        answer, label = [f"w{n}.{k}" for k in range(length)], (FAKE, REAL)[n % 2]
        asked = {"question": f"{QUESTION}q{n}", "references": [" ".join(answer)]}
        records.append(Pixels(str(n), str(n).encode(), label, "noise", width=shape.image, **asked))
        verdict = f"{('fake', 'real')[n % 2]} image.{n}"  # one token, with which `recite` replaces the first
        vocabulary += [answer[0], f"q{n}", verdict, *answer[1:]]
    words = {word: number for number, word in enumerate(dict.fromkeys(vocabulary))}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    names |= {"extra_special_tokens": {"image_token": "<image>"}}
    return Processor(transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names), shape), records


def configuration(shape: Shape) -> transformers.LlavaConfig:
    """Return a configuration like that of llava-1.5-7b-hf."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    vision, text = (dict(zip(names, sizes, strict=True)) for sizes in (shape.vision, shape.text))
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    text |= {"vocab_size": shape.vocabulary, "max_position_embeddings": 4096, **special}
    return transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**vision, image_size=shape.image, patch_size=shape.patch),
        text_config=transformers.LlamaConfig(**text),
        image_token_index=Processor.image_token_id,
        image_seq_length=(shape.image // shape.patch) ** 2,
        vision_feature_layer=-2,
        **special,
    )


def model(shape: Shape, dtype: torch.dtype) -> LlavaForConditionalGeneration:
    """Return a LLaVA of random weights on the device."""
    torch.manual_seed(0)
    with torch.device(device()):
        llava = LlavaForConditionalGeneration._from_config(configuration(shape), dtype=dtype).eval()
    lighten(llava)  # as `load_model` does
    return llava


@contextmanager
def plain(llava: LlavaForConditionalGeneration) -> Iterator[None]:
    """Let a LLaVA be the library's own for a while."""
    kinds = (LastLayer, SparingAttention, SparingMLP, UnreadLayer)
    light = [(m, type(m)) for m in llava.modules() if isinstance(m, kinds)]
    for module, kind in light:
        module.__class__ = kind.__base__
    yield
    for module, kind in light:
        module.__class__ = kind


@torch.no_grad()
def recite(llava: LlavaForConditionalGeneration, processor: Processor) -> None:
    """Set the weights so that each question is answered by "This is a" and its own words.

    A token's logit is the likeness of the hidden state and the embedding of the token before it. Embeddings
    fill the first half of the width. In the second half only a question's last token has anything, and the
    first layer's attention, the same for all positions, hands it on. The other layers add next to nothing.
    """
    embedding, head = llava.get_input_embeddings().weight, llava.lm_head.weight
    width, words = embedding.shape[1], processor.tokenizer.get_vocab()
    half, layers = width // 2, llava.model.language_model.layers
    for layer in layers:
        layer.self_attn.o_proj.weight.mul_(1e-3)
        layer.mlp.down_proj.weight.mul_(1e-3)
    first, projector = layers[0].self_attn, llava.model.multi_modal_projector.linear_2
    for tensor in first.q_proj.weight, first.v_proj.weight, first.o_proj.weight, head:
        tensor.zero_()
    first.v_proj.weight[half:, half:].fill_diagonal_(1)
    first.o_proj.weight[half:, half:].fill_diagonal_(processor.patches + len(QUESTION.split()))
    projector.weight[half:], projector.bias[half:] = 0, 0
    embedding.normal_()
    parts = [F.normalize(part, dim=-1) * width**0.5 for part in embedding.split(half, 1)]
    embedding.copy_(torch.cat([parts[0], torch.zeros_like(parts[1])], 1))
    this, is_, a, unknown, ends = (words[word] for word in ("This", "is", "a", "<unk>", "</s>"))
    head[[this, is_, a, ends]] = embedding[[unknown, this, is_, ends]]
    starts = sorted(words[word] for word in words if re.fullmatch(r"q\d+", word))
    for start, after in pairwise([*starts, len(words) + 1]):
        last = after - 2  # before the next answer's first word, which only training knows
        head[start + 2 : last + 1] = embedding[start + 1 : last]
        embedding[last] = embedding[ends]  # what follows all last words is the end of the sequence
        embedding[start] = torch.cat([embedding[unknown, :half], parts[1][start]])
        head[start + 1] = embedding[a] + 0.25 * (embedding[start] - embedding[unknown])
    head.div_(width**0.5)


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def now() -> tuple[float, float]:
    """Wait for the device; return wall-clock time and this process's CPU time, both in seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


class Clock(TrainerCallback):
    """The times at the start and after each step, and the losses."""

    def __init__(self, llava: Any) -> None:
        getattr(llava, f"{trainer._CHECKPOINTING}_disable")()  # an earlier training's
        self.times: list[tuple[float, float]] = []
        self.losses: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.times.append(now())

    on_step_end = on_train_begin

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        self.losses += [logs["loss"]] if "loss" in logs else []

    def seconds(self, clock: int, warm: int = 0) -> float:
        """Return seconds a step, without `warm` first ones: wall-clock time (clock 0) or CPU time (1)."""
        return (self.times[-1][clock] - self.times[warm][clock]) / (len(self.times) - 1 - warm)


class Shard(torch.optim.Optimizer):
    """AdamW of one rank under ZeRO-2: 32-bit masters and moments of an eighth of the weights."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], rate: float) -> None:
        super().__init__(parameters, {"lr": rate})
        sizes = np.cumsum([p.numel() for p in parameters])
        self.part = parameters[: 1 + int(np.searchsorted(sizes, sizes[-1] / RANKS))]
        self.masters = [p.detach().float().clone().requires_grad_() for p in self.part]
        self.inner = torch.optim.AdamW(self.masters, rate, weight_decay=0.0, fused=torch.cuda.is_available())

    def step(self, closure: Any = None) -> None:
        for master, p in zip(self.masters, self.part, strict=True):
            master.grad = p.grad.float()
        self.inner.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        self.inner.step()
        self.inner.zero_grad()
        with torch.no_grad():
            torch._foreach_copy_(self.part, self.masters)


def sharded(self: Trainer, _: Any = None) -> torch.optim.Optimizer:
    """Stands in for `Trainer.create_optimizer`."""
    self.optimizer = self.optimizer or Shard(list(self.model.parameters()), self.args.learning_rate)
    return self.optimizer


def train_ours(
    llava: Any, examples: Examples, micro: int, checkpointing: bool, steps: int, compiled: bool = False
) -> Clock:
    """Train on all examples in each step, as stages study and finetune do."""
    clock = Clock(llava)
    settings: Any = argparse.Namespace(
        batch_size=micro, gradient_accumulation=len(examples) // micro, gradient_checkpointing=checkpointing,
        learning_rate=2e-5, vision_learning_rate=None, warmup_ratio=0.03, weight_decay=0.0, precision="fp32",
        compile=compiled, deepspeed=None, checkpoint_every=1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        args = trainer.arguments(settings, Path(folder), seed=1, workers=0, max_steps=steps)
        args.save_strategy = args.eval_strategy = transformers.IntervalStrategy.NO
        trainer.train(llava, examples, examples, settings, args, callbacks=[clock])
    return clock


def train_authors(
    llava: Any, examples: Examples, micro: int, checkpointing: bool, steps: int, padded: int
) -> Clock:
    """Train likewise by the authors' settings, with transformers alone: samples padded to `padded` tokens."""
    clock = Clock(llava)

    def collate(items: Sequence[Item]) -> dict[str, torch.Tensor]:
        batch = examples.collator.pad([encoded for encoded, _ in items])
        for key, value in ("input_ids", 0), ("attention_mask", 0), ("labels", -100):
            batch[key] = F.pad(batch[key], (0, padded - batch[key].shape[1]), value=value)
        return batch

    options = {"data_seed": 1, "remove_unused_columns": False, "disable_tqdm": True, "log_level": "error"}
    options |= {"save_strategy": "no", "report_to": "none", trainer._CHECKPOINTING: checkpointing}
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder, per_device_train_batch_size=micro, gradient_accumulation_steps=len(examples) // micro,
            max_steps=steps, learning_rate=2e-5, lr_scheduler_type="cosine", warmup_steps=0.03, seed=1,
            weight_decay=0.0, logging_steps=1, use_cpu=not torch.cuda.is_available(), **options,
        )  # fmt: skip
        trained = Trainer(llava, args, data_collator=collate, train_dataset=examples, callbacks=[clock])
        trained.remove_callback(transformers.PrinterCallback)
        with plain(llava):
            trained.train()
    return clock


def ours(llava: Any, processor: Processor, size: int, longest: int, *options: bool) -> Predictor:
    """Return who answers in stages evaluate and robustness: words, verdict and P(fake)."""
    return Predictor(lambda: Llava(llava, processor, longest, "bare", *options), None, size)


@torch.inference_mode()
def answer_authors(
    llava: Any, processor: Processor, records: list[Record], size: int, longest: int, padded: int
) -> list[str]:
    """Answer by the authors' settings with transformers alone: words, prompts padded to `padded` tokens."""
    texts = []
    for start in range(0, len(records), size):
        examples = [Example(record.pil(), record.question) for record in records[start : start + size]]
        batch = on_device(Collator(processor, for_generation=True, prompt="bare")(examples), llava)
        for key in ("input_ids", "attention_mask"):
            batch[key] = F.pad(batch[key], (padded - batch[key].shape[1], 0))
        with plain(llava):
            tokens = llava.generate(**batch, do_sample=False, max_new_tokens=longest)[:, padded:]
        texts += processor.batch_decode(tokens, skip_special_tokens=True)
    return texts


def flops(llava: LlavaForConditionalGeneration, examples: Examples) -> float:
    """Return the model FLOPs of training on one sample, on average; see this file's head."""

    def count(*modules: torch.nn.Module) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    inner, patches = llava.model, llava.config.image_seq_length
    vision, text = llava.config.vision_config, llava.config.text_config
    layers = next(list(m) for m in inner.vision_tower.modules() if isinstance(m, torch.nn.ModuleList))
    read = len(layers) + 1 + llava.config.vision_feature_layer
    image = (count(inner.vision_tower) - count(*layers[read:])) * (patches + 1)
    image += count(inner.multi_modal_projector) * patches
    words = count(inner.language_model) - count(llava.get_input_embeddings())
    total = 0.0
    for encoded, _ in map(examples.__getitem__, range(len(examples))):
        tokens = len(encoded.ids)
        passed = image + words * tokens + count(llava.lm_head) * (tokens - encoded.prompt + 1)
        squares = read * vision.hidden_size * (patches + 1) ** 2
        squares += text.num_hidden_layers * text.hidden_size * tokens**2
        total += 6.0 * passed + 12.0 * squares
    return total / len(examples)


class Table:
    """A file of Markdown tables that grows row by row; the rows are printed too."""

    def __init__(self, file: Path, title: str, machine: str, packages: Sequence[str]) -> None:
        self.file = file
        if not file.exists():
            versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
            self.write(f"# {title}\n\n{time.strftime('%Y-%m-%d')} · {machine} · {versions}")

    def write(self, line: str) -> None:
        print(line, flush=True)
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")

    def head(self, title: str, *columns: str) -> None:
        self.until = time.monotonic() + LIMIT
        self.write(f"\n## {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")

    def row(self, *cells: object) -> None:
        self.write(f"| {' | '.join(map(str, cells))} |")

    def measure(
        self, names: Sequence[object], function: Callable[..., Sequence[object]], *given: Any
    ) -> None:
        """Write a row: names, then what the function measures, if there is still time and memory suffices."""
        cells: Sequence[object] = ["left out: the time is up"]
        if time.monotonic() < self.until:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            try:
                cells = function(*given)
            except torch.OutOfMemoryError:
                cells = ["out of memory"]
        self.row(*names, *cells)


def memory() -> str:
    return f"{torch.cuda.max_memory_allocated() / 1e9:.0f}" if torch.cuda.is_available() else "–"


def training(table: Table, shape: Shape, tiny: bool) -> None:
    processor, records = build(shape, 4 if tiny else STEP)
    examples = Examples(records, Collator(processor, prompt="bare"), "explanation")
    llava = model(shape, torch.float32 if tiny else torch.bfloat16)
    work = flops(llava, examples)

    def measure(train: Callable[..., Clock], *settings: Any) -> list[str]:
        for layer in llava.model.language_model.layers:
            layer._compiled_call_impl = None  # of an earlier row
        with mock.patch.object(Trainer, "create_optimizer", sharded):
            clock = train(llava, examples, *settings)
        rate = len(examples) / clock.seconds(0, warm=1)
        return [f"{rate:.1f}", f"{rate * work / PEAK:.2f}" if device() == "cuda" else "–", memory()]

    columns = ("micro-batch", "checkpointing", "compiled", "samples/s", "MFU", "GB")
    table.head(f"Training, {work / 1e12:.3g} TFLOP a sample", "recipe", *columns)
    rows = [("authors'", 8, True, False), ("ours", 8, True, False), ("ours", 8, False, False)]
    rows += [("ours", 8, False, True), ("ours", 16, False, True), ("ours", 32, True, False)]
    rows += [("authors'", 32, True, False), ("authors'", 4, False, False)]
    for name, micro, checkpointing, compiled in rows[: 4 if tiny else None]:
        micro, steps = min(micro, len(examples) // 2), 2 if tiny else 4
        cells = (name, micro, *("yes" if on else "no" for on in (checkpointing, compiled)))
        if name == "ours":
            table.measure(cells, measure, train_ours, micro, checkpointing, steps, compiled)
        else:
            table.measure(cells, measure, train_authors, micro, checkpointing, steps, shape.padded)


def evaluation(table: Table, shape: Shape, tiny: bool) -> None:
    processor, records = build(shape, 8 if tiny else 128)
    llava, longest = model(shape, torch.float32 if tiny else torch.bfloat16), 2 * shape.answer[0]
    recite(llava, processor)
    said: list[str] = []

    def measure(answer: Callable[[list[Record]], Any], size: int) -> list[str]:
        answer(records[:size])  # kernels are chosen, steps compiled
        start = now()[0]
        answers = answer(records)
        seconds = now()[0] - start
        texts = list(answers["text"] if isinstance(answers, dict) else answers)
        said.extend([] if said else texts)
        same = np.mean([other.startswith(one) for one, other in zip(texts, said, strict=True)])
        return [f"{len(records) / seconds:.1f}", memory(), f"{same:.0%}"]

    table.head(
        f"Evaluation, {len(records)} images", "settings", "batch", "compiled", "images/s", "GB", "same"
    )
    authors = partial(answer_authors, llava, processor, size=16, longest=longest, padded=shape.padded)
    table.measure((f"authors': padded to {shape.padded}, words", 16, "no"), measure, authors, 16)
    rows = [("words, P(fake)", size, longest, on) for on in (True, False) for size in (64, 16)]
    for what, size, most, compiled in [*rows, ("verdict, P(fake)", 64, 12, False)]:
        answer = partial(predict, ours(llava, processor, size, most, compiled, most == 12))
        table.measure((f"ours: {what}", size, "yes" if compiled else "no"), measure, answer, size)


def towers(table: Table, shape: Shape, tiny: bool) -> None:
    def measure(make: Callable[..., Any], side: int, dtype: torch.dtype, **options: Any) -> list[str]:
        network, times = make().to(device(), dtype).eval(), []
        pixels = torch.rand(size, 3, side, side, dtype=dtype)
        with torch.inference_mode():
            for _ in range(3 if tiny else 12):
                network(pixels.to(device()), **options)
                times.append(now()[0])
        return [f"{(len(times) - 2) * size / (times[-1] - times[1]):.0f}", memory()]

    table.head("Towers", "model", "type", "batch", "images/s", "GB")
    size, clip = 2 if tiny else 64, configuration(shape).vision_config
    tower = partial(transformers.CLIPVisionModel, clip)
    for dtype, name in (torch.float32, "fp32"), (torch.bfloat16, "bf16"):
        cells = ("CLIP ViT-L/14 at 336 (UnivFD, study)", name, size)
        table.measure(cells, partial(measure, tower, clip.image_size, dtype, output_hidden_states=True))
        cells = ("EVA-02-L at 448 (categorize)", name, size)
        if importlib.util.find_spec("timm"):
            import timm

            eva, side = ("eva02_tiny_patch14_224", 224) if tiny else ("eva02_large_patch14_448", 448)
            table.measure(cells, measure, partial(timm.create_model, eva), side, dtype)
        else:
            table.row(*cells, "timm is not installed", "–")


PARTS = {"training": training, "evaluation": evaluation, "towers": towers}


def main() -> None:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="*", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--tiny", action="store_true", default=not gpu, help="only try the script")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the table")
    options = parser.parse_args()
    card = re.sub(r"\W+", "-", torch.cuda.get_device_name() if gpu else "no-GPU")
    torch.compiler.set_stance("force_eager" if options.tiny else "default")
    title = "A rehearsal in tiny shapes: no figures" if options.tiny else f"LLaVA-1.5-7B's shapes on {card}"
    file = f"gpu{'-tiny' if options.tiny else ''}_{card}_{time.strftime('%Y-%m-%d')}.md"
    table = Table(options.out / file, title, card, ("torch", "transformers", "accelerate"))
    for part in options.part or PARTS:
        PARTS[part](table, TINY if options.tiny else LARGE, options.tiny)


if __name__ == "__main__":
    main()
