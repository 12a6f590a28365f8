"""Other people's LoRAs beside the edit's own, at generation only: they act through hooks and leave no trace in the model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from lora_edit.loras.files import Change, LoraFile, read_lora, sketch_lora
from lora_edit.loras.header import file_hash
from lora_edit.loras.layouts import LAYOUTS, layer_pattern
from lora_edit.loras.match import linear_sizes, match
from lora_edit.models.family import Family, load_outline

Chosen = Sequence[tuple[Path, float]]
"""Files and their strengths, in any order: their changes add up."""


@dataclass(frozen=True)
class Stacked:
    """One LoRA that fits the model, and how strongly it will act."""

    path: Path
    strength: float
    sha256: str
    layout: str
    matched: int
    total: int
    unused: tuple[str, ...]
    changes: dict[str, Change] = field(repr=False)
    part: str = ""
    """The expert that it acts on, by name; all of them when empty."""

    def to_json(self) -> dict[str, object]:
        """What the run's manifest keeps of it."""
        return {
            "file": str(self.path),
            "sha256": self.sha256,
            "strength": self.strength,
            "layout": self.layout,
            "layers": f"{self.matched} of {self.total}",
            **({"expert": self.part} if self.part else {}),
        }

    def note(self) -> str | None:
        """What a person should know: which layers the model does not have."""
        if not self.unused:
            return None
        shown = ", ".join(self.unused[:4]) + (", ..." if len(self.unused) > 4 else "")
        return f"{self.path.name}: {self.matched} of its {self.total} layers are in this model; not used: {shown}"


def check_files(chosen: Chosen, model: str) -> Chosen:
    """Raise `ModelError` for files that are no LoRAs or none for this model, from their headers and the model's shapes, before it loads."""
    sketches = [sketch_lora(path) for path, _ in chosen]
    outline = load_outline(model) if sketches else None
    if outline is not None:
        for sketch in sketches:
            match(sketch, outline, model)
    return chosen


def read_stack(family: Family, chosen: Chosen, tell: Callable[[str], None]) -> list[Stacked]:
    """Read the LoRAs and fit them to the model, which stays as it is; `tell` is called with remarks. Raises `ModelError`."""
    stack: list[Stacked] = []
    experts = family.experts()
    for path, strength in chosen:
        file = read_lora(path)
        found = match(file, experts[0].transformer, family.name)
        unused = (*found.unused, *sorted({layer_pattern(key) for key in file.ignored}))
        part = _part_for(file, [expert.part for expert in experts])
        each = Stacked(path, strength, file_hash(path), LAYOUTS[file.layout], found.matched, found.total, unused, found.changes, part)
        stack.append(each)
        if note := each.note():
            tell(note)
        if len(experts) > 1 and not part:
            tell(f"{path.name}: neither its header nor its name says for which expert it is; it acts on both")
    return stack


def _part_for(file: LoraFile, parts: Sequence[str]) -> str:
    """The expert that a file was made for: by its header if we wrote it, else by its name ("high_noise", "HighNoise", "low"); else ""."""
    stated = file.metadata.get("expert", "")
    words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", file.path.stem).lower())
    named = [part for part in parts if part and not {part, part.partition("-")[0], part.replace("-", "")}.isdisjoint(words)]
    return stated if stated in parts else named[0] if len(named) == 1 else ""


@contextmanager
def acting(family: Family, stack: Sequence[Stacked]) -> Iterator[None]:
    """Let the LoRAs act on every forward pass inside the block; afterwards the model computes what it did before, bit for bit.

    Nothing is merged into the weights, so that it works on quantised and offloaded bases too, and the edit's own LoRA is left alone.
    """
    with ExitStack() as undo:
        for expert, each in product(family.experts(), stack):
            if each.strength and each.part in ("", expert.part):
                _act(expert.transformer, each, undo)
        yield


def _act(transformer: nn.Module, stacked: Stacked, undo: ExitStack) -> None:
    linears = linear_sizes(transformer)
    for name, change in stacked.changes.items():
        if name in linears:
            undo.callback(_hook(transformer.get_submodule(name), change, stacked.strength).remove)
        else:
            _shift(transformer, name, change, stacked.strength, undo)


def _hook(layer: nn.Module, change: Change, strength: float) -> RemovableHandle:
    moved = [change]

    def add(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if moved[0].tensors()[0].device != args[0].device:
            moved[0] = _to(change, args[0].device)
        return output + strength * _contribution(moved[0], args[0]).to(output.dtype)

    return layer.register_forward_hook(add)


def _to(change: Change, device: torch.device) -> Change:
    names = ("down", "up", "up_bias", "diff", "diff_bias")
    given: dict[str, torch.Tensor | None] = {name: getattr(change, name) for name in names}
    return Change(alpha=change.alpha, **{name: None if tensor is None else tensor.to(device) for name, tensor in given.items()})


def _contribution(change: Change, x: torch.Tensor) -> torch.Tensor:
    """What the change adds to a linear layer's output, computed in the file's precision (or the input's, for what cannot be multiplied)."""
    kept = change.tensors()[0].dtype
    dtype = kept if kept in (torch.float32, torch.float16, torch.bfloat16) else x.dtype
    x = x.to(dtype)
    total = torch.zeros((), dtype=dtype, device=x.device)
    if change.down is not None and change.up is not None:
        bias = None if change.up_bias is None else change.up_bias.to(dtype)
        total = total + change.scale * F.linear(F.linear(x, change.down.to(dtype)), change.up.to(dtype), bias)
    if change.diff is not None:
        total = total + F.linear(x, change.diff.to(dtype))
    return total if change.diff_bias is None else total + change.diff_bias.to(dtype)


def _shift(transformer: nn.Module, name: str, change: Change, strength: float, undo: ExitStack) -> None:
    """Add full differences to a layer that is not linear (a norm, a table), and have them taken back."""
    parameters = dict(transformer.named_parameters())
    weight = parameters.get(f"{name}.weight", parameters.get(name))
    for parameter, diff in ((weight, change.diff), (parameters.get(f"{name}.bias"), change.diff_bias)):
        if parameter is not None and diff is not None:
            undo.callback(setattr, parameter, "data", parameter.data)
            parameter.data = parameter.data + (strength * diff.to(parameter.device, torch.float32)).to(parameter.dtype)
