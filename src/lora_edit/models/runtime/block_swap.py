"""Block swapping: blocks of a transformer wait in main memory and are copied to the device one ahead of their computation.

Only frozen weights move, and only towards the device; trained weights stay there, with the optimiser. The backward pass computes blocks
again (gradient checkpointing), because their weights are gone by then: they are copied a second time, in reverse order. A block's weights
form one buffer, so that a copy is one transfer from page-locked memory, beside the computation. The device holds two blocks at a time.
Quantized blocks (`quantization.py`) are copied as they are stored.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lora_edit.devices import AsyncCopier, CopyEvent, allocate_transfer_buffer
from lora_edit.models.runtime.pinned_memory import allocate_pinned_buffers

ALIGNMENT = 256
"""Bytes; alignment of tensors within a block's buffer."""

NO_BLOCK = -2
"""Index before the first block was computed."""


def get_blocks(transformer: nn.Module) -> list[nn.Module]:
    """Return the repeated blocks of a diffusers transformer, in the order of their computation."""
    return [block for name in count_blocks_by_list(transformer) for block in getattr(transformer, name)]


def count_blocks_by_list(transformer: nn.Module) -> dict[str, int]:
    """Count the blocks of each of the transformer's block lists, by name."""
    return {name: len(child) for name, child in transformer.named_children() if isinstance(child, nn.ModuleList)}


def choose_evenly_spaced(count: int, num_chosen: int) -> list[int]:
    """Choose `num_chosen` of `count` indices, evenly spaced, so that each copy runs beside the blocks between."""
    num_chosen = min(num_chosen, count)
    return sorted({(number * count + count // 2) // num_chosen for number in range(num_chosen)}) if num_chosen else []


@dataclass(eq=False)
class _StoredState:
    """A hidden state in main memory, and the device that it came from."""

    values: torch.Tensor
    device: torch.device


class ActivationStore:
    """Checkpointing function that keeps the first argument of each block in main memory; the other arguments are the same for all blocks.

    `num_blocks` hidden states are stored at a time. Their buffers are reused in the next step.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._size = -1
        self._new_buffers: Iterator[torch.Tensor] = iter(())
        self._free_buffers: list[torch.Tensor] = []

    def __call__(self, block: nn.Module, hidden: torch.Tensor, *args: Any) -> Any:
        """Checkpoint a block."""

        def pack(tensor: torch.Tensor) -> torch.Tensor | _StoredState:
            if tensor.data_ptr() != hidden.data_ptr() or tensor.shape != hidden.shape:
                return tensor
            return self._store(tensor)

        def unpack(saved: torch.Tensor | _StoredState) -> torch.Tensor:
            return saved if isinstance(saved, torch.Tensor) else saved.values.to(saved.device, non_blocking=True)

        # These hooks see the arguments only: checkpoint saves them first and then handles the block's own tensors itself.
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return checkpoint(block, hidden, *args, use_reentrant=False)

    def _store(self, tensor: torch.Tensor) -> _StoredState:
        size = _align(tensor.nbytes)
        if size != self._size:
            self._size, self._free_buffers = size, []
            self._new_buffers = allocate_pinned_buffers([size] * self.num_blocks, tensor.device)
        # A model that calls the function more often than it has blocks gets buffers of their own for the rest.
        buffer = self._free_buffers.pop() if self._free_buffers else next(self._new_buffers, None)
        if buffer is None:
            buffer = allocate_transfer_buffer(size, tensor.device)
        values = buffer[: tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor, non_blocking=True)
        state = _StoredState(values, tensor.device)
        # The next copy into the buffer is queued behind the last one out of it, on the same stream.
        weakref.finalize(state, self._free_buffers.append, buffer)
        return state


def _align(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


def _list_frozen_tensors(block: nn.Module) -> list[torch.Tensor]:
    return list(chain((each for each in block.parameters() if not each.requires_grad), block.buffers()))


class _HostBlock:
    """A block's frozen tensors in one buffer in main memory; the block's own tensors become views of it."""

    def __init__(self, block: nn.Module, buffer: torch.Tensor) -> None:
        tensors = _list_frozen_tensors(block)
        starts, total = [], 0
        for tensor in tensors:
            starts.append(total)
            total += _align(tensor.nbytes)
        self.buffer = buffer
        self.layout = {id(tensor): (start, tensor.dtype, tensor.shape) for start, tensor in zip(starts, tensors, strict=True)}
        for tensor in tensors:
            view = self.view(self.buffer, id(tensor))
            view.copy_(tensor.data)
            tensor.data = view

    def view(self, buffer: torch.Tensor, tensor_id: int) -> torch.Tensor:
        """Return the tensor with that `id` within a copy of the buffer."""
        start, dtype, shape = self.layout[tensor_id]
        return buffer[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)


class _DeviceSlot:
    """Memory for one block on the device: `block_index` is the block that it holds or receives, `copy_event` the end of the copy."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.buffer = torch.empty(size, dtype=torch.uint8, device=device)
        self.block_index = -1
        self.copy_event: CopyEvent = None


class BlockSwapper:
    """Blocks that compute with weights from two slots in turn. Serves training and, without gradients, sampling.

    It replaces each block's `forward`, which hooks and wrapper modules cannot do here. A hook would have to point the block's parameters to
    a slot and back, but autograd saves parameters by reference and would read the wrong memory in the backward pass; `functional_call`
    computes with views of the slot, which autograd saves as they are. A wrapper module would change the names of the layers, which LoRA
    files and `lora.targets` contain. Checkpointing and hooks, such as FirstBlockCache's, work on the block as before.
    """

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self.device, self.copies = device, AsyncCopier(device)
        self.blocks = list(blocks)
        sizes = [sum(_align(tensor.nbytes) for tensor in _list_frozen_tensors(block)) for block in blocks]
        buffers = allocate_pinned_buffers(sizes, device)
        self.host_blocks = [_HostBlock(block, next(buffers)) for block in blocks]
        self.slots: list[_DeviceSlot] = []
        self.last_index = NO_BLOCK
        for index, block in enumerate(blocks):
            # The copy shares all parts and calls the forward of the class, so that hooks of the block run once.
            block.forward = partial(self._compute, index, copy.copy(block))

    def holds(self, tensor: torch.Tensor) -> bool:
        """Check whether a parameter or buffer is one of those that stay in main memory."""
        return any(id(tensor) in host_block.layout for host_block in self.host_blocks)

    def release(self) -> None:
        """Free the slots on the device."""
        self.slots, self.last_index = [], NO_BLOCK

    def restore_blocks(self) -> None:
        """Let the blocks compute with their own weights again, which stay in main memory until they are moved; free the slots."""
        for block in self.blocks:
            block.__dict__.pop("forward", None)
        self.release()

    def _compute(self, index: int, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        slot, host_block = self._fetch(index), self.host_blocks[index]
        names = ((name, id(tensor)) for name, tensor in chain(block.named_parameters(), block.named_buffers()))
        weights = {name: host_block.view(slot.buffer, key) for name, key in names if key in host_block.layout}
        return torch.func.functional_call(block, weights, args, kwargs)

    def _fetch(self, index: int) -> _DeviceSlot:
        """Return the slot with a block's weights, complete, and start the copy of the next block's into the other."""
        slot = self._prepare_slot(index, exclude=None)
        self.copies.wait_for_copy(slot.copy_event)
        next_index = self._get_next_index(index)
        self.last_index = index
        if next_index is not None:
            self._prepare_slot(next_index, exclude=slot)
        return slot

    def _prepare_slot(self, index: int, exclude: _DeviceSlot | None) -> _DeviceSlot:
        if not self.slots:
            self.slots = [_DeviceSlot(max(len(each.buffer) for each in self.host_blocks), self.device) for _ in range(2)]
        for slot in self.slots:
            if slot.block_index == index:
                return slot
        # Of the two, the one that was not used last: computations with the other may still be running.
        slot = next(each for each in self.slots if each is not exclude and (exclude is not None or each.block_index != self.last_index))
        source = self.host_blocks[index].buffer
        slot.copy_event = self.copies.start_copy(slot.buffer[: len(source)], source)
        slot.block_index = index
        return slot

    def _get_next_index(self, index: int) -> int | None:
        """Return the next block: upwards in the forward pass, downwards where blocks are computed again."""
        count = len(self.host_blocks)
        if not torch.is_grad_enabled():
            return (index + 1) % count if count > 1 else None
        turns = index == self.last_index
        downwards = index < self.last_index or (turns and index == count - 1)
        next_index = index - 1 if downwards else index + 1
        return next_index if 0 <= next_index < count else None
