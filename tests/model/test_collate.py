"""Prompts are LLaVA-1.5's; batches are the processor's own, with labels on the answer only."""

import json
import shutil

import pytest
import torch

from fakevlm.data import records
from fakevlm.data.records import decode
from fakevlm.errors import UserError
from fakevlm.model import chat
from fakevlm.model.build import CHAT_TEMPLATE, build_processor, build_tokenizer
from fakevlm.model.collate import IGNORE, Collator, Example
from fakevlm.model.llava import load_processor
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


def test_template_travels_with_the_processor(processor, tmp_path, monkeypatch) -> None:
    processor.save_pretrained(tmp_path)
    assert chat.prompt(load_processor(tmp_path)) == PROMPT
    (tmp_path / "chat_template.jinja").unlink()
    assert chat.prompt(load_processor(tmp_path)) == PROMPT, "LLaVA-1.5's stands in"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="no processor could be loaded"):
        load_processor(tmp_path / "nothing")


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


def test_generation_pads_left_and_has_no_answer(processor, examples):
    collator = Collator(processor, for_generation=True)
    batch = collator(examples)
    assert set(batch) == {"pixel_values", "input_ids", "attention_mask"}
    assert batch["attention_mask"][:, -1].all()
    assert (batch["input_ids"][batch["attention_mask"] == 0] == processor.tokenizer.pad_token_id).all()
    for row, one in zip(batch["input_ids"], examples, strict=True):
        alone = collator([one])["input_ids"][0]
        assert torch.equal(row[-len(alone) :], alone)
        assert processor.tokenizer.decode(alone).endswith("ASSISTANT:")


def test_long_answers_are_cut_and_marked(processor):
    collator = Collator(processor, max_length=45)
    short, long = collator.encode([example(1, (32, 32), None, text) for text in ("Fake", ANSWERS[0] * 9)])
    assert len(short.ids) < len(long.ids) == 45
    assert collator.pad([short, long])["labels"][1, -1] != processor.tokenizer.eos_token_id


@pytest.mark.parametrize(
    "saved",
    [{}, {"patch_size": 8, "vision_feature_select_strategy": "default"}],
    ids=["nothing", "no number of additional tokens"],
)
def test_a_processor_that_an_older_library_saved_counts_an_images_tokens(base, tmp_path, saved):
    old = shutil.copytree(base, tmp_path / "old")
    config = json.loads((base / "processor_config.json").read_text())
    (old / "preprocessor_config.json").write_text(json.dumps(config["image_processor"]))
    (old / "processor_config.json").write_text(json.dumps({"processor_class": "LlavaProcessor", **saved}))
    processors = [load_processor(folder) for folder in (base, old)]
    ids = [Collator(p, for_generation=True).encode([example(1)])[0].ids.tolist() for p in processors]
    assert ids[0] == ids[1]
