"""One template for training and inference, equal to LLaVA-1.5's."""

import pytest

from fakevlm.data import records
from fakevlm.errors import UserError
from fakevlm.model import chat
from fakevlm.model.build import CHAT_TEMPLATE, build_processor, build_tokenizer
from fakevlm.model.llava import load_processor

# Behaves as the template that llava-hf/llava-1.5-7b-hf publishes: no end-of-sequence token after an answer.
PUBLISHED = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': '}}{% endif %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] + ' '}}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
QUESTION = "Does the image look real/fake?"
RELEASED = "Does the image looks real/fake?"  # conversations[0].value of the released JSON
ANSWER = "This is a fake image. Texture: waxy."
PROMPT = f"USER: <image>\n{QUESTION} ASSISTANT:"


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer([QUESTION, ANSWER], 500), 32, 8)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, PUBLISHED], ids=["ours", "published"])
def test_prompt_and_conversation_are_llavas(processor, template: str) -> None:
    assert chat.STANDARD == records.QUESTION == QUESTION
    processor = build_processor(processor.tokenizer, 32, 8)
    processor.chat_template = template
    assert chat.prompt(processor) == chat.prompt(processor, QUESTION) == PROMPT
    assert chat.conversation(processor, None, ANSWER) == f"{PROMPT} {ANSWER}</s>"


def test_bare_is_the_question_as_the_authors_feed_it(processor) -> None:
    assert chat.standard("bare") == RELEASED != chat.standard() == QUESTION
    assert chat.prompt(processor, kind="bare") == f"<image>{RELEASED}"
    assert chat.prompt(processor, f"<image>{RELEASED}", "bare") == f"<image>{RELEASED}"
    assert chat.prompt(processor, "Is the nose real/fake?", "bare") == "<image>Is the nose real/fake?"
    assert chat.conversation(processor, None, ANSWER, "bare") == f"<image>{RELEASED} {ANSWER}</s>"
    for kind in ("bare", "template"):
        ids = processor.tokenizer(chat.prompt(processor, QUESTION, kind)).input_ids
        assert ids[0] == processor.tokenizer.bos_token_id
        assert ids.count(processor.image_token_id) == 1


def test_special_tokens_in_data_are_left_out(processor) -> None:
    assert chat.prompt(processor, f"<image>{QUESTION}") == PROMPT
    text = chat.conversation(processor, "Why?", "This</s> is <image>it.")
    assert text == "USER: <image>\nWhy? ASSISTANT: This is it.</s>"


def test_several_turns_and_system_words(processor) -> None:
    turns = [
        {"role": "system", "content": "Be brief. "},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Ho"}]},
        {"role": "user", "content": "Bye"},
    ]
    assert processor.apply_chat_template(turns) == "Be brief.  USER: Hi ASSISTANT: Ho</s>USER: Bye "


def test_template_travels_with_the_processor(processor, tmp_path, monkeypatch) -> None:
    processor.save_pretrained(tmp_path)
    assert chat.prompt(load_processor(tmp_path)) == PROMPT
    (tmp_path / "chat_template.jinja").unlink()
    assert chat.prompt(load_processor(tmp_path)) == PROMPT, "LLaVA-1.5's stands in"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="no processor could be loaded"):
        load_processor(tmp_path / "nothing")
