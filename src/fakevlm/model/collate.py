"""From images, questions and answers to a model's tensors.

In two steps, so that training pays the first one only once: `encode` tokenises and brings the image to the model's size
(uint8), `pad` makes a batch of it (normalised pixels, padded tokens, labels).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image

from fakevlm.errors import UserError
from fakevlm.model import chat

if TYPE_CHECKING:
    from transformers import LlavaProcessor

IGNORE = -100  # the label that no loss counts


@dataclass(slots=True)
class Example:
    """An image, the question (None: the standard one) and the answer (None: to be generated)."""

    image: Image.Image
    question: str | None = None
    answer: str | None = None


@dataclass(slots=True)
class Encoded:
    """An example ready to be batched.

    Attributes:
        pixels: (3, H, W) uint8, at the model's size.
        ids: (T,) int64 tokens; the image's placeholder stands once for each of its patches.
        prompt: how many of them are the prompt, which is not learned.
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
        max_length: longest sequence, image tokens included; longer answers are cut at the end. None: no limit.
        for_generation: only prompts, padded on the left, no labels.
        prompt: in which form a question is put (`chat.Prompt`).
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
        """The batch of `examples`; see `pad` for its tensors."""
        return self.pad(self.encode(examples))

    def pixels(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """Each image at the model's size, (3, H, W) uint8; an image that has it already stays as it is, bit for bit."""
        if not images:
            return []
        made = self.processor.image_processor(
            images=list(images), do_rescale=False, do_normalize=False, return_tensors="pt"
        )["pixel_values"]
        # A row for each, not a view of the batch: kept rows would keep their whole batch alive.
        return [row.to(torch.uint8).clone() for row in made]

    def normalise(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        """(N, 3, H, W) float32 model input of images from `pixels`, as the processor makes it in one go."""
        return self.processor.image_processor(
            images=list(pixels), do_resize=False, do_center_crop=False, return_tensors="pt"
        )["pixel_values"]

    def _expand(self, ids: list[int], height: int, width: int) -> list[int]:
        """`ids` with the image's one placeholder repeated as often as the image has patches."""
        processor = self.processor
        patches = (height // processor.patch_size) * (width // processor.patch_size)
        patches += processor.num_additional_image_tokens
        patches -= processor.vision_feature_select_strategy == "default"
        at = ids.index(processor.image_token_id)
        return ids[:at] + [processor.image_token_id] * patches + ids[at + 1 :]

    def _prompt(self, question: str | None) -> list[int]:
        if question not in self._prompts:
            self._prompts[question] = self.processor.tokenizer(
                chat.prompt(self.processor, question, self.prompt)
            ).input_ids
        return self._prompts[question]

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Tokens and pixels of each example.

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
        encoded = []
        for example, ids, pixels in zip(
            examples, rows, self.pixels([e.image for e in examples]), strict=True
        ):
            prompt = self._prompt(example.question)
            if ids[: len(prompt)] != prompt:
                raise ValueError(
                    f"the tokens of {chat.prompt(self.processor, example.question, self.prompt)!r} depend on the answer"
                )
            height, width = pixels.shape[-2:]
            length = len(self._expand(prompt, height, width))
            if self.max_length is not None and length >= self.max_length:
                raise UserError(
                    f"a prompt takes {length} tokens, and finetune.max_length is {self.max_length}",
                    "raise finetune.max_length in params.yaml",
                )
            ids = self._expand(ids, height, width)
            cut = self.max_length is not None and len(ids) > self.max_length
            encoded.append(Encoded(pixels, torch.tensor(ids[: self.max_length]), length, cut))
        return encoded

    def pad(self, encoded: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """A batch of N examples, T tokens long.

        Returns:
            `pixel_values` (N, 3, H, W) float32, `input_ids` (N, T), `attention_mask` (N, T); for training also `labels`
            (N, T): −100 everywhere but on the answer and its end-of-sequence token.
        """
        longest = max(len(e.ids) for e in encoded)
        ids = torch.full((len(encoded), longest), self.processor.tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, IGNORE)
        for row, e in enumerate(encoded):
            if self.for_generation:
                ids[row, longest - len(e.ids) :] = e.ids
                mask[row, longest - len(e.ids) :] = 1
            else:
                ids[row, : len(e.ids)] = e.ids
                mask[row, : len(e.ids)] = 1
                labels[row, e.prompt : len(e.ids)] = e.ids[e.prompt :]
        batch = {
            "pixel_values": self.normalise([e.pixels for e in encoded]),
            "input_ids": ids,
            "attention_mask": mask,
        }
        return batch if self.for_generation else {**batch, "labels": labels}
