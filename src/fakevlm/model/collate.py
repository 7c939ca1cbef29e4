"""Images, questions and answers become a model's tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image

from fakevlm.errors import UserError
from fakevlm.model import chat

if TYPE_CHECKING:
    from transformers import LlavaProcessor

IGNORE = -100  # the label that the loss leaves out


@dataclass(slots=True)
class Example:
    """An image, its question (None: the standard one) and its answer (None: to be generated)."""

    image: Image.Image
    question: str | None = None
    answer: str | None = None


@dataclass(slots=True)
class Encoded:
    """An example ready to be batched.

    Attributes:
        pixels: (3, H, W) uint8, at the model's size.
        ids: (T,) int64 tokens, with the image's placeholder once for each of its patches.
        prompt: number of tokens of the prompt, which is not learned.
        truncated: the answer was cut to fit `max_length`.
    """

    pixels: torch.Tensor
    ids: torch.Tensor
    prompt: int
    truncated: bool = False


class Collator:
    """Batches examples for training (padded on the right) or for generation (padded on the left).

    Args:
        processor: of the model.
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
        self.processor = processor
        self.max_length = max_length
        self.for_generation = for_generation
        self.prompt = prompt
        self._prompts: dict[str | None, list[int]] = {}

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """Return the batch of `examples`; see `pad`."""
        return self.pad(self.encode(examples))

    def pixels(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """Return images at the model's size, (3, H, W) uint8; an image of that size keeps its values."""
        if not images:
            return []
        batch = self.processor.image_processor(
            images=list(images), do_rescale=False, do_normalize=False, return_tensors="pt"
        )["pixel_values"]
        # Clones, because a view of one row keeps the whole batch in memory.
        return [row.to(torch.uint8).clone() for row in batch]

    def normalise(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return model input (N, 3, H, W) float32 from `pixels`."""
        return self.processor.image_processor(
            images=list(pixels), do_resize=False, do_center_crop=False, return_tensors="pt"
        )["pixel_values"]

    def _expand(self, ids: list[int], height: int, width: int) -> list[int]:
        """Return `ids` with the image's placeholder once for each patch."""
        processor = self.processor
        patches = (height // processor.patch_size) * (width // processor.patch_size)
        patches += processor.num_additional_image_tokens
        patches -= processor.vision_feature_select_strategy == "default"
        at = ids.index(processor.image_token_id)
        return ids[:at] + [processor.image_token_id] * patches + ids[at + 1 :]

    def _prompt(self, question: str | None) -> list[int]:
        if question not in self._prompts:
            text = chat.prompt(self.processor, question, self.prompt)
            self._prompts[question] = self.processor.tokenizer(text).input_ids
        return self._prompts[question]

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Return tokens and pixels of each example.

        Raises:
            UserError: a prompt alone is longer than `max_length`.
            ValueError: an answer is missing for training.
        """
        examples = list(examples)
        if not examples:
            return []
        if self.for_generation:
            rows = [self._prompt(example.question) for example in examples]
        else:
            if any(example.answer is None for example in examples):
                raise ValueError("an example without answer cannot be trained on")
            texts = [chat.conversation(self.processor, e.question, e.answer, self.prompt) for e in examples]
            rows = self.processor.tokenizer(texts).input_ids
        pixels = self.pixels([example.image for example in examples])
        return [self._encoded(e.question, *row) for e, *row in zip(examples, rows, pixels, strict=True)]

    def _encoded(self, question: str | None, ids: list[int], pixels: torch.Tensor) -> Encoded:
        prompt, size = self._prompt(question), pixels.shape[-2:]
        if ids[: len(prompt)] != prompt:
            raise ValueError(f"the tokens of the prompt to {question!r} depend on the answer")
        length, ids = len(self._expand(prompt, *size)), self._expand(ids, *size)
        if self.max_length is None:
            return Encoded(pixels, torch.tensor(ids), length)
        if length >= self.max_length:
            raise UserError(
                f"a prompt takes {length} tokens, and training.max_length is {self.max_length}",
                "raise training.max_length in params.yaml",
            )
        return Encoded(pixels, torch.tensor(ids[: self.max_length]), length, len(ids) > self.max_length)

    def pad(self, encoded: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Return a batch of N examples, T tokens long.

        Returns:
            `pixel_values` (N, 3, H, W) float32, `input_ids` and `attention_mask` (N, T); for training also
            `labels` (N, T): the answer and its end-of-sequence token, −100 elsewhere.
        """
        longest = max(len(e.ids) for e in encoded)
        ids = torch.full((len(encoded), longest), self.processor.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORE)
        for row, e in enumerate(encoded):
            start = longest - len(e.ids) if self.for_generation else 0
            ids[row, start : start + len(e.ids)] = e.ids
            mask[row, start : start + len(e.ids)] = 1
            labels[row, start + e.prompt : start + len(e.ids)] = e.ids[e.prompt :]
        pixels = self.normalise([e.pixels for e in encoded])
        batch = {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask}
        return batch if self.for_generation else {**batch, "labels": labels}
