"""A transformer on a device that cannot hold it: blocks wait in main memory and are copied over one ahead of their use.

Only frozen weights move, and only towards the device; what is trained stays there, with the optimiser. Blocks have to be computed again in
the backward pass (gradient checkpointing), as their weights are gone by then: they are fetched a second time, in reverse order. A block's
weights lie in one piece, so that a copy is one transfer from page-locked memory, beside the computation. The room on the device is two
blocks'. Where the blocks are in 8 bits (`storage.py`), so are the copies.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lora_edit.devices import AsyncCopier, CopyEvent, allocate_transfer_buffer

ALIGNMENT = 256
"""Bytes; where tensors begin within a block's piece."""

HOST_MEMORY_FLAG = "_held_in_main_memory"
"""Marks tensors that stay there."""

NO_BLOCK = -2
"""No block was asked yet."""


def get_blocks(transformer: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a diffusers transformer, in the order in which it asks them."""
    return [block for name in count_blocks_by_list(transformer) for block in getattr(transformer, name)]


def count_blocks_by_list(transformer: nn.Module) -> dict[str, int]:
    """The transformer's lists of repeated blocks by name, and how many each has."""
    return {name: len(child) for name, child in transformer.named_children() if isinstance(child, nn.ModuleList)}


def choose_evenly_spaced(count: int, num_chosen: int) -> list[int]:
    """`chosen` of `count` blocks, evenly, so that copies have the computation of those between to hide behind."""
    num_chosen = min(num_chosen, count)
    return sorted({(number * count + count // 2) // num_chosen for number in range(num_chosen)}) if num_chosen else []


def enable_block_swap(transformer: nn.Module, device: torch.device, blocks_to_swap: int) -> None:
    """Keep `swapped` blocks in main memory (all of them if there are fewer) and copy them to the device when they are asked.

    Switches gradient checkpointing on. May be called again with another number; `bring` moves what is not held.
    """
    _disable_block_swap(transformer)
    blocks = get_blocks(transformer)
    chosen = [blocks[number] for number in choose_evenly_spaced(len(blocks), blocks_to_swap)]
    if chosen:
        if not getattr(transformer, "is_gradient_checkpointing", False):
            transformer.enable_gradient_checkpointing()  # type: ignore[operator]
        transformer._stream = BlockSwapper(chosen, device)  # type: ignore[assignment]


def _disable_block_swap(transformer: nn.Module) -> None:
    """The blocks compute with their own weights again, which lie in main memory until they are brought to the device."""
    if stream := get_block_swapper(transformer):
        for block in get_blocks(transformer):
            block.__dict__.pop("forward", None)
            for tensor in chain(block.parameters(), block.buffers()):
                if hasattr(tensor, HOST_MEMORY_FLAG):
                    delattr(tensor, HOST_MEMORY_FLAG)
        stream.release()
        del transformer._stream


def get_block_swapper(transformer: nn.Module) -> BlockSwapper | None:
    """The transformer's stream, where blocks of it are held in main memory."""
    stream: BlockSwapper | None = getattr(transformer, "_stream", None)
    return stream


def offload_activations(transformer: nn.Module) -> None:
    """Let the hidden states between blocks, which training keeps for the backward pass, wait in main memory."""
    transformer.enable_gradient_checkpointing(gradient_checkpointing_func=_checkpoint_with_offload)  # type: ignore[operator]
    transformer._parks = True  # type: ignore[assignment]


def offloads_activations(transformer: nn.Module) -> bool:
    """Do hidden states wait in main memory?"""
    return bool(getattr(transformer, "_parks", False))


def _checkpoint_with_offload(block: nn.Module, hidden: torch.Tensor, *args: Any) -> Any:
    """A checkpointed block whose first argument is kept elsewhere; the others are the same for all blocks."""

    def away(tensor: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.device]:
        if tensor.data_ptr() != hidden.data_ptr() or tensor.shape != hidden.shape:
            return tensor
        place = allocate_transfer_buffer(tensor.nbytes, tensor.device).view(tensor.dtype).view(tensor.shape)
        return place.copy_(tensor, non_blocking=True), tensor.device

    def back(kept: torch.Tensor | tuple[torch.Tensor, torch.device]) -> torch.Tensor:
        return kept if isinstance(kept, torch.Tensor) else kept[0].to(kept[1], non_blocking=True)

    # The block's own tensors are checkpoint's to keep, which saves its arguments before it takes over.
    with torch.autograd.graph.saved_tensors_hooks(away, back):
        return checkpoint(block, hidden, *args, use_reentrant=False)


def move_to_device(module: nn.Module, device: torch.device) -> None:
    """`module.to(device)` but for what is held in main memory; leaving the device, room for streamed blocks is given back."""
    stream = get_block_swapper(module)
    if stream is None:
        module.to(device)
        return
    module._apply(lambda tensor: tensor if hasattr(tensor, HOST_MEMORY_FLAG) else tensor.to(device))  # type: ignore[no-untyped-call]
    if device != stream.device:
        stream.release()


class _HostBlock:
    """A block's frozen tensors in one piece of main memory, of which the block's own are now views."""

    def __init__(self, block: nn.Module, device: torch.device) -> None:
        tensors = list(chain((each for each in block.parameters() if not each.requires_grad), block.buffers()))
        starts, total = [], 0
        for tensor in tensors:
            starts.append(total)
            total += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        self.buffer = allocate_transfer_buffer(total, device)
        self.layout = {id(tensor): (start, tensor.dtype, tensor.shape) for start, tensor in zip(starts, tensors, strict=True)}
        for tensor in tensors:
            view = self.view(self.buffer, id(tensor))
            view.copy_(tensor.data)
            tensor.data = view
            setattr(tensor, HOST_MEMORY_FLAG, True)

    def view(self, buffer: torch.Tensor, tensor_id: int) -> torch.Tensor:
        """The tensor of that identity, within a copy of this piece."""
        start, dtype, shape = self.layout[tensor_id]
        return buffer[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)


class _DeviceSlot:
    """Room for one block on the device; `number` is whose weights it holds or is about to, `ready` when they are there."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.buffer = torch.empty(size, dtype=torch.uint8, device=device)
        self.block_index = -1
        self.copy_event: CopyEvent = None


class BlockSwapper:
    """Blocks that compute with weights from two slots in turns. Serves training and, without gradients, sampling."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self.device, self.copies = device, AsyncCopier(device)
        self.host_blocks = [_HostBlock(block, device) for block in blocks]
        self.slots: list[_DeviceSlot] = []
        self.last_index = NO_BLOCK
        for number, block in enumerate(blocks):
            # A copy that shares all parts, but calls the class's own forward: what hangs on the block's own is not called twice.
            block.forward = partial(self._compute, number, copy.copy(block))

    def release(self) -> None:
        """Give the slots' room back."""
        self.slots, self.last_index = [], NO_BLOCK

    def _compute(self, index: int, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        slot, piece = self._fetch(index), self.host_blocks[index]
        names = ((name, id(tensor)) for name, tensor in chain(block.named_parameters(), block.named_buffers()))
        given = {name: piece.view(slot.buffer, key) for name, key in names if key in piece.layout}
        return torch.func.functional_call(block, given, args, kwargs)

    def _fetch(self, index: int) -> _DeviceSlot:
        """The slot with a block's weights, complete; the next one's are on their way into the other."""
        slot = self._prepare_slot(index, exclude=None)
        self.copies.wait_for_copy(slot.copy_event)
        following = self._get_next_index(index)
        self.last_index = index
        if following is not None:
            self._prepare_slot(following, exclude=slot)
        return slot

    def _prepare_slot(self, index: int, exclude: _DeviceSlot | None) -> _DeviceSlot:
        if not self.slots:
            self.slots = [_DeviceSlot(max(len(piece.buffer) for piece in self.host_blocks), self.device) for _ in range(2)]
        for slot in self.slots:
            if slot.block_index == index:
                return slot
        # Of the two, the one that was not used last: what computes with that may still be running.
        slot = next(each for each in self.slots if each is not exclude and (exclude is not None or each.block_index != self.last_index))
        source = self.host_blocks[index].buffer
        slot.copy_event = self.copies.start_copy(slot.buffer[: len(source)], source)
        slot.block_index = index
        return slot

    def _get_next_index(self, index: int) -> int | None:
        """Which block is asked next: upwards in the forward pass, downwards where blocks are computed again."""
        count = len(self.host_blocks)
        if not torch.is_grad_enabled():
            return (index + 1) % count if count > 1 else None
        turns = index == self.last_index
        downwards = index < self.last_index or (turns and index == count - 1)
        following = index - 1 if downwards else index + 1
        return following if 0 <= following < count else None
