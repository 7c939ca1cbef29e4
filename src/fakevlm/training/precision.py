"""`precision: bf16` on a CPU: products of 16-bit factors, with 32-bit sums."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

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
