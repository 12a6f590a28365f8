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

from lora_edit.devices import Copied, Copies, transfer_memory

ALIGNMENT = 256
"""Bytes; where tensors begin within a block's piece."""

HELD = "_held_in_main_memory"
"""Marks tensors that stay there."""

BEFORE = -2
"""No block was asked yet."""


def blocks_of(transformer: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a diffusers transformer, in the order in which it asks them."""
    return [block for name in block_lists(transformer) for block in getattr(transformer, name)]


def block_lists(transformer: nn.Module) -> dict[str, int]:
    """The transformer's lists of repeated blocks by name, and how many each has."""
    return {name: len(child) for name, child in transformer.named_children() if isinstance(child, nn.ModuleList)}


def spread(count: int, chosen: int) -> list[int]:
    """`chosen` of `count` blocks, evenly, so that copies have the computation of those between to hide behind."""
    chosen = min(chosen, count)
    return sorted({(number * count + count // 2) // chosen for number in range(chosen)}) if chosen else []


def stream_blocks(transformer: nn.Module, device: torch.device, swapped: int) -> None:
    """Keep `swapped` blocks in main memory (all of them if there are fewer) and copy them to the device when they are asked.

    Switches gradient checkpointing on. May be called again with another number; `bring` moves what is not held.
    """
    _end_stream(transformer)
    blocks = blocks_of(transformer)
    chosen = [blocks[number] for number in spread(len(blocks), swapped)]
    if chosen:
        if not getattr(transformer, "is_gradient_checkpointing", False):
            transformer.enable_gradient_checkpointing()  # type: ignore[operator]
        transformer._stream = BlockStream(chosen, device)  # type: ignore[assignment]


def _end_stream(transformer: nn.Module) -> None:
    """The blocks compute with their own weights again, which lie in main memory until they are brought to the device."""
    if stream := stream_of(transformer):
        for block in blocks_of(transformer):
            block.__dict__.pop("forward", None)
            for tensor in chain(block.parameters(), block.buffers()):
                if hasattr(tensor, HELD):
                    delattr(tensor, HELD)
        stream.release()
        del transformer._stream


def stream_of(transformer: nn.Module) -> BlockStream | None:
    """The transformer's stream, where blocks of it are held in main memory."""
    stream: BlockStream | None = getattr(transformer, "_stream", None)
    return stream


def park_hidden_states(transformer: nn.Module) -> None:
    """Let the hidden states between blocks, which training keeps for the backward pass, wait in main memory."""
    transformer.enable_gradient_checkpointing(gradient_checkpointing_func=_parked)  # type: ignore[operator]
    transformer._parks = True  # type: ignore[assignment]


def parks(transformer: nn.Module) -> bool:
    """Do hidden states wait in main memory?"""
    return bool(getattr(transformer, "_parks", False))


def _parked(block: nn.Module, hidden: torch.Tensor, *args: Any) -> Any:
    """A checkpointed block whose first argument is kept elsewhere; the others are the same for all blocks."""

    def away(tensor: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.device]:
        if tensor.data_ptr() != hidden.data_ptr() or tensor.shape != hidden.shape:
            return tensor
        place = transfer_memory(tensor.nbytes, tensor.device).view(tensor.dtype).view(tensor.shape)
        return place.copy_(tensor, non_blocking=True), tensor.device

    def back(kept: torch.Tensor | tuple[torch.Tensor, torch.device]) -> torch.Tensor:
        return kept if isinstance(kept, torch.Tensor) else kept[0].to(kept[1], non_blocking=True)

    # The block's own tensors are checkpoint's to keep, which saves its arguments before it takes over.
    with torch.autograd.graph.saved_tensors_hooks(away, back):
        return checkpoint(block, hidden, *args, use_reentrant=False)


def bring(module: nn.Module, device: torch.device) -> None:
    """`module.to(device)` but for what is held in main memory; leaving the device, room for streamed blocks is given back."""
    stream = stream_of(module)
    if stream is None:
        module.to(device)
        return
    module._apply(lambda tensor: tensor if hasattr(tensor, HELD) else tensor.to(device))  # type: ignore[no-untyped-call]
    if device != stream.device:
        stream.release()


class _Piece:
    """A block's frozen tensors in one piece of main memory, of which the block's own are now views."""

    def __init__(self, block: nn.Module, device: torch.device) -> None:
        tensors = list(chain((each for each in block.parameters() if not each.requires_grad), block.buffers()))
        starts, total = [], 0
        for tensor in tensors:
            starts.append(total)
            total += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        self.bytes = transfer_memory(total, device)
        self.places = {id(tensor): (start, tensor.dtype, tensor.shape) for start, tensor in zip(starts, tensors, strict=True)}
        for tensor in tensors:
            view = self.view(self.bytes, id(tensor))
            view.copy_(tensor.data)
            tensor.data = view
            setattr(tensor, HELD, True)

    def view(self, where: torch.Tensor, name: int) -> torch.Tensor:
        """The tensor of that identity, within a copy of this piece."""
        start, dtype, shape = self.places[name]
        return where[start : start + shape.numel() * dtype.itemsize].view(dtype).view(shape)


class _Slot:
    """Room for one block on the device; `number` is whose weights it holds or is about to, `ready` when they are there."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.bytes = torch.empty(size, dtype=torch.uint8, device=device)
        self.number = -1
        self.ready: Copied = None


class BlockStream:
    """Blocks that compute with weights from two slots in turns. Serves training and, without gradients, sampling."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self.device, self.copies = device, Copies(device)
        self.pieces = [_Piece(block, device) for block in blocks]
        self.slots: list[_Slot] = []
        self.last = BEFORE
        for number, block in enumerate(blocks):
            # A copy that shares all parts, but calls the class's own forward: what hangs on the block's own is not called twice.
            block.forward = partial(self._compute, number, copy.copy(block))

    def release(self) -> None:
        """Give the slots' room back."""
        self.slots, self.last = [], BEFORE

    def _compute(self, number: int, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        slot, piece = self._fetch(number), self.pieces[number]
        names = ((name, id(tensor)) for name, tensor in chain(block.named_parameters(), block.named_buffers()))
        given = {name: piece.view(slot.bytes, key) for name, key in names if key in piece.places}
        return torch.func.functional_call(block, given, args, kwargs)

    def _fetch(self, number: int) -> _Slot:
        """The slot with a block's weights, complete; the next one's are on their way into the other."""
        slot = self._slot(number, other_than=None)
        self.copies.finish(slot.ready)
        following = self._following(number)
        self.last = number
        if following is not None:
            self._slot(following, other_than=slot)
        return slot

    def _slot(self, number: int, other_than: _Slot | None) -> _Slot:
        if not self.slots:
            self.slots = [_Slot(max(len(piece.bytes) for piece in self.pieces), self.device) for _ in range(2)]
        for slot in self.slots:
            if slot.number == number:
                return slot
        # Of the two, the one that was not used last: what computes with that may still be running.
        slot = next(each for each in self.slots if each is not other_than and (other_than is not None or each.number != self.last))
        source = self.pieces[number].bytes
        slot.ready = self.copies.start(slot.bytes[: len(source)], source)
        slot.number = number
        return slot

    def _following(self, number: int) -> int | None:
        """Which block is asked next: upwards in the forward pass, downwards where blocks are computed again."""
        count = len(self.pieces)
        if not torch.is_grad_enabled():
            return (number + 1) % count if count > 1 else None
        turns = number == self.last
        downwards = number < self.last or (turns and number == count - 1)
        following = number - 1 if downwards else number + 1
        return following if 0 <= following < count else None
