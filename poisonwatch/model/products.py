"""Linear layers with bfloat16 factors and float32 sums, where a processor has instructions for it.

    y = x W^T + b :   x and W are rounded to bfloat16 (8 bits) inside of the product; x, W, y and
    all that is between layers stay float32

oneDNN does the rounding. Of a model of 135M parameters a pass over rows takes half of the time, and
every row's gradient keeps a cosine of .9996 or more to float32's (docs/method.md). Only
linear layers do it: attention multiplies small matrices, and would take ten times as long.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

# PyTorch types none of it; the oldest that is allowed lacks `matmul`.
_ONEDNN: Any = torch.backends.mkldnn

# Below it nothing is won, and tests that take finite differences want all digits.
LEAST_PARAMETERS = 20_000_000

# Tokens from which on rounding the weights pays: one new token of two answers takes half as long
# again with it.
LEAST_TOKENS = 8


class BfloatLinear(nn.Linear):
    """A linear layer whose frozen weights are multiplied as bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.requires_grad and torch.is_grad_enabled():
            return super().forward(x)
        y = _multiply(x, self.weight)
        return y if self.bias is None else y + self.bias


class BfloatConv1D(Conv1D):
    """GPT-2's linear layer, whose weights are the other way round, likewise."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.requires_grad and torch.is_grad_enabled():
            own: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
            return own
        return _multiply(x, self.weight.T) + self.bias


FASTER: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: BfloatLinear, Conv1D: BfloatConv1D}


def has_bfloat16_products() -> bool:
    """Whether the processor multiplies bfloat16 itself, and this PyTorch can be told to."""
    if not hasattr(getattr(_ONEDNN, "matmul", None), "fp32_precision"):
        return False
    if not (_ONEDNN.is_available() and hasattr(torch.cpu, "get_capabilities")):
        return False
    if not torch.cpu.get_capabilities().get("avx512_bf16"):
        return False
    return _rounds_factors()


def _rounds_factors() -> bool:
    """Whether a product of factors with more digits than bfloat16 has differs from float32's. Some
    virtual machines name the instructions and do not offer all that oneDNN asks for: then it goes
    on in float32.
    """
    x = torch.full((64, 64), 1 + 2**-10)
    with torch.no_grad(), _multiply_bfloat16():
        rounded = linear(x, x)
    return not torch.equal(rounded, linear(x, x))


def use_bfloat16_products(model: PreTrainedModel) -> None:
    """Let every linear layer of a frozen float32 model on the CPU multiply bfloat16 factors; its
    weights stay what they are.
    """
    for module in model.modules():
        # Exactly these: what a subclass adds is not known here.
        faster = FASTER.get(type(module))
        if faster is not None:
            module.__class__ = faster


def describe_products(model: PreTrainedModel) -> str:
    """A model's dtype, and how it multiplies where that is another: the numbers of one way are not
    those of the other.
    """
    for module in model.modules():
        if isinstance(module, BfloatLinear | BfloatConv1D):
            return f"{model.dtype}, bfloat16 products"
    return str(model.dtype)


def _multiply(x: Tensor, W: Tensor) -> Tensor:
    """x W^T (..., out) for x (..., in) and frozen W (out, in)."""
    if x.numel() < LEAST_TOKENS * x.shape[-1]:
        return linear(x, W)
    y: Tensor = _Product.apply(x, W)  # type: ignore[no-untyped-call]
    return y


class _Product(torch.autograd.Function):
    """x W^T for frozen W, (..., in) and (out, in) to (..., out)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor) -> Tensor:
        ctx.save_for_backward(W)
        with _multiply_bfloat16():
            return linear(x, W)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (W,) = ctx.saved_tensors
        with _multiply_bfloat16():
            return dy @ W, None


@contextmanager
def _multiply_bfloat16() -> Iterator[None]:
    """oneDNN's matrix products of float32 round their factors to bfloat16, inside a `with`."""
    before = _ONEDNN.matmul.fp32_precision
    _ONEDNN.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        _ONEDNN.matmul.fp32_precision = before
