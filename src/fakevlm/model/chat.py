"""The one prompt of the project: training, evaluation and the demo all go through these functions.

People who trained with one template and evaluated with another lost a quarter of their accuracy (README, "What others
found"); so nobody else formats a prompt. The template itself is the processor's, as saved with the weights.
"""

from typing import TYPE_CHECKING

from fakevlm import records

if TYPE_CHECKING:
    from transformers import LlavaProcessor

STANDARD = records.QUESTION


def _plain(processor: "LlavaProcessor", text: str) -> str:
    """The text without the tokenizer's special tokens: a stray `<image>` or `</s>` in data would not be text any more."""
    specials = {*processor.tokenizer.all_special_tokens, processor.image_token}
    for token in sorted(specials):
        text = text.replace(token, "")
    return text.strip()


def _user(processor: "LlavaProcessor", question: str | None) -> dict:
    text = _plain(processor, question or STANDARD)
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def prompt(processor: "LlavaProcessor", question: str | None = None) -> str:
    """The text up to where the model answers, one `<image>` in it: `USER: <image>\\n{question} ASSISTANT:` for LLaVA-1.5.

    Args:
        processor: whose chat template is used.
        question: None asks `STANDARD`.
    """
    return processor.apply_chat_template([_user(processor, question)], add_generation_prompt=True)


def conversation(processor: "LlavaProcessor", question: str | None, answer: str) -> str:
    """Prompt, answer and end-of-sequence token: what is trained on.

    llava-1.5's published template ends an answer with a space and no end-of-sequence token; the models were trained with
    one, and a model tuned without it never stops. So it is set here, whatever the template.
    """
    reply = {"role": "assistant", "content": [{"type": "text", "text": _plain(processor, answer)}]}
    text = processor.apply_chat_template([_user(processor, question), reply]).rstrip()
    end = processor.tokenizer.eos_token
    return text if text.endswith(end) else text + end
