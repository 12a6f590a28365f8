"""Quantization of frozen linear layers to 8 or 4 bits: a small number per weight and scales, dequantized in the forward and backward pass.

Neither pass keeps dequantized weights, so that a block takes its stored size and the full size of one layer.

torchao and bitsandbytes offer such formats too and were not tried on a CPU. This implementation is kept because block swapping copies a
layer's stored tensors as plain parameters and buffers (`block_swap.py`).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from lora_edit.models.runtime.block_swap import get_blocks

WeightFormat = Literal["full", "int8", "fp8", "nf4"]

EIGHT_BIT_FORMATS: dict[WeightFormat, tuple[torch.dtype, float]] = {"int8": (torch.int8, 127.0), "fp8": (torch.float8_e4m3fn, 448.0)}
"""Number format of each 8-bit storage, and its largest number. A row of weights has one scale."""

GROUP_SIZE = 64
"""Weights of a row that share a scale in 4 bits (QLoRA, 2305.14314)."""

MIN_SCALE = 1e-12
"""Scale of weights that are all zero."""

NF4_TAIL_PROBABILITY = 0.9677083
"""Probability at the outermost level of 4 bits (bitsandbytes `functional.py`, `create_normal_map`)."""


class _QuantizedLinearFunction(torch.autograd.Function):
    """`F.linear` with quantized weights, which have no gradient."""

    @staticmethod
    def forward(
        ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, exact: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(weight, scale)
        ctx.exact = exact
        return F.linear(inputs, dequantize_weight(weight, scale, inputs.dtype, exact=exact), bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None, None, None]:
        (grad,) = grads
        weight, scale = ctx.saved_tensors
        return grad @ dequantize_weight(weight, scale, grad.dtype, exact=ctx.exact), None, None, None, None


class QuantizedLinear(nn.Linear):
    """A frozen `nn.Linear` whose `weight` holds quantized numbers; `dequantize_weight` applies `scale` to them.

    With `exact`, weights are multiplied in float32 and then rounded, so that they equal those of a file that was dequantized when read.
    """

    scale: torch.Tensor
    exact = False

    @classmethod
    def from_stored(cls, linear: nn.Linear, weight: torch.Tensor, scale: torch.Tensor) -> QuantizedLinear:
        """Build the layer of weights `[out, in]` that a file holds in 8 bits, with a scale `[1, 1]` or `[out, 1]`; keeps the bias."""
        stored = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        stored.weight = nn.Parameter(weight, requires_grad=False)
        stored.register_buffer("scale", scale.float(), persistent=False)
        stored.exact = True
        if linear.bias is not None:
            stored.bias = linear.bias
        return stored

    @classmethod
    def from_linear(cls, linear: nn.Linear, weight_format: WeightFormat) -> QuantizedLinear:
        """Quantize a layer."""
        quantized = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        weight, scale = quantize_weight(linear.weight.detach(), weight_format)
        quantized.weight = nn.Parameter(weight, requires_grad=False)
        quantized.register_buffer("scale", scale, persistent=False)
        if linear.bias is not None:
            quantized.bias = linear.bias
        return quantized

    def to_linear(self) -> nn.Linear:
        """Dequantize the layer, in float32."""
        linear = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        linear.weight = nn.Parameter(dequantize_weight(self.weight, self.scale, torch.float32, exact=self.exact), requires_grad=False)
        linear.bias = self.bias
        return linear

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map `[..., in]` to `[..., out]`."""
        product: torch.Tensor = _QuantizedLinearFunction.apply(input, self.weight, self.scale, self.bias, self.exact)  # type: ignore[no-untyped-call]
        return product


def quantize_weight(weight: torch.Tensor, weight_format: WeightFormat) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize weights `[out, in]`; returns numbers and scales in float32. The largest weight of each scale is exact.

    8 bits: `[out, in]` and `[out, 1]`. 4 bits: `[out, in / 2]` uint8, two weights in each, and `[out, groups]`.
    """
    if weight_format == "nf4":
        return _quantize_nf4(weight.float())
    dtype, largest = EIGHT_BIT_FORMATS[weight_format]
    scale = (weight.float().abs().amax(1, keepdim=True) / largest).clamp(min=MIN_SCALE)
    values = weight.float() / scale
    return (values.round() if dtype == torch.int8 else values).clamp(-largest, largest).to(dtype), scale


def dequantize_weight(weight: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype, *, exact: bool = False) -> torch.Tensor:
    """Dequantize weights to `[out, in]` in `dtype`; with `exact`, in float32 and rounded."""
    if exact:
        return (weight.float() * scale).to(dtype)
    if weight.dtype != torch.uint8:
        return weight.to(dtype) * scale.to(dtype)
    pairs = _compute_nf4_levels(weight.device).to(dtype)[torch.stack([weight >> 4, weight & 15], -1).long()]
    return (pairs.view(*scale.shape, -1) * scale.to(dtype)[..., None]).view(len(weight), -1)


def _quantize_nf4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round to the nearest of 16 levels, which are spaced for normally distributed weights."""
    rows, columns = weight.shape
    groups = weight.view(rows, -1, math.gcd(columns, GROUP_SIZE))
    scale = groups.abs().amax(2).clamp(min=MIN_SCALE)
    levels = _compute_nf4_levels(weight.device)
    borders = (levels[1:] + levels[:-1]) / 2
    numbers = torch.bucketize(groups / scale[..., None], borders).to(torch.uint8).view(rows, -1, 2)
    return (numbers[..., 0] << 4) | numbers[..., 1], scale


@cache
def _compute_nf4_levels(device: torch.device) -> torch.Tensor:
    """Compute NF4's 16 levels in [-1, 1]: quantiles of the normal distribution, one of them zero (QLoRA, appendix E)."""
    above, below = (torch.special.ndtri(torch.linspace(NF4_TAIL_PROBABILITY, 0.5, count, dtype=torch.float64))[:-1] for count in (9, 8))
    levels = torch.cat([-below, torch.zeros(1), above]).sort().values
    return (levels / levels.max()).float().to(device)


def quantize_linears(block: nn.Module, weight_format: WeightFormat) -> None:
    """Replace every linear layer inside by a quantized one; norms, tables and biases do not change. `full` changes nothing.

    Layers that their file holds in 8 bits stay as they are, except in 4 bits.
    """
    if weight_format == "full":
        return
    for parent in list(block.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.weight.is_floating_point():
                setattr(parent, name, QuantizedLinear.from_linear(child, weight_format))
            elif isinstance(child, QuantizedLinear) and child.exact and weight_format == "nf4":
                setattr(parent, name, QuantizedLinear.from_linear(child.to_linear(), weight_format))


def quantize_blocks(transformer: nn.Module, weight_format: WeightFormat) -> None:
    """Quantize every repeated block of a transformer; once, before a LoRA is added and before blocks are swapped."""
    for block in get_blocks(transformer):
        quantize_linears(block, weight_format)
