"""A LLaVA of a few thousand random weights, and records that it can learn by heart."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fakevlm.config.params import Params, load_params
from fakevlm.data.records import FAKE, QUESTION, REAL, Record, encode, write_records

ANSWERS = {FAKE: "This is a fake image. Texture: waxy.", REAL: "This is a real image. Texture: fine grain."}
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
        pixels = rng.integers(low, low + 128, (size, size, 3), dtype=np.uint8)
        image = encode(Image.fromarray(pixels), "PNG")
        record = Record(f"made/{seed}/{i}.png", image, label, "made", f"{seed}/{i}")
        record.category, record.question = CATEGORIES[i // 2 % 2], questions[i % len(questions)]
        record.generator, record.references = ("adm" if label == FAKE else None), [ANSWERS[label]]
        rows.append(record)
    return rows


def frame(records: list[Record], columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """A model's answers beside the records' ids."""
    return pd.DataFrame({"id": [record.id for record in records], **columns})


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


def scripted(model: Any, processor: Any, answers: list[str]) -> Any:
    """`model.generate`, made to write `answers[k]` by an image's first pixel; it watches its own logits."""
    plain, tokenizer = model.generate, processor.tokenizer
    end = tokenizer.eos_token_id
    tokens = [[*tokenizer.encode(" " + text, add_special_tokens=False), end] for text in answers]

    def generate(logits_processor, **inputs):
        start = inputs["input_ids"].shape[1]
        picks = [round(float(x) * 1000) % len(answers) for x in inputs["pixel_values"][:, 0, 0, 0]]

        def force(ids, scores):
            for n, pick in enumerate(picks):
                step = ids.shape[1] - start
                wanted = tokens[pick][step] if step < len(tokens[pick]) else end
                scores[n, wanted] = 1e4
            return scores

        # Watching comes first, so that what is recorded are the model's own logits.
        return plain(**inputs, logits_processor=[*logits_processor, force])

    return generate
