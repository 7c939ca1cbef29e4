"""Load LLaVA from a folder or from the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jinja2 import TemplateError
from transformers import (
    AutoConfig,
    AutoProcessor,
    Cache,
    CLIPVisionModel,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPEncoderLayer
from transformers.models.llama.modeling_llama import (
    LlamaAttention,
    LlamaDecoderLayer,
    LlamaMLP,
    LlamaModel,
    eager_attention_forward,
)

from fakevlm.model import weights
from fakevlm.model.build import CHAT_TEMPLATE
from fakevlm.model.collate import Collator, Example
from fakevlm.model.weights import cannot_load, load_weights, locate
from fakevlm.progress import say

_HARMLESS = ("transformers_version", "use_cache")  # settings of generation that decide no answer
Precision = Literal["fp32", "bf16"]  # as params.yaml has it

Model = TypeVar("Model", bound=LlavaForConditionalGeneration)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Return x · cos + (−second, first) · sin, of both halves of x; a sine is the same for both."""
    turned, (first, second), sine = x * cos, x.chunk(2, -1), sin.chunk(2, -1)[0]
    turned.chunk(2, -1)[0].sub_(second * sine)
    turned.chunk(2, -1)[1].add_(first * sine)
    return turned


class _Rotation(torch.autograd.Function):
    """Rotary embeddings of (N, heads, T, size), to the library's bits, with fewer copies on the way."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotate(gradient, cos, -sin), None, None


class SparingAttention(LlamaAttention):
    """A Llama's attention with `_Rotation`, and if asked for from the last positions alone."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        query_length: int = 0,
        **options: Any,
    ) -> tuple[torch.Tensor, Any]:
        """Return the output (N, `query_length`, width) at the last positions; 0 means at all."""

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

        cos, sin = (part.unsqueeze(1) for part in position_embeddings)
        queries = heads(self.q_proj(hidden_states[:, -query_length:]))
        queries = _Rotation.apply(queries, cos[:, :, -query_length:], sin[:, :, -query_length:])
        keys, values = heads(self.k_proj(hidden_states)), heads(self.v_proj(hidden_states))
        keys = _Rotation.apply(keys, cos, sin)
        if past_key_values is not None:
            keys, values = past_key_values.update(keys, values, self.layer_idx)
        if query_length and attention_mask is None:  # the library then takes the queries for the first ones
            seen = keys.new_ones((1, 1, query_length, keys.shape[2]), dtype=torch.bool)
            attention_mask = seen.tril(hidden_states.shape[1] - query_length)
        elif query_length:
            attention_mask = attention_mask[:, :, -query_length:]
        kind = self.config._attn_implementation
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(kind, eager_attention_forward)
        options |= {"dropout": self.attention_dropout * self.training, "scaling": self.scaling}
        attended, weights = attend(self, queries, keys, values, attention_mask, **options)
        return self.o_proj(attended.flatten(2)), weights


class LastLayer(LlamaDecoderLayer):
    """The language model's last layer, which can leave out what nobody reads.

    Earlier positions of the last layer serve attention alone; most of them are an image's.
    """

    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, last_positions: int = 0, **options: Any
    ) -> torch.Tensor:
        """Return the hidden states (N, `last_positions`, width) of the last positions; 0 means of all."""
        read = self.input_layernorm(hidden_states)
        attended, _ = self.self_attn(hidden_states=read, query_length=last_positions, **options)
        hidden = hidden_states[:, -last_positions:] + attended
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class UnreadLayer(CLIPEncoderLayer):
    """A layer of the vision tower behind the one whose output is read: it computes nothing."""

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return hidden_states


class _SwiGLU(torch.autograd.Function):
    """silu(gate) · up, to the same bits; what can be overwritten is, and silu(gate) is not kept."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = ctx.saved_tensors
        inner = gradient * up
        torch.ops.aten.silu_backward.grad_input(inner, gate, grad_input=inner)
        return inner, F.silu(gate).mul_(gradient)


class SparingMLP(LlamaMLP):
    """A Llama's feed-forward layer with `_SwiGLU`: new memory costs a CPU a tenth of a training step."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(_SwiGLU.apply(self.gate_proj(x), self.up_proj(x)))


def lighten(model: LlavaForConditionalGeneration) -> None:
    """Let a LLaVA compute what is read alone, where it is made of CLIP and Llama, to the same bits."""
    tower, llama = model.model.vision_tower, model.model.language_model
    if type(tower) is CLIPVisionModel:
        layers = tower.encoder.layers
        for layer in layers[max(np.ravel(model.config.vision_feature_layer) % (len(layers) + 1)) :]:
            layer.__class__ = UnreadLayer
    if type(llama) is LlamaModel:
        last, on_cpu = llama.layers[-1], weights.device().type == "cpu"
        last.__class__, last.self_attn.__class__ = LastLayer, SparingAttention
        for layer in llama.layers if on_cpu else ():
            layer.self_attn.__class__ = SparingAttention
            if llama.config.hidden_act == "silu":
                layer.mlp.__class__ = SparingMLP


class Linear16(torch.nn.Linear):
    """A linear layer that multiplies in 16 bits, on a CPU.

    It returns 32 bits, and 16 where an activation follows. Autocast would compute attention in 16 bits too,
    which takes CPUs twice as long.
    """

    returns = torch.float32

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.bfloat16()
        return F.linear(x.bfloat16(), self.weight.bfloat16(), bias).to(self.returns)


def multiply_in_16_bits(model: LlavaForConditionalGeneration) -> None:
    """Let a LLaVA multiply in 16 bits in its linear layers, and compute all else in 32, on a CPU.

    The last linear layer, which gives the logits, does not. Linear layers keep their weights' type.
    """
    for name, layer in model.named_modules():
        if type(layer) is torch.nn.Linear and name.startswith("model."):
            layer.__class__ = Linear16
            if name.endswith(("fc1", "gate_proj", "up_proj")):
                layer.returns = torch.bfloat16
            continue
        for tensor in (*layer.parameters(False), *layer.buffers(False)):
            if tensor.is_floating_point():
                tensor.data = tensor.data.float()
        if name.endswith(("input_layernorm", "post_attention_layernorm", "layer_norm1", "layer_norm2")):
            layer.register_forward_hook(lambda *call: call[-1].bfloat16())  # linear layers alone read it


def load_for_inference(
    name_or_folder: str | Path, precision: Precision, kind: type[Model] = LlavaForConditionalGeneration
) -> Model:
    """Return a LLaVA that answers, on the accelerator if there is one.

    With "bf16" its weights have 16 bits. A CPU then multiplies in 16 bits in linear layers, and computes all
    else in 32; without instructions for it, everything in 32.

    Raises:
        UserError: see `load_model`.
    """
    narrow = precision == "bf16" and weights.multiplies_16_bits()
    model = load_model(name_or_folder, dtype="bfloat16" if narrow else "float32", kind=kind)
    if narrow and model.device.type == "cpu":
        multiply_in_16_bits(model)
    return model


def load_model(
    name_or_folder: str | Path,
    *,
    dtype: str = "float32",
    device: torch.device | str | None = None,
    kind: type[Model] = LlavaForConditionalGeneration,
    new: Sequence[str] = (),
) -> Model:
    """Return a LLaVA in evaluation mode; its folder's settings of generation are reported and left out.

    `dtype` is torch's name of the weights' type; without `device` the accelerator is taken, if there is one.

    Raises:
        UserError: see `load_weights`; or it is no LLaVA.
    """
    load_config(name_or_folder)
    model = load_weights(kind, name_or_folder, new=new, dtype=getattr(torch, dtype))
    settings = model.generation_config.to_diff_dict()
    ids = {key: settings.pop(key, None) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    if ignored := {k: v for k, v in settings.items() if k[0] != "_" and k not in _HARMLESS}:
        say(f"{name_or_folder}: its generation settings {ignored} are not used; answers are greedy")
    model.generation_config = GenerationConfig(**ids)
    lighten(model)
    if is_deepspeed_zero3_enabled():
        # On saving, the library reverts the renaming of weights that it did on loading. With ZeRO-3 it
        # would also revert renamings that it never did, and save names that nobody can load.
        model._weight_conversions = [change for change in model._weight_conversions if change.was_used()]
        return model  # its weights lie on the ranks' devices
    return model.to(weights.device() if device is None else device)


def load_config(name_or_folder: str | Path) -> LlavaConfig:
    """Return the sizes of a LLaVA. Raises `UserError` if there are none, or they are another model's."""
    try:
        config = AutoConfig.from_pretrained(locate(name_or_folder), trust_remote_code=False)
        if not isinstance(config, LlavaConfig):
            raise ValueError(f"it is a {config.model_type}")
    except (OSError, ValueError) as error:
        raise cannot_load("LLaVA", name_or_folder, error) from error
    return config


def load_processor(name_or_folder: str | Path) -> LlavaProcessor:
    """Return the processor saved with a LLaVA, tried on an image.

    One without a chat template gets its tokenizer's, if that knows images, or LLaVA-1.5's. A tokenizer
    without a padding token pads with the end-of-sequence token.

    Raises:
        UserError: there is none, it is not a LLaVA's, or it does not fit the model.
    """
    from PIL import Image  # which gpu.py does without

    config = load_config(name_or_folder)
    rows, size = config.text_config.vocab_size, (config.vision_config.image_size,) * 2
    try:
        processor = AutoProcessor.from_pretrained(locate(name_or_folder), trust_remote_code=False)
        if not isinstance(processor, LlavaProcessor):
            raise ValueError(f"it is a {type(processor).__name__}")
        tokenizer = processor.tokenizer
        if tokenizer.eos_token is None:
            raise ValueError("its tokenizer has no end-of-sequence token")
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        if (ids := (processor.image_token_id, config.image_token_id)) != ids[::-1]:
            raise ValueError(f"an image is its token {ids[0]}, and the model's {ids[1]}")
        tokens = max(tokenizer.get_vocab().values()) + 1
        if not 0.9 * rows <= tokens <= rows:  # a model may have some more, for a round number
            raise ValueError(f"its tokenizer has {tokens} tokens, and the model {rows}")
        if processor.chat_template is None:
            template = tokenizer.chat_template
            processor.chat_template = template if "image" in str(template) else CHAT_TEMPLATE
        # What decides an image's number of tokens is the model's. CLIP has one beside those of the patches.
        processor.patch_size = config.vision_config.patch_size
        processor.vision_feature_select_strategy = config.vision_feature_select_strategy
        processor.num_additional_image_tokens = int(config.vision_config.model_type == "clip_vision_model")
        (encoded,) = Collator(processor, for_generation=True).encode([Example(Image.new("RGB", size))])
        if (given := tuple(encoded.pixels.shape[1:])) != size:
            raise ValueError(f"it makes images of {given} pixels, and the model takes {size}")
    except (OSError, ValueError, TypeError, TemplateError) as error:
        raise cannot_load("processor that fits the model", name_or_folder, error) from error
    return processor
