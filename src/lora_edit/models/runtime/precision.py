"""Number formats of a transformer: what diffusers keeps in float32 (`_keep_in_fp32_modules`) stays there, however it was loaded.

`from_pretrained` honours that list; `from_single_file` and `.to(dtype)` do not, and also round the rotary table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def is_kept_in_fp32(transformer: nn.Module, name: str) -> bool:
    """Does a parameter's or buffer's dotted name fall under the class's list?"""
    kept = getattr(transformer, "_keep_in_fp32_modules", None) or ()
    return any(part in kept for part in name.split("."))


def is_gguf_parameter(parameter: torch.Tensor) -> bool:
    """Is this a weight in GGUF's own storage, whose number format has to be left alone?"""
    return hasattr(parameter, "quant_type")


def cast_and_freeze(transformer: Any, dtype: torch.dtype) -> nn.Module:
    """The transformer, frozen, with its parameters in `dtype` but those that belong in float32, and an exact rotary table."""
    for name, parameter in transformer.named_parameters():
        if is_gguf_parameter(parameter):
            continue
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(torch.float32 if is_kept_in_fp32(transformer, name) else dtype)
    rope = transformer.rope
    table = next(rope.buffers(), None)  # LTX-Video and HunyuanVideo keep none and compute it each time, in float32
    if table is not None and table.dtype.itemsize < torch.float32.itemsize:
        transformer.rope = type(rope)(rope.attention_head_dim, rope.patch_size, rope.max_seq_len).to(next(transformer.parameters()).device)
    settled: nn.Module = transformer.eval()
    return settled
