"""The 12 label prompts (paper section 3.2, "Label Prompt Design based on category knowledge").

The paper fixes: the authenticity label is in the prompt as prior knowledge; real images are analysed for
their plausibility as photographs, fakes for artifacts over the whole image; the category directs attention to
its cues; there are 12 distinct types; fakes that may show nothing (Chameleon's) get a tag that lets the model
refrain.

It leaves open the texts and the 12. Seven categories times two labels would make 14. We take six groups of
category knowledge times two labels; `human` and `deepfake` share a group. The paper treats "cues for facial
images" as one body of knowledge (Fig. 2), its classifier separates four photographic categories to which
satellite and document images are added, and FF++'s frames show people; "deepfake" says how a fake was made,
which the prompt must not presuppose. The one published prompt (animal, fake) asks for five cues: structure
and physical features; surface texture and colour; realism of object and environment; symmetry and
consistency; overall colour and processing. All twelve ask for these five, in each group's words.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import yaml

from fakevlm.data.records import FAKE, REAL
from fakevlm.errors import UserError

LABELS = {FAKE: "fake", REAL: "real"}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question to a model about an image.

    Attributes:
        name: the type, `<group>-<fake|real>`, one of 12 (a tag makes no other type); an aggregator's is
            `aggregate`.
        text: the full text.
        label: 1 real, 0 fake: the prior knowledge in the text.
        category: the image's category.
        tagged: whether the text lets the model refrain from explaining.
    """

    name: str
    text: str
    label: int
    category: str
    tagged: bool = False


@lru_cache(maxsize=1)
def _texts() -> dict:
    return yaml.safe_load(resources.files(__package__).joinpath("prompts.yaml").read_text(encoding="utf-8"))


def _group(category: str) -> tuple[str, dict]:
    groups = _texts()["groups"]
    for name, group in groups.items():
        if category in group["categories"]:
            return name, group
    raise UserError(
        f"no label prompt for the category {category!r}",
        f"use one of {', '.join(name for group in groups.values() for name in group['categories'])}, "
        "or add a group to src/fakevlm/annotation/prompts.yaml",
    )


def subject(category: str) -> str:
    """Return what prompts call an image of a category, e.g. `an image of an animal`."""
    return _group(category)[1]["subject"]


def label_prompt(category: str, label: int, tagged: bool = False) -> Prompt:
    """Return the prompt for an image of `category` known to be real (1) or fake (0).

    Args:
        category: one of `records.CATEGORIES`.
        label: 1 real, 0 fake.
        tagged: for a fake that may show no artifact: begin with the tag.

    Raises:
        UserError: no group has the category.
        ValueError: a real image is tagged.
    """
    if tagged and label != FAKE:
        raise ValueError("a real image is never tagged: the tag lets a model refrain from explaining a fake")
    (name, group), kind = _group(category), LABELS[label]
    cues = "\n".join(f"{n}. {cue}" for n, cue in enumerate(group[kind], 1))
    text = _texts()["instructions"][kind].format(subject=group["subject"], cues=cues)
    if tagged:
        text = f"{_texts()['tag']}\n{text}"
    return Prompt(f"{name}-{kind}", text, label, category, tagged)


def prompt_types() -> dict[str, Prompt]:
    """Return the 12 types by name, each for the first category of its group, untagged."""
    prompts = [
        label_prompt(group["categories"][0], label)
        for group in _texts()["groups"].values()
        for label in LABELS
    ]
    return {prompt.name: prompt for prompt in prompts}
