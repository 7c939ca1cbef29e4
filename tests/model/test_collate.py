"""Prompts are LLaVA-1.5's; batches are the processor's own, with labels on the answer only."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from fakevlm.data import records
from fakevlm.data.records import decode
from fakevlm.errors import UserError
from fakevlm.model import chat
from fakevlm.model.build import CHAT_TEMPLATE, build_processor, build_tokenizer
from fakevlm.model.collate import IGNORE, Collator, Example, ask, without_ends
from fakevlm.model.llava import load_model, load_processor
from smallcorpora import picture

# Behaves as the template that llava-hf/llava-1.5-7b-hf publishes: no end-of-sequence token after an answer.
PUBLISHED = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': '}}{% endif %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] + ' '}}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
QUESTION = "Does the image look real/fake?"
RELEASED = "Does the image looks real/fake?"  # conversations[0].value of the released JSON
PROMPT = f"USER: <image>\n{QUESTION} ASSISTANT:"
ANSWERS = ["This is a fake image. Texture: the surface is waxy.", "This is a real image.", "Fake"]


@pytest.fixture
def processor():
    return build_processor(build_tokenizer([QUESTION, *ANSWERS], 600), 32, 8)


def example(seed: int, size: tuple[int, int] = (32, 32), *texts: str | None) -> Example:
    return Example(decode(picture(seed, "PNG", size)), *texts)


@pytest.fixture
def examples():
    given = ((32, 32), None), ((90, 40), "Real or fake?"), ((33, 70), "Why do you think so?")
    return [example(n, *parts, ANSWERS[n]) for n, parts in enumerate(given)]


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, PUBLISHED], ids=["ours", "published"])
def test_prompt_and_conversation_are_llavas(processor, template: str) -> None:
    assert chat.STANDARD == records.QUESTION == QUESTION
    processor.chat_template = template
    assert chat.prompt(processor) == chat.prompt(processor, QUESTION) == PROMPT
    assert chat.conversation(processor, None, "Fake") == f"{PROMPT} Fake</s>"


def test_bare_is_the_question_as_the_authors_feed_it(processor) -> None:
    assert chat.standard("bare") == RELEASED != chat.standard() == QUESTION
    assert chat.prompt(processor, kind="bare") == f"<image>{RELEASED}"
    assert chat.prompt(processor, f"<image>{RELEASED}", "bare") == f"<image>{RELEASED}"
    assert chat.prompt(processor, "Is the nose real/fake?", "bare") == "<image>Is the nose real/fake?"
    assert chat.conversation(processor, None, "Fake", "bare") == f"<image>{RELEASED} Fake</s>"
    for kind in ("bare", "template"):
        ids = processor.tokenizer(chat.prompt(processor, QUESTION, kind)).input_ids
        assert ids[0] == processor.tokenizer.bos_token_id
        assert ids.count(processor.image_token_id) == 1


def test_special_tokens_in_data_are_left_out(processor) -> None:
    assert chat.prompt(processor, f"<image>{QUESTION}") == PROMPT
    text = chat.conversation(processor, "Why?", "This</s> is <image>it.")
    assert text == "USER: <image>\nWhy? ASSISTANT: This is it.</s>"


def test_equals_the_processors_batch_and_labels_are_answer_and_end_only(processor, examples):
    batch = Collator(processor)(examples)
    texts = [chat.conversation(processor, e.question, e.answer) for e in examples]
    options = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
    expected = processor(images=[e.image for e in examples], text=texts, **options)
    assert set(expected) <= set(batch)
    for name, tensor in expected.items():
        assert torch.equal(batch[name], tensor), name
    for ids, labels, answer in zip(batch["input_ids"], batch["labels"], ANSWERS, strict=True):
        assert processor.tokenizer.decode(labels[labels != IGNORE]) == f" {answer}</s>"
        assert torch.equal(ids[labels != IGNORE], labels[labels != IGNORE])


def test_long_answers_are_cut_and_marked(processor):
    collator = Collator(processor, max_length=45)
    short, long = collator.encode([example(1, (32, 32), None, text) for text in ("Fake", ANSWERS[0] * 9)])
    assert len(short.ids) < len(long.ids) == 45
    assert collator.pad([short, long])["labels"][1, -1] != processor.tokenizer.eos_token_id


def changed(base: Path, folder: Path, changes: dict) -> Path:
    """A copy of the base with other values in its files of JSON; None removes a key, or the file."""
    shutil.copytree(base, folder)
    for name, values in changes.items():
        file = folder / name
        if isinstance(values, dict):
            content = json.loads(file.read_text()) | values
            file.write_text(json.dumps({key: content[key] for key in content if content[key] is not None}))
        elif values:
            file.write_text(values)
        else:
            file.unlink()
    return folder


TEMPLATE, PROCESSOR, TOKENIZER = "chat_template.jinja", "processor_config.json", "tokenizer_config.json"
TOKENS = {"patch_size": None, "num_additional_image_tokens": None, "vision_feature_select_strategy": None}
TEXT_ALONE = "{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}"
AS_USERS_HAVE_THEM = {
    "saved by an older library": {PROCESSOR: TOKENS},
    "of other patches": {PROCESSOR: {"patch_size": 16, "num_additional_image_tokens": 0}},
    "without template": {TEMPLATE: None},
    "template beside the tokenizer": {TEMPLATE: None, TOKENIZER: {"chat_template": CHAT_TEMPLATE}},
    "the tokenizer's template knows no image": {TEMPLATE: None, TOKENIZER: {"chat_template": TEXT_ALONE}},
    "template begins with BOS": {TEMPLATE: "{{ bos_token }}" + CHAT_TEMPLATE},
    "without padding": {TOKENIZER: {"pad_token": None}},
}


@pytest.mark.parametrize("changes", AS_USERS_HAVE_THEM.values(), ids=AS_USERS_HAVE_THEM)
def test_processors_as_users_have_them_give_the_same_batch(base, tmp_path, changes):
    given = [example(1, (32, 32), None, "Fake"), example(2, (50, 40), "And why?", "Real")]
    folders = base, changed(base, tmp_path / "copy", changes)
    one, other = (Collator(load_processor(folder))(given) for folder in folders)
    for batch in one, other:
        batch["input_ids"] *= batch["attention_mask"]  # whatever is padded with
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_the_strategy_full_takes_the_class_token_too(base, tmp_path):
    full = changed(base, tmp_path / "full", {"config.json": {"vision_feature_select_strategy": "full"}})
    inputs = ask(load_model(full, device="cpu"), load_processor(full), [example(1).image])
    assert (inputs["input_ids"] == load_processor(full).image_token_id).sum() == (32 // 8) ** 2 + 1
    assert load_model(full, device="cpu")(**inputs).logits.isfinite().all()


MISFITS = {
    "tokens, and the model 700": {"config.json": {"text_config": {"vocab_size": 700}}},
    "an image is its token 3, and the model's 7": {"config.json": {"image_token_index": 7}},
    "no end-of-sequence": {TOKENIZER: {"eos_token": None}},
    "Found total 0 <image> tokens": {TEMPLATE: "{{ messages[0].role }}"},
    "unexpected": {TEMPLATE: "{{ messages["},
    "it is a llava_next": {"config.json": {"model_type": "llava_next"}},
    "no LLaVA could be loaded": {"config.json": None},
    "no processor that fits": {PROCESSOR: "version https://git-lfs.github.com/spec/v1"},
}


@pytest.mark.parametrize(("message", "changes"), MISFITS.items(), ids=MISFITS)
def test_a_processor_that_does_not_fit_is_named(base, tmp_path, message, changes):
    with pytest.raises(UserError, match=re.escape(message)):
        load_processor(changed(base, tmp_path / "copy", changes))


@pytest.mark.parametrize("size", [(600, 1), (1, 600), (1100, 4), (90, 70)])
def test_strips_and_large_images_give_the_pixels_of_the_plain_way(processor, size):
    image = example(3, size).image
    options = {"do_rescale": False, "do_normalize": False}
    (plain,) = processor.image_processor([image], **options)["pixel_values"]
    collator = Collator(processor, for_generation=True)
    assert torch.equal(collator.encode([Example(image)])[0].pixels, plain)
    assert max(without_ends(image, 32).size) <= 256 * min(image.size)
    other = Collator(build_processor(processor.tokenizer, 24, 8))
    assert other.resized(image).shape == (3, 24, 24)
    assert torch.equal(collator.resized(image), plain)
    ready, whole = collator.normalised(image), processor.image_processor([image])["pixel_values"]
    assert torch.equal(collator([Example(ready)])["pixel_values"][0], whole[0])
    assert collator.normalised(image) is ready, "kept with the image"
