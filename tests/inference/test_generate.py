"""One pass gives words, verdict and P(fake), at every batch size. A tiny random model."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import tinyllava
from conftest import ROOT
from fakevlm.cache import Cache
from fakevlm.data.records import Record
from fakevlm.inference import generate
from fakevlm.inference.predict import Predictor
from fakevlm.inference.predict import predict as run
from fakevlm.model import chat, verdict
from fakevlm.model.llava import load_model, load_processor

QUESTIONS = (None, "Does the person's skin look real/fake?", "Is it?")


@pytest.fixture(scope="session")
def loaded(base):
    return load_model(base, device="cpu"), load_processor(base)


def predict(model, processor, records, *, batch_size: int, max_new_tokens: int, prompt="template"):
    """The answers of a loaded model."""
    plan = partial(generate.plan, lambda: processor, prompt)
    llava = generate.Llava(model, processor, max_new_tokens, prompt)
    return tinyllava.frame(records, run(Predictor(lambda: llava, None, batch_size, plan), records))


def test_text_and_probability_come_out_in_order(loaded) -> None:
    assert predict(*loaded, [], batch_size=4, max_new_tokens=4).empty
    records = tinyllava.records(9, questions=QUESTIONS)
    frame = predict(*loaded, records, batch_size=4, max_new_tokens=8)
    assert list(frame.columns) == ["id", "text", "p_fake", "verdict", "forced"]
    assert frame["id"].tolist() == [record.id for record in records]
    assert frame["p_fake"].between(0, 1).all()
    assert (frame["verdict"] == [verdict.parse(t) for t in frame["text"]]).all()
    assert (frame["p_fake"] == verdict.round_log_odds(frame["p_fake"].to_numpy())).all()


@pytest.mark.slow
@pytest.mark.parametrize("shipped", [False, True], ids=["random weights", "the shipped base"])
def test_the_batch_size_does_not_matter(loaded, shipped: bool) -> None:
    if shipped:
        loaded = load_model(ROOT / "embedded/base", device="cpu"), load_processor(ROOT / "embedded/base")
    side = loaded[1].image_processor.crop_size["height"]
    records = tinyllava.records(33, questions=QUESTIONS, size=side)  # of different length: padded at the left
    one, *others = (predict(*loaded, records, batch_size=n, max_new_tokens=12) for n in (1, 7, 32))
    for many in others:
        pd.testing.assert_frame_equal(one.drop(columns="p_fake"), many.drop(columns="p_fake"))
        assert np.abs(one["p_fake"] - many["p_fake"]).max() <= 1e-5


def _logits(model, processor, record: Record, answer: str, kind: str = "template") -> torch.Tensor:
    """The logits for the token after `answer`, from a plain forward pass of one row: (1, vocabulary)."""
    text = chat.prompt(processor, record.question, kind) + " " + answer
    inputs = processor(images=record.pil(), text=text, return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).logits[:, -1]


def _expected(model, processor, record: Record, answer: str) -> float:
    logits = _logits(model, processor, record, answer)[0]
    fake, real = (logits[ids].exp().sum().item() for ids in verdict.word_ids(processor.tokenizer))
    return fake / (fake + real)


@pytest.mark.parametrize(
    ("before", "word"),
    [
        ("This is a", " fake image. Texture: smooth."),
        ("This image is not", " real."),
        ("A dog. The image looks", " fake."),
    ],
)
def test_p_fake_is_read_at_the_verdict_word(loaded, monkeypatch, before: str, word: str) -> None:
    model, processor = loaded
    records = tinyllava.records(5, questions=QUESTIONS)
    monkeypatch.setattr(model, "generate", tinyllava.scripted(model, processor, [before + word]))
    frame = predict(model, processor, records, batch_size=3, max_new_tokens=40)
    assert set(frame["text"]) == {before + word}
    assert not frame["forced"].any()
    expected = [_expected(model, processor, record, before) for record in records]
    expected = [1 - p for p in expected] if before.endswith("not") else expected
    assert frame["p_fake"].to_numpy() == pytest.approx(expected, abs=2e-6)
    assert frame["p_fake"].nunique() > 1


def test_an_answer_without_verdict_is_scored_by_a_forced_opening(loaded, monkeypatch) -> None:
    model, processor = loaded
    records = tinyllava.records(6, questions=QUESTIONS)
    answers = ["This is a fake image.", "A dog on a sofa.", ""]
    monkeypatch.setattr(model, "generate", tinyllava.scripted(model, processor, answers))
    frame = predict(model, processor, records, batch_size=6, max_new_tokens=40)
    silent = frame["text"] != "This is a fake image."
    assert set(silent) == {True, False}
    assert (frame["forced"] == silent).all()
    assert (frame["verdict"] == np.where(silent, "unparsed", "fake")).all()
    expected = [_expected(model, processor, record, "This is a") for record in records]
    assert frame["p_fake"].to_numpy() == pytest.approx(expected, abs=2e-6)


def test_yes_counts_only_for_the_question_that_was_asked(loaded, monkeypatch) -> None:
    monkeypatch.setattr(loaded[0], "generate", tinyllava.scripted(*loaded, ["Yes."]))
    records = tinyllava.records(2, questions=QUESTIONS)
    records[0].question = "Is this image fake?"
    frame = predict(*loaded, records, batch_size=2, max_new_tokens=5)
    assert frame["verdict"].tolist() == ["fake", "unparsed"]


def test_only_what_decides_an_answer_makes_it_stale(base, monkeypatch) -> None:
    records, cache, computed = tinyllava.records(5, questions=QUESTIONS), Cache(None), []
    call = generate.Llava.__call__
    monkeypatch.setattr(generate.Llava, "__call__", lambda *inputs: computed.append(1) or call(*inputs))

    def frame(dtype: str = "float32", **changes) -> pd.DataFrame:
        settings = {"batch_size": 5, "max_new_tokens": 4} | changes
        return tinyllava.frame(records, run(generate.predictor(base, dtype, **settings), records, cache))

    first = frame()
    pd.testing.assert_frame_equal(frame(), first, check_exact=True)
    assert len(computed) == 1
    bare = frame(prompt="bare")
    assert (bare["p_fake"] != first["p_fake"]).any()
    frame(max_new_tokens=5), frame(dtype="bfloat16"), frame(batch_size=4)
    assert len(computed) == 6
    pd.testing.assert_frame_equal(frame(prompt="bare"), bare, check_exact=True)
    assert len(computed) == 6


def test_the_forced_opening_follows_the_prompt(loaded) -> None:
    model, processor = loaded
    (record,) = tinyllava.records(1, questions=("Is it?",))
    words, example = verdict.word_ids(processor.tokenizer), generate.Example(record.pil(), record.question)
    for kind in ("template", "bare"):
        scores = generate.Llava(model, processor, 1, kind).forced_choice([example])
        logits = _logits(model, processor, record, generate.OPENING, kind)
        assert scores == pytest.approx(generate.logit_difference(logits, *words).tolist(), abs=1e-5)
