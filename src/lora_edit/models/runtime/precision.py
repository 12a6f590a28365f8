"""Number formats of a transformer: the modules that diffusers keeps in float32 (`_keep_in_fp32_modules`) stay there, however it was loaded.

`from_pretrained` honours that list; `from_single_file` and `.to(dtype)` do not, and also round the rotary table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def is_kept_in_fp32(transformer: nn.Module, name: str) -> bool:
    """Check whether the dotted name of a parameter or buffer is covered by the class's list."""
    fp32_modules = getattr(transformer, "_keep_in_fp32_modules", None) or ()
    return any(part in fp32_modules for part in name.split("."))


def is_gguf_parameter(parameter: torch.Tensor) -> bool:
    """Check whether a weight is in GGUF's own storage, whose number format must not change."""
    return hasattr(parameter, "quant_type")


def cast_and_freeze(transformer: Any, dtype: torch.dtype) -> nn.Module:
    """Freeze a transformer and cast its parameters to `dtype`, except those of float32 modules; make its rotary table exact. In place."""
    for name, parameter in transformer.named_parameters():
        if is_gguf_parameter(parameter):
            continue
        parameter.requires_grad_(False)
        if parameter.dtype.itemsize == 1:  # weights that a file holds in 8 bits, with their scale
            continue
        parameter.data = parameter.data.to(torch.float32 if is_kept_in_fp32(transformer, name) else dtype)
    rope = transformer.rope
    table = next(rope.buffers(), None)  # LTX-Video and HunyuanVideo have none and compute it each time, in float32
    if table is not None and table.dtype.itemsize < torch.float32.itemsize:
        transformer.rope = type(rope)(rope.attention_head_dim, rope.patch_size, rope.max_seq_len).to(next(transformer.parameters()).device)
    module: nn.Module = transformer.eval()
    return module
