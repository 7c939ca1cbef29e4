"""The 12 label prompts: which there are, what must be in them, and that no edit changes them unnoticed."""

from pathlib import Path

import pytest

from fakevlm.annotation.prompts import label_prompt, prompt_types
from fakevlm.data.records import CATEGORIES, FAKE, REAL
from fakevlm.errors import UserError

GOLDEN = Path(__file__).parent / "golden" / "label_prompts.txt"


def as_text() -> str:
    """All prompts as one text; to accept a change: python tests/test_annotation_prompts.py"""
    prompts = [*prompt_types().values(), label_prompt("animal", FAKE, tagged=True)]
    return "".join(f"=== {p.name}{' (tagged)' if p.tagged else ''}\n{p.text}\n\n" for p in prompts)


def test_prompts_are_those_on_file() -> None:
    assert as_text() == GOLDEN.read_text(encoding="utf-8"), (
        "the prompts changed (every journalled answer is asked again): accept by `python tests/test_annotation_prompts.py`"
    )


def test_twelve_distinct_types_cover_every_category_and_label() -> None:
    types = prompt_types()
    assert len(types) == 12
    assert len({prompt.text for prompt in types.values()}) == 12
    used = {label_prompt(category, label).name for category in CATEGORIES for label in (FAKE, REAL)}
    assert used == set(types)


def test_label_is_kept_as_prior_knowledge_and_all_ask_the_five_cues() -> None:
    for prompt in prompt_types().values():
        assert ("known to be FAKE" in prompt.text) == (prompt.label == FAKE)
        assert ("known to be REAL" in prompt.text) == (prompt.label == REAL)
        lines = prompt.text.splitlines()
        assert [line[0] for line in lines if line[:2] in {f"{n}." for n in range(1, 10)}] == list("12345")
        for cue in (
            "structure and physical features",
            "surface texture and colour",
            "realism of",
            "symmetry and",
        ):
            assert cue in prompt.text, prompt.name


def test_category_knowledge_differs() -> None:
    assert "fur" in label_prompt("animal", FAKE).text
    assert "garbled" in label_prompt("doc", FAKE).text
    assert "blending borders" in label_prompt("deepfake", FAKE).text
    assert label_prompt("human", FAKE).text == label_prompt("deepfake", FAKE).text


def test_tag_lets_the_model_refrain_without_making_another_type() -> None:
    plain, tagged = label_prompt("scene", FAKE), label_prompt("scene", FAKE, tagged=True)
    assert tagged.name == plain.name
    assert tagged.text.endswith(plain.text)
    assert "No visible artifact." in tagged.text.splitlines()[1]
    assert "No visible artifact" not in plain.text
    with pytest.raises(ValueError, match="never tagged"):
        label_prompt("scene", REAL, tagged=True)


def test_unknown_category_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="satellite"):
        label_prompt("medicine", FAKE)


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(as_text(), encoding="utf-8")
