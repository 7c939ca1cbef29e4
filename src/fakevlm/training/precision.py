"""Training on a CPU: fewer arrays, and products of 16-bit factors (`precision: bf16`) with 32-bit sums."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.models.llama.modeling_llama import LlamaMLP

ATTENTION = "sdpa_32_bits"  # this module's name among the library's ways to compute attention


@contextmanager
def factors(precision: str) -> Iterator[None]:
    """Let `torch.set_float32_matmul_precision` be `precision` for a while: "medium" rounds factors."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Attention(torch.autograd.Function):
    """The library's `sdpa`, forward and backward with factors of 32 bits.

    Its kernel multiplies one small block after the other. Rounding each to 16 bits costs four times what the
    product saves.
    """

    @staticmethod
    def forward(ctx: Any, module: torch.nn.Module, options: dict, *inputs: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad(), factors("highest"):
            ctx.inputs = [tensor.detach().requires_grad_() for tensor in inputs]
            ctx.output, _ = sdpa_attention_forward(module, *ctx.inputs, **options)
        return ctx.output.detach()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with factors("highest"):
            return None, None, *torch.autograd.grad(ctx.output, ctx.inputs, gradient)


@torch.compiler.disable
def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: Any,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    return _Attention.apply(module, options | {"attention_mask": mask}, query, key, value), None


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


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
    """A Llama's feed-forward layer with `_SwiGLU`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(_SwiGLU.apply(self.gate_proj(x), self.up_proj(x)))


@contextmanager
def fewer_arrays(llama: torch.nn.Module) -> Iterator[None]:
    """Let a Llama make fewer arrays for a while: new memory costs a CPU a tenth of a training step."""
    plain = [layer.mlp for layer in llama.layers if type(layer.mlp) is LlamaMLP]
    for mlp in plain if llama.config.hidden_act == "silu" else ():
        mlp.__class__ = SparingMLP
    try:
        yield
    finally:
        for mlp in plain:
            mlp.__class__ = LlamaMLP
