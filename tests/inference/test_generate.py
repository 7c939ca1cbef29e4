"""One pass gives words, verdict and P(fake): those of `transformers.generate`, one image at a time."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import LlavaForConditionalGeneration

import tinyllava
from fakevlm.cache import Cache
from fakevlm.inference import generate
from fakevlm.inference.predict import Predictor
from fakevlm.inference.predict import predict as run
from fakevlm.model import chat, verdict, weights
from fakevlm.model.llava import load_for_inference, load_model, load_processor

pytestmark = pytest.mark.slow
RECORDS = tinyllava.records(33, questions=tinyllava.QUESTIONS)  # of different length: padded at the left
LONGEST = 12  # cuts the first of the answers it is taught


def predict(model, processor, records, *, batch_size: int, prompt="template", **options: bool):
    """The answers of a loaded model."""
    order = partial(generate.by_length, lambda: processor, prompt)
    llava = generate.Llava(model, processor, LONGEST, prompt, **options)
    return tinyllava.frame(records, run(Predictor(lambda: llava, None, batch_size, order), records))


@torch.inference_mode()
def plain(model, processor, record, prompt: str) -> dict:
    """The library's own answer about one image; without a verdict, a second pass scores the opening."""
    text = chat.prompt(processor, record.question or chat.standard(prompt), prompt)
    inputs = processor(images=record.pil(), text=text, return_tensors="pt").to(model.dtype)
    options = {"max_new_tokens": LONGEST, "output_logits": True, "return_dict_in_generate": True}
    output = model.generate(**inputs, **options, do_sample=False)
    tokens = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    tokens = tokens[: tokens.index(2)] if 2 in tokens else tokens  # the end-of-sequence token
    claim, step = verdict.locate(tokens, processor.tokenizer) or (None, None)
    logits = output.logits[step][0] if claim else None
    if not claim:
        text += " This is a"
        opened = processor(images=record.pil(), text=text, return_tensors="pt").to(model.dtype)
        logits = model(**opened).logits[0, -1]
    fake, real = (logits[ids].double().exp().sum().item() for ids in verdict.word_ids(processor.tokenizer))
    answer = processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()
    p_fake = (real if claim and claim.negated else fake) / (fake + real)
    asked = verdict.parse(answer, record.question or chat.standard(prompt))
    return {"id": record.id, "text": answer, "p_fake": p_fake, "verdict": asked, "forced": claim is None}


@pytest.mark.parametrize("prompt", ["template", "bare"])
def test_words_and_probabilities_are_those_of_the_plain_way(tmp_path, monkeypatch, capsys, prompt) -> None:
    folder = tinyllava.taught(tmp_path, RECORDS, tinyllava.TAUGHT, prompt)
    model, processor = load_model(folder, device="cpu"), load_processor(folder)
    library = LlavaForConditionalGeneration.from_pretrained(folder)
    expected = pd.DataFrame([plain(library, processor, record, prompt) for record in RECORDS])
    assert expected["text"].nunique() == len(tinyllava.TAUGHT)
    assert set(expected["verdict"]) == {"fake", "real", "unparsed"}
    assert set(expected["forced"]) == {True, False}
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # steps of fixed size
    ways = [{"batch_size": 1}, {"batch_size": 7}, {"batch_size": 32}, {"batch_size": 7, "compiled": True}]
    for settings in ways if prompt == "template" else ways[:2]:
        records = RECORDS[:14] if "compiled" in settings else RECORDS  # each new length is traced for seconds
        frame = predict(model, processor, records, prompt=prompt, **settings)
        plainly = expected[: len(records)]
        pd.testing.assert_frame_equal(frame.drop(columns="p_fake"), plainly.drop(columns="p_fake"))
        assert np.abs(frame["p_fake"] - plainly["p_fake"]).max() <= 1e-5
        assert (frame["p_fake"] == verdict.round_log_odds(frame["p_fake"].to_numpy())).all()
        short = predict(model, processor, records, prompt=prompt, until_verdict=True, **settings)
        assert (short["text"].str.len() < frame["text"].str.len()).any()
        assert all(map(str.startswith, frame["text"], short["text"]))
        columns = ["id", "verdict", "forced", "p_fake"]
        pd.testing.assert_frame_equal(short[columns], frame[columns], atol=1e-5)
    monkeypatch.setattr(weights, "multiplies_16_bits", lambda: True)  # also where it takes longer
    ours, library = load_for_inference(folder, "bf16").cpu(), library.bfloat16()
    assert {tensor.dtype for tensor in ours.parameters()} == {torch.bfloat16, torch.float32}
    answers = predict(ours, processor, RECORDS, prompt=prompt, batch_size=7)
    assert (answers["text"] == expected["text"]).mean() > 0.9
    theirs = pd.DataFrame([plain(library, processor, record, prompt) for record in RECORDS])
    errors = [(frame["p_fake"] - expected["p_fake"]).abs().mean() for frame in (answers, theirs)]
    assert 0 < errors[0] < 2 * errors[1]
    # Where all answers begin with the opening, it is not written again.
    alike = [record for n, record in enumerate(RECORDS) if n % len(tinyllava.TAUGHT) < 2]
    frame = predict(model, processor, alike, prompt=prompt, batch_size=32)
    assert frame["text"].tolist() == expected["text"][expected["id"].isin(frame["id"])].tolist()
    assert predict(model, processor, [], batch_size=4).empty
    # What the folder says about generation changes nothing, and is reported.
    frame = predict(model, processor, RECORDS, prompt=prompt, batch_size=7)
    settings = {"repetition_penalty": 1.2, "suppress_tokens": [*range(256, 300)], "forced_bos_token_id": 5}
    settings |= {"do_sample": True, "temperature": 9.0, "eos_token_id": [2, *range(256, 330)]}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    again = predict(load_model(folder, device="cpu"), processor, RECORDS, prompt=prompt, batch_size=7)
    pd.testing.assert_frame_equal(again, frame, check_exact=True)
    text = capsys.readouterr().err
    assert all(word in text for word in ("'repetition_penalty': 1.2", "'temperature': 9.0", "end answers at"))


def test_only_what_decides_an_answer_makes_it_stale(base, monkeypatch) -> None:
    records, cache, computed = tinyllava.records(5, questions=tinyllava.QUESTIONS), Cache(None), []
    call = generate.Llava.__call__
    monkeypatch.setattr(generate.Llava, "__call__", lambda *inputs: computed.append(1) or call(*inputs))

    def frame(precision: str = "fp32", **changes) -> pd.DataFrame:
        settings = {"batch_size": 5, "max_new_tokens": 4} | changes
        return tinyllava.frame(records, run(generate.predictor(base, precision, **settings), records, cache))

    first = frame()
    pd.testing.assert_frame_equal(frame(), first, check_exact=True)
    assert len(computed) == 1
    bare = frame(prompt="bare")
    assert (bare["p_fake"] != first["p_fake"]).any()
    frame(max_new_tokens=5), frame(precision="bf16"), frame(batch_size=4)
    assert len(computed) == 6
    pd.testing.assert_frame_equal(frame(prompt="bare"), bare, check_exact=True)
    assert len(computed) == 6
