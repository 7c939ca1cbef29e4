"""Batches: equal to the processor's own, labels on the answer only, padding on the right side."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import tinyllava
from fakevlm.errors import UserError
from fakevlm.model import chat
from fakevlm.model.build import build_processor, build_tokenizer
from fakevlm.model.collate import IGNORE, Collator, Example
from fakevlm.model.llava import load_processor

ANSWERS = ["This is a fake image. Texture: the surface is waxy.", "This is a real image.", "Fake"]


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer([chat.STANDARD, *ANSWERS], 600), 32, 8)


def picture(seed: int, height: int = 32, width: int = 32) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def examples():
    images = [picture(0), picture(1, 40, 90), picture(2, 70, 33)]
    questions = [None, "Real or fake?", "Why do you think so?"]
    return [Example(*parts) for parts in zip(images, questions, ANSWERS, strict=True)]


def test_equals_the_processors_batch(processor, examples):
    batch = Collator(processor)(examples)
    texts = [chat.conversation(processor, e.question, e.answer) for e in examples]
    options = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
    expected = processor(images=[e.image for e in examples], text=texts, **options)
    assert set(expected) <= set(batch)
    for name, tensor in expected.items():
        assert torch.equal(batch[name], tensor), name


def test_labels_are_answer_and_end_only(processor, examples):
    batch = Collator(processor)(examples)
    for row, answer in enumerate(ANSWERS):
        learned = batch["labels"][row][batch["labels"][row] != IGNORE]
        assert processor.tokenizer.decode(learned) == f" {answer}</s>"
        assert torch.equal(batch["input_ids"][row][batch["labels"][row] != IGNORE], learned)


def test_generation_pads_left_and_has_no_answer(processor, examples):
    collator = Collator(processor, for_generation=True)
    batch = collator(examples)
    assert set(batch) == {"pixel_values", "input_ids", "attention_mask"}
    assert batch["attention_mask"][:, -1].all()
    assert (batch["input_ids"][batch["attention_mask"] == 0] == processor.tokenizer.pad_token_id).all()
    for row, example in enumerate(examples):
        alone = collator([example])["input_ids"][0]
        assert torch.equal(batch["input_ids"][row, -len(alone) :], alone)
        assert processor.tokenizer.decode(alone).endswith("ASSISTANT:")


def test_long_answers_are_cut_and_marked(processor):
    collator = Collator(processor, max_length=45)
    short, long = collator.encode([Example(picture(1), None, text) for text in ("Fake", ANSWERS[0] * 9)])
    assert len(short.ids) < len(long.ids) == 45
    batch = collator.pad([short, long])
    assert batch["labels"][1, -1] != processor.tokenizer.eos_token_id


def test_bad_input_is_named(processor):
    with pytest.raises(UserError, match=r"training\.max_length is 20"):
        Collator(processor, max_length=20)([Example(picture(1), None, "Fake")])
    with pytest.raises(ValueError, match="without answer"):
        Collator(processor)([Example(picture(1))])
    assert Collator(processor).encode([]) == []


@pytest.mark.parametrize(
    "saved",
    [{}, {"patch_size": 8, "vision_feature_select_strategy": "default"}],
    ids=["nothing", "no number of additional tokens"],
)
def test_a_processor_that_an_older_library_saved_counts_an_images_tokens(tmp_path, saved):
    new = tinyllava.build(tmp_path / "new")
    old = shutil.copytree(new, tmp_path / "old")
    config = json.loads((new / "processor_config.json").read_text())
    (old / "preprocessor_config.json").write_text(json.dumps(config["image_processor"]))
    (old / "processor_config.json").write_text(json.dumps({"processor_class": "LlavaProcessor", **saved}))
    example = Example(picture(1), None)
    ids = [Collator(load_processor(f), for_generation=True).encode([example])[0].ids for f in (new, old)]
    assert ids[0].tolist() == ids[1].tolist()
