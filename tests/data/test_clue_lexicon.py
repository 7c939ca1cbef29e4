"""The lexicon's phrases name their own kind, and texts are read as a person reads them."""

import json
from pathlib import Path

import pytest

from fakevlm.data.clues import KINDS, QUALITIES, kinds_named

# Sentences and the kinds that a person finds asserted in them. The reader was tuned on the set "tuned" alone.
FILE = Path(__file__).with_name("clue_sentences.jsonl")
SENTENCES = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_every_phrase_names_its_kind_and_no_other(kind: str):
    for phrase in KINDS[kind].phrases:
        assert kinds_named(phrase.format(s="the animal")) == {kind}


def test_praise_names_nothing():
    for quality in QUALITIES.values():
        for phrase in quality.phrases:
            assert kinds_named(phrase.format(s="the page")) == set()


@pytest.mark.parametrize("row", SENTENCES, ids=lambda row: row["text"][:40])
def test_negation_is_read_as_by_a_person(row: dict):
    assert kinds_named(row["text"]) == set(row["kinds"])
