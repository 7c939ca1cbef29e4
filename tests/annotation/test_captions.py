"""Captions taken apart into statements, and the polarity of a statement."""

from pathlib import Path

import pytest
import yaml

from fakevlm.annotation.captions import normalise, polarity, split

CASES = yaml.safe_load(Path(__file__).with_name("captions.yaml").read_text())


@pytest.mark.parametrize("case", CASES["split"], ids=lambda case: case["caption"][:30])
def test_split(case: dict) -> None:
    assert split(case["caption"]) == case["statements"]


@pytest.mark.parametrize("written", CASES["normalise"])
def test_hedges_openings_and_capitals_are_removed(written: str) -> None:
    assert normalise(written) == CASES["normalise"][written]


@pytest.mark.parametrize("statement", CASES["polarity"])
def test_polarity(statement: str) -> None:
    assert polarity(statement) == CASES["polarity"][statement]
