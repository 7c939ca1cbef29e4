"""A LLaVA of a few thousand random weights and records that it can learn by heart, for the tests of training
and the study."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from fakevlm.config.params import Params, load_params
from fakevlm.data.records import FAKE, REAL, Record

ANSWERS = {FAKE: "This is a fake image. Texture: waxy.", REAL: "This is a real image. Texture: fine grain."}
CATEGORIES = ("animal", "doc")


def build(folder: Path, seed: int = 5) -> Path:
    from fakevlm.data.records import QUESTION
    from fakevlm.model.build import build_llava

    small = {"hidden_size": 16, "layers": 2, "heads": 2, "mlp": 32}
    build_llava(
        folder,
        [*ANSWERS.values(), QUESTION] * 4,
        vision=small,
        text=small,
        image_size=32,
        patch_size=8,
        vocab_size=450,
        seed=seed,
    )
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
        buffer = io.BytesIO()
        pixels = rng.integers(low, low + 128, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        rows.append(
            Record(
                id=f"made/{seed}/{i}.png",
                image=buffer.getvalue(),
                label=label,
                source="made",
                item=f"{seed}/{i}",
                category=CATEGORIES[i // 2 % len(CATEGORIES)],
                generator="adm" if label == FAKE else None,
                question=questions[i % len(questions)],
                references=[ANSWERS[label]],
            )
        )
    return rows


def frame(records: list[Record], columns: dict[str, np.ndarray]) -> pd.DataFrame:
    """A model's answers beside the records' ids."""
    return pd.DataFrame({"id": [record.id for record in records], **columns})


def params(
    base: Path, study: dict[str, Any] | None = None, evaluate: dict[str, Any] | None = None, **tune: Any
) -> Params:
    """The mini profile's parameters with a tiny base and short training; `tune`: epochs and the section
    training."""
    loaded, epochs = load_params("mini"), tune.pop("epochs", 2.0)
    short = {
        "batch_size": 4,
        "gradient_accumulation": 1,
        "learning_rate": 1e-2,
        "vision_learning_rate": None,
        "precision": "fp32",
        "max_length": 120,
        "train_vision": True,
        "train_projector": True,
        "train_llm": True,
        "mirror": False,
        "gradient_checkpointing": False,
        "checkpoint_every": 4,
        "deepspeed": None,
    }
    return loaded.model_copy(
        update={
            "base": str(base),
            "training": loaded.training.model_copy(update=short | tune),
            "finetune": loaded.finetune.model_copy(update={"epochs": epochs}),
            "study": loaded.study.model_copy(update=study or {}),
            "evaluate": loaded.evaluate.model_copy(update=evaluate or {}),
        }
    )


def run(
    base: Path,
    work: Path,
    objective: str = "explanation",
    steps: int | None = None,
    data: tuple[list[Record], list[Record]] | None = None,
    **tune: Any,
) -> Any:
    """A training of 18 records (5 steps an epoch), or of `data`; see `params` for `tune`."""
    from fakevlm.training.finetune import Run

    loaded = params(base, **tune)
    train, val = data or (records(18), records(6, 1))
    return Run(loaded, objective, train, val, work, steps)


def scripted(model: Any, processor: Any, answers: list[str]) -> Any:
    """`model.generate`, made to write `answers[k]`, k taken from the image's first pixel; what it watches are
    its own logits."""
    plain = model.generate
    tokens = [
        [*processor.tokenizer.encode(" " + a, add_special_tokens=False), processor.tokenizer.eos_token_id]
        for a in answers
    ]

    def generate(logits_processor, **inputs):
        start = inputs["input_ids"].shape[1]
        picks = [round(float(x) * 1000) % len(answers) for x in inputs["pixel_values"][:, 0, 0, 0]]

        def force(ids, scores):
            for n, pick in enumerate(picks):
                step = ids.shape[1] - start
                wanted = tokens[pick][step] if step < len(tokens[pick]) else processor.tokenizer.eos_token_id
                scores[n, wanted] = 1e4
            return scores

        # Watching comes first, so that what is recorded are the model's own logits.
        return plain(**inputs, logits_processor=[*logits_processor, force])

    return generate
