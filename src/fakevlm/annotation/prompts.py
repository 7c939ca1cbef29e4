"""The 12 label prompts (paper section 3.2); prompts.yaml has the texts, and what the paper fixes of them."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from fakevlm.data.records import FAKE, REAL
from fakevlm.errors import UserError

LABELS = {FAKE: "fake", REAL: "real"}
_TEXTS = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question to a model about an image."""

    name: str  # its type: one of the 12 `<group>-<fake|real>` (a tag makes no other), or `aggregate`
    text: str
    label: int  # 1 real, 0 fake: the prior knowledge in the text
    category: str  # the image's
    tagged: bool = False  # whether the text lets the model refrain from explaining


def _group(category: str) -> tuple[str, dict]:
    groups = _TEXTS["groups"]
    for name, group in groups.items():
        if category in group["categories"]:
            return name, group
    known = ", ".join(name for group in groups.values() for name in group["categories"])
    cure = f"use one of {known}, or add a group to src/fakevlm/annotation/prompts.yaml"
    raise UserError(f"no label prompt for the category {category!r}", cure)


def subject(category: str) -> str:
    """Return what prompts call an image of a category, e.g. `an image of an animal`."""
    return _group(category)[1]["subject"]


def label_prompt(category: str, label: int, tagged: bool = False) -> Prompt:
    """Return the prompt for an image of a category (`records.CATEGORIES`), known to be real (1) or fake (0).

    If `tagged`, it begins with the tag, for a fake that may show no artifact; `ValueError` for a real image.
    Raises `UserError` if no group has the category.
    """
    if tagged and label != FAKE:
        raise ValueError("a real image is never tagged: the tag lets a model refrain from explaining a fake")
    (name, group), kind = _group(category), LABELS[label]
    cues = "\n".join(f"{n}. {cue}" for n, cue in enumerate(group[kind], 1))
    text = _TEXTS["instructions"][kind].format(subject=group["subject"], cues=cues)
    if tagged:
        text = f"{_TEXTS['tag']}\n{text}"
    return Prompt(f"{name}-{kind}", text, label, category, tagged)


def prompt_types() -> dict[str, Prompt]:
    """Return the 12 types by name, each for the first category of its group, untagged."""
    groups = _TEXTS["groups"].values()
    prompts = [label_prompt(group["categories"][0], label) for group in groups for label in LABELS]
    return {prompt.name: prompt for prompt in prompts}
