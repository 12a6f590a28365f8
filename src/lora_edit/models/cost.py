"""What a pass of a transformer costs, counted on torch's meta device: the real code runs, but computes no number and holds no weight."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode


@dataclass(frozen=True)
class StepCost:
    """A training step and a sampling pass at one size, with a LoRA inside and every block checkpointed.

    `step` and `forward` are floating-point operations; `step_bytes` and `forward_bytes` the most that is held beyond weights, gradients
    and optimiser. `block_bytes` are the frozen weights of each block in order, `rest_bytes` those outside, `trained` how many numbers are
    trained; `border_bytes` is one hidden state between blocks, of which `step_bytes` has one for each.
    """

    step: float
    forward: float
    step_bytes: int
    forward_bytes: int
    block_bytes: tuple[int, ...]
    rest_bytes: int
    trained: int
    border_bytes: int

    def plus(self, further: StepCost, base: StepCost, times: int) -> StepCost:
        """With what `further` costs beyond `base` added so many times; blocks are left as they are."""
        changing = ("step", "forward", "step_bytes", "forward_bytes", "trained")
        return replace(self, **{name: getattr(self, name) + times * (getattr(further, name) - getattr(base, name)) for name in changing})


class _Flash(TorchFunctionMode):
    """Attention as the fused kernels compute it, which keep no matrix of all pairs; the meta device would take the plain formula."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.scaled_dot_product_attention:
            query, key, value = (*args, *(kwargs[name] for name in ("query", "key", "value")[len(args) :]))[:3]
            return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        return func(*args, **kwargs)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors made inside the block that are alive, and remembers the most. Works on any device, meta among them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        before = {_identity(each) for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and _identity(tensor) not in before:
                self._hold(tensor.untyped_storage())
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._let_go, size)

    def _let_go(self, size: int) -> None:
        self.now -= size


def _identity(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _run(block: nn.Module, *args: Any) -> Any:
    with _Flash():  # entered here, as the engine drops modes that stood around the forward pass when it computes a block again
        return block(*args)


class _Blocks:
    """Checkpoints as the product does, and writes down the blocks it is given."""

    def __init__(self) -> None:
        self.weights: list[int] = []
        self.border = 0

    def __call__(self, block: nn.Module, *args: Any) -> Any:
        out = checkpoint(_run, block, *args, use_reentrant=False)
        self.weights.append(sum(each.nbytes for each in block.parameters() if not each.requires_grad))
        self.border = max(self.border, sum(each.nbytes for each in (out if isinstance(out, tuple) else (out,))))
        return out


def count_step(transformer: nn.Module, predict: Callable[[], torch.Tensor]) -> StepCost:
    """Count `predict`, a forward pass of `transformer` on the meta device, with its LoRA in place and everything else frozen.

    The transformer must support gradient checkpointing as diffusers' do, and is left with this counter in that place.
    """
    blocks = _Blocks()
    transformer.train()
    transformer.enable_gradient_checkpointing(gradient_checkpointing_func=_run)  # type: ignore[operator]
    # Operations and bytes are counted apart: the counter of operations holds on to tensors.
    with FlopCounterMode(display=False) as operations:
        out = predict()
        forward = operations.get_total_flops()
        out.float().sum().backward()  # type: ignore[no-untyped-call]
        backward = operations.get_total_flops() - forward
    with LiveBytes() as sampling, torch.no_grad(), _Flash():
        predict()
    transformer.enable_gradient_checkpointing(gradient_checkpointing_func=blocks)  # type: ignore[operator]
    with LiveBytes() as training:
        predict().float().sum().backward()  # type: ignore[no-untyped-call]
    for parameter in transformer.parameters():
        parameter.grad = None
    sizes = {grad: [each for each in transformer.parameters() if each.requires_grad == grad] for grad in (False, True)}
    return StepCost(
        step=float(2 * forward + backward),
        forward=float(forward),
        step_bytes=training.most,
        forward_bytes=sampling.most,
        block_bytes=tuple(blocks.weights),
        rest_bytes=sum(each.nbytes for each in sizes[False]) - sum(blocks.weights),
        trained=sum(each.numel() for each in sizes[True]),
        border_bytes=blocks.border,
    )
