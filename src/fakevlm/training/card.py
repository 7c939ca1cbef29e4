"""The model card that lies beside exported weights: what they are, what they saw, how well they fit."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fakevlm.config.params import Params
from fakevlm.data.records import FAKE, Record
from fakevlm.data.shards import without_images

TITLES = {
    "explanation": "FakeVLM: tells real from fake images and says why",
    "label": "LLaVA tuned to answer Fake or Real",
    "head": "LLaVA with a linear head: P(fake) without words",
}
ANSWERS = {
    "explanation": "the aggregated explanation, which opens with `This is a fake image.` or `This is a real image.`",
    "label": "`Fake` or `Real`",
    "head": "none: a linear head on the last hidden state of the prompt's last token gives the logit of *fake*",
}
USE = {
    "text": """\
from transformers import AutoProcessor, LlavaForConditionalGeneration

model = LlavaForConditionalGeneration.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
inputs = processor(images=image, text={prompt!r}, return_tensors="pt")
print(processor.decode(model.generate(**inputs, max_new_tokens=96)[0], skip_special_tokens=True))
""",
    "head": """\
from fakevlm.training.head import load_head

p_fake = load_head(folder).predict([image])
""",
}


def _rows(table: Sequence[Sequence[Any]]) -> str:
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in table)


def _data(records: dict[str, Sequence[Record]]) -> str:
    counts: dict[str, Counter] = {}
    for split, part in records.items():
        for record in without_images(part):
            label = "fake" if record.label == FAKE else "real"
            counts.setdefault(record.category or "unknown", Counter())[split, label] += 1
    columns = [(split, label) for split in records for label in ("fake", "real")]
    names = sorted(counts)
    total = sum(counts.values(), Counter())
    head = ["category", *(" ".join(column) for column in columns)]
    body = [[name, *(counts[name][column] for column in columns)] for name in names]
    return _rows([head, ["---"] * len(head), *body, ["total", *(total[column] for column in columns)]])


def card(
    params: Params,
    objective: str,
    records: dict[str, Sequence[Record]],
    *,
    prompt: str,
    steps: int,
    weights: int,
    truncated: int | None,
    val_loss: float,
) -> str:
    """The card's Markdown; the same run gives the same text.

    Args:
        params: the profile.
        objective: what was learned.
        records: split → its records.
        prompt: what the model is asked, in its template.
        steps: optimizer steps.
        weights: number of parameters.
        truncated: training answers that were cut to `max_length`; None where they were not counted.
        val_loss: mean loss on the validation split.
    """
    tune = params.finetune
    parts = {
        "vision tower": tune.train_vision,
        "projector": tune.train_projector,
        "language model": tune.train_llm,
    }
    each = tune.batch_size * tune.gradient_accumulation
    images = f"{each} a process"
    if tune.deepspeed:
        images = (
            f"{each * tune.ranks}: {images}, {tune.ranks} of them (DeepSpeed ZeRO-{tune.deepspeed.stage})"
        )
    settings = [
        ("profile", params.profile),
        ("base model", f"`{params.base}`"),
        ("parameters of the model", f"{weights:,}"),
        ("trained", ", ".join(name for name, on in parts.items() if on)),
        ("optimizer steps", f"{steps:,}"),
        ("images a step", images),
        ("learning rate", f"{tune.learning_rate:g}, cosine, warm-up {tune.warmup_ratio:g} of all steps"),
        ("weight decay", f"{tune.weight_decay:g}"),
        ("precision", tune.precision),
        (
            "longest sequence",
            f"{tune.max_length} tokens; answers cut: {'not counted' if truncated is None else truncated}",
        ),
        ("seed", params.seed),
    ]
    if tune.vision_learning_rate is not None:
        settings.append(("learning rate of the vision tower", f"{tune.vision_learning_rate:g}"))
    if tune.mirror:
        settings.append(("images mirrored", "each with chance one half, anew each epoch"))
    use = USE["head" if objective == "head" else "text"].format(prompt=prompt)
    return f"""\
---
library_name: transformers
pipeline_tag: image-text-to-text
---
# {TITLES[objective]}

Made by `dvc repro finetune@{objective}` of the FakeVLM pipeline (the paper: "Spot the Fake", NeurIPS 2025), profile
`{params.profile}`. The numbers below are this run's, not the paper's.

## Use
Asked: `{prompt!r}`. Answer: {ANSWERS[objective]}. Use this very prompt: another template gives other, worse answers.

```python
{use}```

## Training
{_rows([("setting", "value"), ("---", "---"), *settings])}

The loss counts the answer and its end-of-sequence token only. Mean validation loss at the end: **{val_loss:.4f}**.

## Data
FakeClue as stage `annotate` made it; images by category and label:

{_data(records)}

## Limits
It knows the kinds of fakes it was trained on. A verdict is a guess with a probability, not a proof, and an explanation may
name an artifact that is not there.
"""
