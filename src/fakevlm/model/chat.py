"""The one prompt of the project: training, evaluation and the demo all go through these functions.

People who trained with one template and evaluated with another lost a quarter of their accuracy (README, "What others
found"); so nobody else formats a prompt. The template itself is the processor's, as saved with the weights.

The released FakeVLM was evaluated by its authors in another way: the question of their JSON as it stands there, with the image's
placeholder before it and no template around it. Prompt `bare` is that, for weights that were made so; `template` is everybody else's.
"""

from typing import TYPE_CHECKING, Literal

from fakevlm.data import records

if TYPE_CHECKING:
    from transformers import LlavaProcessor

STANDARD = records.QUESTION
Prompt = Literal["template", "bare"]


def _plain(processor: "LlavaProcessor", text: str) -> str:
    """The text without the tokenizer's special tokens: a stray `<image>` or `</s>` in data would not be text any more."""
    specials = {*processor.tokenizer.all_special_tokens, processor.image_token}
    for token in sorted(specials):
        text = text.replace(token, "")
    return text.strip()


def _user(processor: "LlavaProcessor", question: str | None) -> dict:
    text = _plain(processor, question or STANDARD)
    return {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}


def standard(kind: Prompt = "template") -> str:
    """The question about a whole image: ours is the paper's, the authors' own weights have always been asked the release's."""
    return records.FAKECLUE_QUESTION if kind == "bare" else STANDARD


def prompt(processor: "LlavaProcessor", question: str | None = None, kind: Prompt = "template") -> str:
    """The text up to where the model answers, one `<image>` in it: `USER: <image>\\n{question} ASSISTANT:` for LLaVA-1.5.

    Args:
        processor: whose chat template is used.
        question: None asks `standard(kind)`.
        kind: `template`, or `bare`: `<image>{question}`.
    """
    if kind == "bare":
        return processor.image_token + _plain(processor, question or standard(kind))
    return processor.apply_chat_template([_user(processor, question)], add_generation_prompt=True)


def conversation(
    processor: "LlavaProcessor", question: str | None, answer: str, kind: Prompt = "template"
) -> str:
    """Prompt, answer and end-of-sequence token: what is trained on.

    llava-1.5's published template ends an answer with a space and no end-of-sequence token; the models were trained with
    one, and a model tuned without it never stops. So it is set here, whatever the template.
    """
    end = processor.tokenizer.eos_token
    if kind == "bare":
        return f"{prompt(processor, question, kind)} {_plain(processor, answer)}{end}"
    reply = {"role": "assistant", "content": [{"type": "text", "text": _plain(processor, answer)}]}
    text = processor.apply_chat_template([_user(processor, question), reply]).rstrip()
    return text if text.endswith(end) else text + end
