"""The 12 label prompts: no edit changes them unnoticed."""

import pytest

from conftest import ROOT
from fakevlm.annotation.prompts import label_prompt, prompt_types
from fakevlm.data.records import CATEGORIES, FAKE, REAL
from fakevlm.errors import UserError

GOLDEN = ROOT / "tests" / "golden" / "label_prompts.txt"


def as_text() -> str:
    """All prompts as one text; to accept a change, run this file with Python."""
    prompts = [*prompt_types().values(), label_prompt("animal", FAKE, tagged=True)]
    return "".join(f"=== {p.name}{' (tagged)' if p.tagged else ''}\n{p.text}\n\n" for p in prompts)


def test_prompts_are_those_on_file() -> None:
    consequence = "all images will be asked about again; to accept, run this file with Python"
    assert as_text() == GOLDEN.read_text(encoding="utf-8"), f"the prompts changed, so {consequence}"
    names = {label_prompt(category, label).name for category in CATEGORIES for label in (FAKE, REAL)}
    assert names == set(prompt_types())
    assert len(names) == 12
    with pytest.raises(UserError, match="satellite"):
        label_prompt("medicine", FAKE)


if __name__ == "__main__":
    GOLDEN.write_text(as_text(), encoding="utf-8")
