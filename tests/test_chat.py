"""One template for training and inference, equal to LLaVA-1.5's."""

import pytest

from fakevlm.data import records
from fakevlm.errors import UserError
from fakevlm.model import chat
from fakevlm.model.build import build_processor, build_tokenizer
from fakevlm.model.llava import load_processor

# The template that llava-hf/llava-1.5-7b-hf publishes, in its behaviour: no end-of-sequence token, a space after the answer.
PUBLISHED = (
    "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['role'].upper() + ': '}}{% endif %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] | selectattr('type', 'equalto', 'text') %}{{ c['text'] + ' '}}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
QUESTION = "Does the image look real/fake?"
ANSWER = "This is a fake image. Texture: waxy."


@pytest.fixture(scope="module")
def processor():
    return build_processor(build_tokenizer([QUESTION, ANSWER], 500), 32, 8)


def test_prompt_is_llavas(processor):
    assert chat.STANDARD == records.QUESTION == QUESTION
    expected = "USER: <image>\nDoes the image look real/fake? ASSISTANT:"
    assert chat.prompt(processor) == chat.prompt(processor, QUESTION) == expected
    processor_as_published = build_processor(processor.tokenizer, 32, 8)
    processor_as_published.chat_template = PUBLISHED
    assert chat.prompt(processor_as_published) == expected


def test_conversation_is_prompt_answer_end(processor):
    expected = chat.prompt(processor, "Why?") + " " + ANSWER + "</s>"
    assert chat.conversation(processor, "Why?", ANSWER) == expected
    as_published = build_processor(processor.tokenizer, 32, 8)
    as_published.chat_template = PUBLISHED
    assert chat.conversation(as_published, "Why?", ANSWER) == expected


def test_special_tokens_in_data_are_only_text_to_us(processor):
    assert chat.prompt(processor, "<image>Does the image looks real/fake?") == (
        "USER: <image>\nDoes the image looks real/fake? ASSISTANT:"
    )
    assert chat.conversation(processor, "Why?", "This</s> is <image>it.").count("<image>") == 1
    assert chat.conversation(processor, "Why?", "This</s> is it.").endswith("ASSISTANT: This is it.</s>")


def test_several_turns_and_system_words(processor):
    turns = [
        {"role": "system", "content": "Be brief. "},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Ho"}]},
        {"role": "user", "content": "Bye"},
    ]
    assert processor.apply_chat_template(turns) == "Be brief.  USER: Hi ASSISTANT: Ho</s>USER: Bye "


def test_template_travels_with_the_processor(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    assert chat.prompt(load_processor(tmp_path)) == chat.prompt(processor)
    (tmp_path / "chat_template.jinja").unlink()
    assert chat.prompt(load_processor(tmp_path)) == chat.prompt(processor)


def test_unknown_model_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="no processor could be loaded"):
        load_processor(tmp_path)


def test_bare_is_the_question_as_the_authors_feed_it(processor):
    expected = "<image>Does the image looks real/fake?"  # conversations[0].value of the released JSON, nothing around it
    assert chat.prompt(processor, kind="bare") == expected
    assert chat.prompt(processor, "<image>Does the image looks real/fake?", "bare") == expected
    assert chat.prompt(processor, "Is the nose real/fake?", "bare") == "<image>Is the nose real/fake?"
    assert chat.conversation(processor, None, ANSWER, "bare") == f"{expected} {ANSWER}</s>"
    assert chat.standard("bare") == records.FAKECLUE_QUESTION != chat.standard() == QUESTION


def test_bare_and_template_share_nothing_but_the_question(processor):
    ids = {
        kind: processor.tokenizer(chat.prompt(processor, QUESTION, kind)).input_ids
        for kind in ("template", "bare")
    }
    assert ids["bare"][0] == ids["template"][0] == processor.tokenizer.bos_token_id
    assert ids["bare"].count(processor.image_token_id) == ids["template"].count(processor.image_token_id) == 1
    assert len(ids["bare"]) < len(ids["template"])
