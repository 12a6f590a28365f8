"""Selection of tokens on torch's meta device, for HunyuanVideo-1.5's transformer, which selects them by the values of its masks."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class _AllTokensMode(TorchFunctionMode):
    """Masks on the meta device select all tokens, inverted masks none; conditions are false.

    The transformer moves padding behind the other tokens in this way, and asks whether the picture is empty. The family passes a picture
    and tokens without padding.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__bool__ and args[0].is_meta:
            return False
        if func is torch.Tensor.__getitem__ and isinstance(args[1], torch.Tensor) and args[1].dtype == torch.bool and args[1].is_meta:
            tokens, mask = args
            rows = tokens.flatten(0, mask.ndim - 1)
            return rows[:0] if getattr(mask, "is_inverted", False) else rows
        output = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.__invert__, torch.bitwise_not):
            output.is_inverted = True
        return output


def select_all_tokens(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which masks select all tokens on the meta device; on other devices nothing changes."""
    return _AllTokensMode() if device.type == "meta" else nullcontext()
