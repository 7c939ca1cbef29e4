"""Captions taken apart and aggregated by embeddings: common and critical clues stay, single ones go."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fakevlm.annotation.aggregate import NOTHING, VERDICT, Annotation, Candidates, EmbeddingAggregator
from fakevlm.annotation.captions import normalise, polarity, split
from fakevlm.config.params import load_params
from fakevlm.data.records import FAKE, REAL

CASES = yaml.safe_load(Path(__file__).with_name("aggregation.yaml").read_text())
CAPTIONS = yaml.safe_load(Path(__file__).with_name("captions.yaml").read_text())
SETTINGS = load_params("mini").annotate
AGGREGATOR = EmbeddingAggregator(SETTINGS.aggregator, SETTINGS.min_annotators)


def aggregate(category: str, label: int, *captions: str, by: EmbeddingAggregator = AGGREGATOR) -> Annotation:
    named = {f"annotator {n}": caption for n, caption in enumerate(captions)}
    return next(by.aggregate([Candidates("x", category, label, named)]))


@pytest.mark.parametrize("case", CAPTIONS["split"], ids=lambda case: case["caption"][:30])
def test_captions_are_taken_apart_into_statements(case: dict[str, Any]) -> None:
    assert split(case["caption"]) == case["statements"]


@pytest.mark.parametrize("form", [normalise, polarity])
def test_hedges_and_capitals_are_removed_and_words_have_a_polarity(form: Callable) -> None:
    cases = CAPTIONS[form.__name__]
    assert {statement: form(statement) for statement in cases} == cases


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_common_and_critical_clues_stay(case: dict[str, Any]) -> None:
    label = REAL if case["label"] == "real" else FAKE
    annotation = aggregate(case["category"], label, *case["captions"])
    assert annotation.text.startswith(VERDICT[label])
    for clue, expected in zip(annotation.clues, case["clues"], strict=True):
        family, word, annotators = expected.split()
        assert (clue.family, clue.annotators) == (family, int(annotators))
        assert word in clue.statement
        assert clue.critical == (clue.annotators == 1)
    assert [word for word in case["absent"] if word in annotation.text.removeprefix(VERDICT[label])] == []


def test_without_agreement_the_fixed_sentence() -> None:
    silent = ("No visible artifact.", "- No visible artifact.", "the left edge is a bit wavy")
    nothing = aggregate("object", FAKE, *silent)
    assert (nothing.text, nothing.clues) == (f"{VERDICT[FAKE]} {NOTHING[FAKE]}", ())
    assert aggregate("object", REAL, "").text == f"{VERDICT[REAL]} {NOTHING[REAL]}"
    twice = "The fur is smooth like plastic. The fur looks like smooth plastic."
    assert aggregate("animal", FAKE, twice, "the tail is short").clues == (), "one annotator"


def test_critical_similarity_of_one_keeps_no_single_statement() -> None:
    caption = "The dog has five legs."
    strict = EmbeddingAggregator(SETTINGS.aggregator.model_copy(update={"critical_similarity": 1.0}), 2)
    assert aggregate("animal", FAKE, caption, "", "").clues[0].critical
    assert aggregate("animal", FAKE, caption, "", "", by=strict).clues == ()
    (clue,) = aggregate("animal", FAKE, caption, caption, "", by=strict).clues
    assert (clue.annotators, clue.critical) == (2, False)


def test_order_of_images_and_annotators_does_not_matter() -> None:
    captions = {"x": "the fur is waxy", "y": "waxy fur like plastic", "z": "the ear is bent"}
    a = Candidates("a", "animal", FAKE, captions)
    b = Candidates("b", "doc", FAKE, {"z": "the letters are garbled", "x": "garbled letters everywhere"})
    turned = Candidates("a", "animal", FAKE, dict(reversed(captions.items())))
    texts = {annotation.id: annotation.text for annotation in AGGREGATOR.aggregate([a, b])}
    assert {annotation.id: annotation.text for annotation in AGGREGATOR.aggregate([b, turned])} == texts
