"""Costs of a transformer's pass, counted on torch's meta device: the real code runs without values and weights."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class StepCost:
    """A training step and a sampling pass at one size, with a LoRA inside and every block checkpointed.

    - `step_flops`, `forward_flops`: floating-point operations.
    - `step_peak_bytes`, `forward_peak_bytes`: peak memory beyond weights, gradients and optimiser.
    - `block_bytes`: frozen weights of each block in order; `rest_bytes`: those outside the blocks.
    - `num_trainable`: trained numbers.
    - `hidden_state_bytes`: one hidden state between blocks; `step_peak_bytes` contains one for each block.
    """

    step_flops: float
    forward_flops: float
    step_peak_bytes: int
    forward_peak_bytes: int
    block_bytes: tuple[int, ...]
    rest_bytes: int
    num_trainable: int
    hidden_state_bytes: int

    def add_difference(self, other: StepCost, base: StepCost, count: int) -> StepCost:
        """Add the difference between `other` and `base` `count` times; the fields of blocks do not change."""
        fields = ("step_flops", "forward_flops", "step_peak_bytes", "forward_peak_bytes", "num_trainable")
        return replace(self, **{name: getattr(self, name) + count * (getattr(other, name) - getattr(base, name)) for name in fields})


class _FlashAttentionMode(TorchFunctionMode):
    """Attention by the fused kernels, which keep no matrix of all pairs; the meta device would use the plain formula."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.scaled_dot_product_attention:
            query, key, value = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
            mask = kwargs.get("attn_mask")
            if mask is not None and mask.dtype == torch.bool:
                torch.empty(mask.shape, dtype=query.dtype, device=mask.device)  # the kernels add a mask, as numbers
            return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return func(*args, **kwargs)


def fused_attention() -> TorchFunctionMode:
    """Return a context in which attention on the meta device needs the memory of the fused kernels."""
    return _FlashAttentionMode()


class LiveMemoryTracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Context that counts the bytes of living tensors created inside, and their peak. Works on any device, meta included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.current_bytes = self.peak_bytes = 0
        self._storages: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        outputs = [each for each in _iter_leaves(output) if isinstance(each, torch.Tensor)]
        if outputs:
            input_ids = {_get_storage_id(each) for each in _iter_leaves((args, kwargs)) if isinstance(each, torch.Tensor)}
            for tensor in outputs:
                if _get_storage_id(tensor) not in input_ids:
                    self._track(tensor.untyped_storage())
        return output

    def _track(self, storage: torch.UntypedStorage) -> None:
        if storage in self._storages:
            return
        self._storages.add(storage)
        size = storage.nbytes()
        self.current_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.current_bytes)
        weakref.finalize(storage, self._untrack, size)

    def _untrack(self, size: int) -> None:
        self.current_bytes -= size


def _iter_leaves(values: Any) -> Iterator[Any]:
    """Yield the values inside nested sequences and dictionaries, faster than torch's general trees."""
    if isinstance(values, (tuple, list)):
        for value in values:
            yield from _iter_leaves(value)
    elif isinstance(values, dict):
        yield from _iter_leaves(list(values.values()))
    else:
        yield values


def _get_storage_id(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _run_block(block: nn.Module, *args: Any) -> Any:
    with _FlashAttentionMode():  # entered here, because recomputation drops the modes that were active around the forward pass
        return block(*args)


class _BlockRecorder:
    """Checkpointing function that records the blocks it is called with."""

    def __init__(self) -> None:
        self.weight_bytes: list[int] = []
        self.hidden_state_bytes = 0

    def __call__(self, block: nn.Module, *args: Any) -> Any:
        output = checkpoint(_run_block, block, *args, use_reentrant=False)
        self.weight_bytes.append(sum(each.nbytes for each in block.parameters() if not each.requires_grad))
        self.hidden_state_bytes = max(
            self.hidden_state_bytes, sum(each.nbytes for each in (output if isinstance(output, tuple) else (output,)))
        )
        return output


def count_step_cost(transformer: nn.Module, predict: Callable[[], torch.Tensor]) -> StepCost:
    """Count the costs of `predict`, a forward pass of `transformer` on the meta device, with its LoRA added and everything else frozen.

    The transformer must support gradient checkpointing as diffusers' do; its checkpointing function is replaced.
    """
    blocks = _BlockRecorder()
    transformer.train()
    transformer.enable_gradient_checkpointing(gradient_checkpointing_func=_run_block)  # type: ignore[operator]
    # Operations and bytes are counted apart, because the counter of operations keeps tensors alive.
    with FlopCounterMode(display=False) as operations:
        output = predict()
        forward = operations.get_total_flops()
        output.float().sum().backward()  # type: ignore[no-untyped-call]
        backward = operations.get_total_flops() - forward
    with LiveMemoryTracker() as sampling, torch.no_grad(), _FlashAttentionMode():
        predict()
    transformer.enable_gradient_checkpointing(gradient_checkpointing_func=blocks)  # type: ignore[operator]
    with LiveMemoryTracker() as training:
        predict().float().sum().backward()  # type: ignore[no-untyped-call]
    for parameter in transformer.parameters():
        parameter.grad = None
    sizes = {grad: [each for each in transformer.parameters() if each.requires_grad == grad] for grad in (False, True)}
    return StepCost(
        step_flops=float(2 * forward + backward),
        forward_flops=float(forward),
        step_peak_bytes=training.peak_bytes,
        forward_peak_bytes=sampling.peak_bytes,
        block_bytes=tuple(blocks.weight_bytes),
        rest_bytes=sum(each.nbytes for each in sizes[False]) - sum(blocks.weight_bytes),
        num_trainable=sum(each.numel() for each in sizes[True]),
        hidden_state_bytes=blocks.hidden_state_bytes,
    )
