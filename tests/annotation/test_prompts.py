"""The 12 label prompts: their number, what must be in them, and that no edit changes them unnoticed."""

import re

import pytest

from conftest import ROOT
from fakevlm.annotation.prompts import label_prompt, prompt_types
from fakevlm.data.records import CATEGORIES, FAKE, REAL
from fakevlm.errors import UserError

GOLDEN = ROOT / "tests" / "golden" / "label_prompts.txt"
CUES = ("structure and physical features", "surface texture and colour", "realism of", "symmetry and")


def as_text() -> str:
    """All prompts as one text; to accept a change, run this file with Python."""
    prompts = [*prompt_types().values(), label_prompt("animal", FAKE, tagged=True)]
    return "".join(f"=== {p.name}{' (tagged)' if p.tagged else ''}\n{p.text}\n\n" for p in prompts)


def test_prompts_are_those_on_file() -> None:
    assert as_text() == GOLDEN.read_text(encoding="utf-8"), (
        "the prompts changed, so all images will be asked about again; to accept, run this file with Python"
    )


def test_twelve_types_state_the_label_and_ask_the_five_cues() -> None:
    types = prompt_types()
    assert len(types) == len({prompt.text for prompt in types.values()}) == 12
    assert {label_prompt(c, label).name for c in CATEGORIES for label in (FAKE, REAL)} == set(types)
    for prompt in types.values():
        assert ("known to be FAKE" in prompt.text) == (prompt.label == FAKE)
        assert ("known to be REAL" in prompt.text) == (prompt.label == REAL)
        assert re.findall(r"^(\d)\.", prompt.text, re.MULTILINE) == list("12345")
        assert all(cue in prompt.text for cue in CUES), prompt.name
    for category, word in {"animal": "fur", "doc": "garbled", "deepfake": "blending borders"}.items():
        assert word in label_prompt(category, FAKE).text
    with pytest.raises(UserError, match="satellite"):
        label_prompt("medicine", FAKE)


def test_the_tag_lets_the_model_refrain_without_making_another_type() -> None:
    plain, tagged = label_prompt("scene", FAKE), label_prompt("scene", FAKE, tagged=True)
    assert tagged.name == plain.name
    assert tagged.text.endswith(plain.text)
    assert "No visible artifact." in tagged.text.splitlines()[1]
    assert "No visible artifact" not in plain.text
    with pytest.raises(ValueError, match="never tagged"):
        label_prompt("scene", REAL, tagged=True)


if __name__ == "__main__":
    GOLDEN.write_text(as_text(), encoding="utf-8")
