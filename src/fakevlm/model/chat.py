"""The one prompt of the project, for training and evaluation alike.

`template` is the processor's chat template, saved with the weights. `bare` is how the authors evaluated the
released FakeVLM: the question of their JSON after the image's placeholder.
"""

from typing import TYPE_CHECKING, Literal

from fakevlm.data import records

if TYPE_CHECKING:
    from transformers import LlavaProcessor

STANDARD = records.QUESTION
Prompt = Literal["template", "bare"]


def _plain(processor: "LlavaProcessor", text: str) -> str:
    """Remove special tokens: `<image>` or `</s>` in data would not be read as text."""
    for token in sorted({*processor.tokenizer.all_special_tokens, processor.image_token}):
        text = text.replace(token, "")
    return text.strip()


def _user(processor: "LlavaProcessor", question: str | None) -> dict:
    text = _plain(processor, question or STANDARD)
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def standard(kind: Prompt = "template") -> str:
    """Return the question about a whole image: the paper's, or for `bare` the one of the released dataset."""
    return records.FAKECLUE_QUESTION if kind == "bare" else STANDARD


def prompt(processor: "LlavaProcessor", question: str | None = None, kind: Prompt = "template") -> str:
    """Return the text up to the answer: `USER: <image>\\n{question} ASSISTANT:` for LLaVA-1.5.

    Of the kind `bare` it is `<image>{question}`. None asks `standard(kind)`.
    """
    if kind == "bare":
        return processor.image_token + _plain(processor, question or standard(kind))
    return _rendered(processor, [_user(processor, question)], add_generation_prompt=True)


def _rendered(processor: "LlavaProcessor", messages: list[dict], **options: bool) -> str:
    """Return the template's text, without a begin-of-sequence token that the tokenizer writes once more."""
    text, tokenizer = processor.apply_chat_template(messages, **options), processor.tokenizer
    begins = tokenizer.bos_token and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id]
    return text.removeprefix(tokenizer.bos_token) if begins else text


def conversation(
    processor: "LlavaProcessor", question: str | None, answer: str, kind: Prompt = "template"
) -> str:
    """Return prompt, answer and end-of-sequence token: the text that is trained on.

    The end-of-sequence token is added where the template lacks it, as llava-1.5's published one does: a
    model tuned without it never stops.
    """
    end = processor.tokenizer.eos_token
    if kind == "bare":
        return f"{prompt(processor, question, kind)} {_plain(processor, answer)}{end}"
    reply = {"role": "assistant", "content": [{"type": "text", "text": _plain(processor, answer)}]}
    text = _rendered(processor, [_user(processor, question), reply]).rstrip()
    return text if text.endswith(end) else text + end
