"""Frozen linear layers kept in 8 or 4 bits: a small number for each weight and scales, multiplied out where they are used.

Neither pass keeps the multiplied weights: backward makes them again, so that a block costs its stored size and one layer's full size.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from lora_edit.models.streaming import blocks_of

Storage = Literal["full", "int8", "fp8", "nf4"]

FORMATS: dict[Storage, tuple[torch.dtype, float]] = {"int8": (torch.int8, 127.0), "fp8": (torch.float8_e4m3fn, 448.0)}
"""Of the 8-bit storages: number format, and its largest number. A row of weights has one scale."""

GROUP = 64
"""So many weights of a row share a scale in 4 bits (QLoRA, 2305.14314)."""

SMALLEST = 1e-12
"""Scale of zeros."""

TAIL = 0.9677083
"""Probability at the outermost level of 4 bits (bitsandbytes `functional.py`, `create_normal_map`)."""


class _Product(torch.autograd.Function):
    """`F.linear` by stored weights, which have no gradient."""

    @staticmethod
    def forward(ctx: Any, given: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(weight, scale)
        return F.linear(given, multiplied_out(weight, scale, given.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (grad,) = grads
        weight, scale = ctx.saved_tensors
        return grad @ multiplied_out(weight, scale, grad.dtype), None, None, None


class StoredLinear(nn.Linear):
    """A frozen `nn.Linear` whose `weight` holds small numbers, which `multiplied_out` tells with `scale` what they are worth."""

    scale: torch.Tensor

    @classmethod
    def of(cls, linear: nn.Linear, storage: Storage) -> StoredLinear:
        """The layer with its weights rounded."""
        stored = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        weight, scale = rounded(linear.weight.detach(), storage)
        stored.weight = nn.Parameter(weight, requires_grad=False)
        stored.register_buffer("scale", scale, persistent=False)
        if linear.bias is not None:
            stored.bias = linear.bias
        return stored

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`[..., in]` to `[..., out]`."""
        product: torch.Tensor = _Product.apply(input, self.weight, self.scale, self.bias)  # type: ignore[no-untyped-call]
        return product


def rounded(weight: torch.Tensor, storage: Storage) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights `[out, in]` as small numbers, and their scales in float32; the largest weight of each scale is hit exactly.

    8 bits: `[out, in]` and `[out, 1]`. 4 bits: `[out, in / 2]` uint8, two weights in each, and `[out, groups]`.
    """
    if storage == "nf4":
        return _in_four_bits(weight.float())
    dtype, largest = FORMATS[storage]
    scale = (weight.float().abs().amax(1, keepdim=True) / largest).clamp(min=SMALLEST)
    values = weight.float() / scale
    return (values.round() if dtype == torch.int8 else values).clamp(-largest, largest).to(dtype), scale


def multiplied_out(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What stored weights are worth, `[out, in]` in `dtype`."""
    if weight.dtype != torch.uint8:
        return weight.to(dtype) * scale.to(dtype)
    pairs = _levels(weight.device).to(dtype)[torch.stack([weight >> 4, weight & 15], -1).long()]
    return (pairs.view(*scale.shape, -1) * scale.to(dtype)[..., None]).view(len(weight), -1)


def _in_four_bits(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The nearest of 16 levels, which are as far apart as normally distributed weights need."""
    rows, columns = weight.shape
    groups = weight.view(rows, -1, math.gcd(columns, GROUP))
    scale = groups.abs().amax(2).clamp(min=SMALLEST)
    levels = _levels(weight.device)
    between = (levels[1:] + levels[:-1]) / 2
    numbers = torch.bucketize(groups / scale[..., None], between).to(torch.uint8).view(rows, -1, 2)
    return (numbers[..., 0] << 4) | numbers[..., 1], scale


@cache
def _levels(device: torch.device) -> torch.Tensor:
    """NF4's 16 levels in [-1, 1]: quantiles of the normal distribution, one of them zero (QLoRA, appendix E)."""
    above, below = (torch.special.ndtri(torch.linspace(TAIL, 0.5, count, dtype=torch.float64))[:-1] for count in (9, 8))
    levels = torch.cat([-below, torch.zeros(1), above]).sort().values
    return (levels / levels.max()).float().to(device)


def store_linears(block: nn.Module, storage: Storage) -> None:
    """Replace every linear layer inside by a stored one; norms, tables and biases stay as they are. `full` changes nothing."""
    if storage == "full":
        return
    for parent in list(block.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.weight.is_floating_point():
                setattr(parent, name, StoredLinear.of(child, storage))


def store_blocks(transformer: nn.Module, storage: Storage) -> None:
    """`store_linears` for every repeated block of a transformer; once, before a LoRA is added and before blocks are streamed."""
    for block in blocks_of(transformer):
        store_linears(block, storage)
