"""A LLaVA of a few thousand random weights, and records that it can learn by heart."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fakevlm.config.params import Params, load_params
from fakevlm.data.records import FAKE, QUESTION, REAL, Record, encode, write_records

ANSWERS = {FAKE: "This is a fake image. Texture: waxy.", REAL: "This is a real image. Texture: fine grain."}
QUESTIONS = (None, "Does the person's skin look real/fake?", "Is this image fake?")
TAUGHT = ["This is a fake image. Texture: waxy.", "This is a real image.", "This image is not real."]
TAUGHT += ["A dog on a sofa.", "Yes.", ""]
_SMALL = {"hidden_size": 16, "layers": 2, "heads": 2, "mlp": 32}
SIZES: dict[str, Any] = {"vision": _SMALL, "text": _SMALL, "image_size": 32, "patch_size": 8}
CATEGORIES = ("animal", "doc")
# What vLLM looks for: the names of llava-1.5-7b-hf's weights, as a pattern.
PUBLISHED_NAMES = (
    r"language_model\.lm_head\.weight"
    r"|language_model\.model\.(embed_tokens|norm|layers\.\d+\.\w+(\.\w+)?)\.weight"
    r"|multi_modal_projector\.linear_[12]\.(weight|bias)"
    r"|vision_tower\.vision_model\.(embeddings|pre_layrnorm|post_layernorm|encoder\.layers\.\d+)\..+"
)


def build(folder: Path, seed: int = 5) -> Path:
    from fakevlm.model.build import build_llava

    build_llava(folder, [*ANSWERS.values(), QUESTION] * 4, **SIZES, vocab_size=450, seed=seed)
    return folder


def records(
    n: int, seed: int = 0, questions: tuple[str | None, ...] = (None,), size: int = 32
) -> list[Record]:
    """Dark fakes and bright real images, by turns, as PNG."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        label = FAKE if i % 2 == 0 else REAL
        low = 0 if label == FAKE else 128
        image = encode(Image.fromarray(rng.integers(low, low + 128, (size, size, 3), dtype=np.uint8)), "PNG")
        record = Record(f"made/{seed}/{i}.png", image, label, "made", f"{seed}/{i}")
        record.category, record.question = CATEGORIES[i // 2 % 2], questions[i % len(questions)]
        record.generator, record.references = ("adm" if label == FAKE else None), [ANSWERS[label]]
        rows.append(record)
    return rows


def frame(records: list[Record], columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """A model's answers beside the records' ids."""
    return pd.DataFrame({"id": [record.id for record in records], **columns})


def darkness(images: list[Image.Image]) -> np.ndarray:
    """P(fake) of a detector that takes dark images for fakes."""
    return np.array([1 - np.asarray(image).mean() / 255 for image in images])


def params(
    base: Path, study: dict[str, Any] | None = None, evaluate: dict[str, Any] | None = None, **tune: Any
) -> Params:
    """The mini profile with a tiny base and short training; `tune`: epochs and the section training."""
    loaded, epochs = load_params("mini"), tune.pop("epochs", 2.0)
    parts = dict.fromkeys(("train_vision", "train_projector", "train_llm"), True)
    short = {"batch_size": 4, "gradient_accumulation": 1, "learning_rate": 1e-2, "precision": "fp32"}
    short |= {"max_length": 120, "mirror": False, "gradient_checkpointing": False, "checkpoint_every": 4}
    changes = {
        "training": parts | short | {"vision_learning_rate": None, "deepspeed": None} | tune,
        "finetune": {"epochs": epochs},
        "study": study or {},
        "evaluate": evaluate or {},
    }
    update = {name: getattr(loaded, name).model_copy(update=values) for name, values in changes.items()}
    return loaded.model_copy(update={"base": str(base), **update})


def run(
    base: Path,
    work: Path,
    objective: str = "explanation",
    steps: int | None = None,
    data: tuple[list[Record], list[Record]] | None = None,
    **tune: Any,
) -> Any:
    """A training of 18 records (5 steps an epoch), or of `data`; see `params` for `tune`."""
    from fakevlm.training import ranks
    from fakevlm.training.finetune import Run

    shards = work.with_name(f"{work.name} data")

    def write() -> None:
        for split, rows in zip(("train", "val"), data or (records(18), records(6, 1)), strict=True):
            write_records(rows, shards / split)

    ranks.agree(write)
    return Run(params(base, **tune), objective, shards, work, steps)


def taught(folder: Path, records: list[Record], answers: list[str], kind: str = "template") -> Path:
    """A model that answers record n with `answers[n % len(answers)]`, if questions or brightness differ."""
    from fakevlm.model import chat
    from fakevlm.model.build import build_llava
    from fakevlm.model.collate import IGNORE, Collator, Example
    from fakevlm.model.llava import load_model, load_processor

    wide = SIZES | {"text": _SMALL | {"hidden_size": 192, "mlp": 64}}
    build_llava(folder, [*ANSWERS.values(), *answers, QUESTION] * 4, **wide, vocab_size=450, seed=7)
    model, processor = load_model(folder, device="cpu"), load_processor(folder)
    with torch.no_grad():
        for name, weights in model.named_parameters():  # so that the past counts beside the last token
            if weights.ndim == 2 and ("layers" in name or "embed_tokens" in name or "projector" in name):
                weights.mul_(50 * weights.shape[1] ** -0.5)
        states, targets = [], []
        for n, record in enumerate(records):
            question = record.question or chat.standard(kind)
            example = Example(record.pil(), question, answers[n % len(answers)])
            batch = Collator(processor, prompt=kind)([example])
            learned = batch.pop("labels")[0, 1:]
            states.append(model.model(**batch).last_hidden_state[0, :-1][learned != IGNORE].double())
            targets.append(learned[learned != IGNORE])
        inputs = torch.cat(states)
        wanted = 6 * torch.nn.functional.one_hot(torch.cat(targets), len(processor.tokenizer)).double()
        damping = 1e-6 * len(inputs) * torch.eye(inputs.shape[1], dtype=torch.float64)
        model.lm_head.weight.copy_(torch.linalg.solve(inputs.T @ inputs + damping, inputs.T @ wanted).T)
    model.save_pretrained(folder)
    return folder
