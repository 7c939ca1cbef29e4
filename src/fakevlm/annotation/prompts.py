"""The 12 label prompts (paper section 3.2, "Label Prompt Design based on category knowledge").

What the paper fixes: the authenticity label stays in the prompt as prior knowledge; real images are analysed for their
plausibility as photographs, fakes for artifacts over the whole image; the category directs attention to its cues; there
are 12 distinct types; fakes that may show nothing (Chameleon's) get a special tag that lets the model refrain.

What it leaves open: the texts, and which 12. Seven categories times two labels would make 14. We read the 12 as six groups
of category knowledge times two labels, `human` and `deepfake` sharing one group: the paper speaks of "cues for facial
images" as one body of knowledge (Fig. 2), its own classifier separates exactly four photographic categories (animals,
objects, people, landscapes) to which satellite and document images are added, and FF++'s frames are photographs of people
by subject; "deepfake" says how the fake was made, which the prompt must not take for granted. The one published prompt
(animal, fake) asks five cues: structure and physical features; surface texture and colour; realism of object and
environment; symmetry and consistency; overall colour and processing. All twelve ask the same five, in each group's words.
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
    """What an annotator is asked.

    Attributes:
        name: the type, `<group>-<fake|real>`; one of 12. A tag does not make another type. An aggregator's is `aggregate`.
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
def _data() -> dict:
    return yaml.safe_load(resources.files(__package__).joinpath("prompts.yaml").read_text(encoding="utf-8"))


def _group(category: str) -> str:
    for name, group in _data()["groups"].items():
        if category in group["categories"]:
            return name
    known = [category for group in _data()["groups"].values() for category in group["categories"]]
    raise UserError(
        f"no label prompt knows the category {category!r}",
        f"use one of {', '.join(known)}, or add a group to src/fakevlm/annotation/prompts.yaml",
    )


def subject(category: str) -> str:
    """What an image of a category is called in prompts, e.g. `an image of an animal`."""
    return _data()["groups"][_group(category)]["subject"]


def label_prompt(category: str, label: int, tagged: bool = False) -> Prompt:
    """The prompt for an image of `category` known to be real (1) or fake (0).

    Args:
        category: one of `records.CATEGORIES`.
        label: 1 real, 0 fake.
        tagged: a fake that may show no artifact: put the special tag in front.

    Raises:
        UserError: no group knows the category.
        ValueError: a real image is tagged.
    """
    if tagged and label != FAKE:
        raise ValueError("the tag excuses a fake from explanation; a real image is never tagged")
    name, kind = _group(category), LABELS[label]
    data, group = _data(), _data()["groups"][name]
    cues = "\n".join(f"{n}. {cue}" for n, cue in enumerate(group[kind], 1))
    text = data["instructions"][kind].format(subject=group["subject"], cues=cues)
    if tagged:
        text = f"{data['tag']}\n{text}"
    return Prompt(f"{name}-{kind}", text, label, category, tagged)


def prompt_types() -> dict[str, Prompt]:
    """The 12 types by name, each shown for the first category of its group, untagged."""
    return {
        f"{name}-{kind}": label_prompt(group["categories"][0], label)
        for name, group in _data()["groups"].items()
        for label, kind in LABELS.items()
    }
