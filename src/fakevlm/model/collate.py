"""Images, questions and answers become a model's tensors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence

from fakevlm.errors import UserError
from fakevlm.model import chat

if TYPE_CHECKING:
    from PIL import Image
    from transformers import LlavaProcessor

IGNORE = -100  # the label that the loss leaves out
DONE = "do_resize", "do_center_crop", "do_rescale", "do_normalize"  # or left to `Collator.pad`


@dataclass(slots=True)
class Example:
    """An image, its question (None: the standard one) and its answer (None: to be generated)."""

    image: "Image.Image | torch.Tensor"  # a tensor: `Collator.resized` or `normalised`
    question: str | None = None
    answer: str | None = None


@dataclass(slots=True)
class Encoded:
    """An example ready to be batched."""

    pixels: torch.Tensor  # (3, H, W) uint8 at the model's size, or `Collator.normalised`
    ids: torch.Tensor  # (T,) int64 tokens, with the image's placeholder once for each of its patches
    prompt: int  # number of tokens of the prompt, which is not learned


class Collator:
    """Batches examples for training (padded on the right) or for generation (padded on the left).

    Args:
        max_length: longest sequence, image tokens included; longer answers are cut. None: no limit.
        for_generation: prompts alone, padded on the left, no labels.
        prompt: the form of the question (`chat.Prompt`).
    """

    def __init__(
        self,
        processor: "LlavaProcessor",
        max_length: int | None = None,
        *,
        for_generation: bool = False,
        prompt: chat.Prompt = "template",
    ) -> None:
        self.processor, self.max_length = processor, max_length
        self.for_generation, self.prompt = for_generation, prompt

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the batch of `examples`; see `pad`."""
        return self.pad(self.encode(examples))

    @cached_property
    def _resizing(self) -> str:
        return self.processor.image_processor.to_json_string()

    def resized(self, image: "Image.Image | torch.Tensor") -> torch.Tensor:
        """Return an image at the model's size: (3, H, W) uint8, kept with the image for other models."""
        if isinstance(image, torch.Tensor):
            return image
        resizing, kept = self.processor.image_processor, image.__dict__.setdefault("resized", {})
        if self._resizing not in kept:
            if resizing.do_resize and resizing.do_center_crop and "shortest_edge" in resizing.size:
                image = without_ends(image, resizing.size["shortest_edge"])
            pixels = resizing(images=[image], do_rescale=False, do_normalize=False)["pixel_values"][0]
            kept[self._resizing] = pixels.to(torch.uint8)
        return kept[self._resizing]

    def normalised(self, image: "Image.Image | torch.Tensor") -> torch.Tensor:
        """Return an image as the model takes it: (3, H, W) float32, kept with the image for other models."""
        pixels = self.resized(image)
        if "normalised" not in pixels.__dict__:
            pixels.__dict__["normalised"] = self._normalise([pixels])[0]
        return pixels.__dict__["normalised"]

    def _normalise(self, pixels: list[torch.Tensor]) -> torch.Tensor:
        options = dict.fromkeys(DONE[:2], False)
        return self.processor.image_processor(pixels, return_tensors="pt", **options)["pixel_values"]

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Return tokens and pixels of each example; an image of the model's size keeps its values.

        Raises:
            UserError: a prompt alone is longer than `max_length`.
            ValueError: an answer is missing for training.
        """
        if not examples:
            return []
        asked = {q: chat.prompt(self.processor, q, self.prompt) for q in {e.question for e in examples}}
        texts = prompts = [asked[example.question] for example in examples]
        if not self.for_generation:
            if any(example.answer is None for example in examples):
                raise ValueError("an example without answer cannot be trained on")
            texts = [chat.conversation(self.processor, e.question, e.answer, self.prompt) for e in examples]
        images = [self.resized(example.image) for example in examples]
        batch = self.processor(images=images, text=texts, **dict.fromkeys(DONE, False))
        prompts = self.processor.tokenizer(prompts).input_ids
        return list(map(self._encoded, prompts, batch["input_ids"], batch["pixel_values"]))

    def _encoded(self, prompt: list[int], ids: list[int], pixels: torch.Tensor) -> Encoded:
        image = self.processor.image_token_id
        prompt_tokens, tokens = ([token for token in row if token != image] for row in (prompt, ids))
        if tokens[: len(prompt_tokens)] != prompt_tokens:
            raise ValueError(f"the tokens of the prompt {prompt} depend on the answer")
        length = len(prompt_tokens) + ids.count(image)
        if self.max_length is not None and length >= self.max_length:
            raise UserError(
                f"a prompt takes {length} tokens, and training.max_length is {self.max_length}",
                "raise training.max_length in params.yaml",
            )
        # A clone, because a view of one row keeps the whole batch in memory.
        return Encoded(pixels.clone(), torch.tensor(ids[: self.max_length]), length)

    def pad(self, encoded: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Return `pixel_values` (N, 3, H, W) float32, `input_ids` and `attention_mask` (N, T) of N examples.

        For training also `labels` (N, T): the answer and its end-of-sequence token, −100 elsewhere.
        """
        side = "left" if self.for_generation else "right"
        pad = partial(pad_sequence, batch_first=True, padding_side=side)
        pixels = [e.pixels for e in encoded]
        ready = pixels[0].is_floating_point()
        tensors = {
            "pixel_values": torch.stack(pixels) if ready else self._normalise(pixels),
            "input_ids": pad([e.ids for e in encoded], padding_value=self.processor.tokenizer.pad_token_id),
            "attention_mask": pad([torch.ones_like(e.ids) for e in encoded]),
        }
        if not self.for_generation:
            answers = [e.ids.index_fill(0, torch.arange(e.prompt), IGNORE) for e in encoded]
            tensors["labels"] = pad(answers, padding_value=IGNORE)
        return tensors


def without_ends(image: "Image.Image", edge: int) -> "Image.Image":
    """Return the middle of an image more than 256 times as long as wide; others stay whole.

    Resizing the short side to `edge` pixels and cropping the centre then gives the same pixels (where `edge`
    is no multiple of the short side: up to rounding), but a strip of 5,000 × 1 no 1,680,000 × 336 on the way.
    """
    short, longest = min(image.size), 256 * min(image.size)
    step = short // math.gcd(short, edge)  # so that each end is a whole number of pixels, before and after
    cut = [max(0, side - longest) // (2 * step) * step for side in image.size]
    return image.crop((*cut, image.width - cut[0], image.height - cut[1])) if any(cut) else image


def on_device(batch: dict[str, torch.Tensor], model: Any) -> dict[str, torch.Tensor]:
    """Return a batch on the model's device, its pixels in the type of the model's weights."""
    pixels = batch["pixel_values"].to(model.dtype)
    return {name: tensor.to(model.device) for name, tensor in (batch | {"pixel_values": pixels}).items()}


def ask(model: Any, processor: "LlavaProcessor", images: Sequence["Image.Image"]) -> dict[str, torch.Tensor]:
    """Return a model's inputs for the standard question about each image, on its device."""
    examples = [Example(image) for image in images]
    return on_device(Collator(processor, for_generation=True)(examples), model)
