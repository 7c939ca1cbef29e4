"""Load LLaVA from a folder or from the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.models.llama.modeling_llama import LlamaDecoderLayer
from transformers.utils import logging

from fakevlm import paths
from fakevlm.errors import UserError
from fakevlm.model.build import CHAT_TEMPLATE

logging.disable_progress_bar()

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}  # params.yaml's names of precisions

Model = TypeVar("Model", bound=LlavaForConditionalGeneration)


def device() -> torch.device:
    """Return the accelerator where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


_best_device = device  # where a parameter of that name hides it


def locate(name: str | Path) -> str:
    """Return the path of a folder, taken from the repository's root, or else the name, for the hub."""
    folder = paths.resolve(name)
    return str(folder) if folder.is_dir() else str(name)


def _cannot_load(what: str, name: str | Path, error: Exception | str) -> UserError:
    return UserError(
        f"no {what} could be loaded from {str(name)!r}: {error}",
        "name a folder in Hugging Face format (`dvc repro` makes one) or a model of the hub such as "
        "llava-hf/llava-1.5-7b-hf",
    )


class LastLayer(LlamaDecoderLayer):
    """The language model's last layer, which can leave out what nobody reads.

    Earlier positions of the last layer serve attention alone; most of them are an image's.
    """

    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, last_positions: int = 0, **options: Any
    ) -> torch.Tensor:
        """Return the hidden states (N, `last_positions`, width) of the last positions; 0 means of all."""
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **options)
        hidden = (hidden_states + attended)[:, -last_positions:]
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


def skip_unread(model: LlavaForConditionalGeneration) -> None:
    """Make a LLaVA's last layer a `LastLayer`, unless its language model is no Llama."""
    last = model.model.language_model.layers[-1]
    if type(last) is LlamaDecoderLayer:
        last.__class__ = LastLayer


def load_model(
    name_or_folder: str | Path,
    *,
    dtype: str = "float32",
    device: torch.device | str | None = None,
    kind: type[Model] = LlavaForConditionalGeneration,
    new: Sequence[str] = (),
) -> Model:
    """Return a LLaVA in evaluation mode.

    Args:
        name_or_folder: folder in HF format, or a name on the hub.
        dtype: torch's name of the weights' type: `float32`, `bfloat16`, …
        device: None takes the accelerator where there is one.
        kind: the class to load; the linear-head variant has its own.
        new: parameters that the files need not hold, because training begins with them.

    Raises:
        UserError: there is no such model, or its files do not hold exactly the parameters of the model.
    """
    try:
        model, report = kind.from_pretrained(
            locate(name_or_folder),
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise _cannot_load("model", name_or_folder, error) from error
    problems = {
        "missing": sorted(set(report["missing_keys"]) - set(new)),
        "unexpected": sorted(report["unexpected_keys"]),
        "of another shape": sorted(str(key[0]) for key in report["mismatched_keys"]),
    }
    listed = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for what, keys in problems.items()
        if keys
    ]
    if listed:
        raise UserError(
            f"the weights in {str(name_or_folder)!r} do not fit the model: {'; '.join(listed)}",
            "the folder is damaged or holds another kind of model: make or fetch it again",
        )
    skip_unread(model)
    if is_deepspeed_zero3_enabled():
        # On saving, the library reverts the renaming of weights that it did on loading. With ZeRO-3 it
        # would also revert renamings that it never did, and save names that nobody can load.
        model._weight_conversions = [change for change in model._weight_conversions if change.was_used()]
        return model.eval()  # its weights lie on the ranks' devices
    model = model.to(_best_device() if device is None else device).eval()
    if damaged := [name for name, weights in model.named_parameters() if not weights.isfinite().all()]:
        raise UserError(
            f"{len(damaged)} tensors in {str(name_or_folder)!r} hold inf or nan, the first {damaged[0]}",
            "the training that made them diverged, or the file is damaged: make or fetch the folder again",
        )
    return model


def load_processor(name_or_folder: str | Path) -> LlavaProcessor:
    """Return the processor saved with a model; one without a chat template gets LLaVA-1.5's.

    Raises:
        UserError: there is none, or it is not a LLaVA's.
    """
    try:
        processor = AutoProcessor.from_pretrained(locate(name_or_folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise _cannot_load("processor", name_or_folder, error) from error
    if not isinstance(processor, LlavaProcessor):
        raise _cannot_load("processor", name_or_folder, f"it is a {type(processor).__name__}")
    if processor.chat_template is None:
        processor.chat_template = CHAT_TEMPLATE
    # What decides an image's number of tokens; processors saved before transformers 4.48 lack it.
    if processor.patch_size is None or processor.vision_feature_select_strategy is None:
        config = AutoConfig.from_pretrained(locate(name_or_folder), trust_remote_code=False)
        processor.patch_size = config.vision_config.patch_size
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
    class_token = int(processor.vision_feature_select_strategy == "default")
    processor.num_additional_image_tokens = processor.num_additional_image_tokens or class_token
    return processor
