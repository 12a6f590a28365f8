"""LoRAs by others, applied in addition to the edit's own at generation only, through hooks that leave the model unchanged."""

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

from lora_edit.loras.files import LayerDelta, LoraFile, read_lora, read_lora_shapes
from lora_edit.loras.layouts import LAYOUTS, format_layer_pattern
from lora_edit.loras.match import collect_linear_sizes, match_layers
from lora_edit.models.family import Family, load_meta_transformer
from lora_edit.provenance.content_hash import hash_file

WeightedLoraPaths = Sequence[tuple[Path, float]]
"""Files and their strengths, in any order; their deltas add up."""


@dataclass(frozen=True)
class ExtraLora:
    """A LoRA that matches the model, with its strength."""

    path: Path
    strength: float
    sha256: str
    layout: str
    num_matched: int
    num_layers: int
    unused_layers: tuple[str, ...]
    deltas: dict[str, LayerDelta] = field(repr=False)
    expert: str = ""
    """Name of the expert that it acts on; all experts when empty."""

    def to_json(self) -> dict[str, object]:
        """Return the LoRA's entry in the run's manifest."""
        return {
            "file": str(self.path),
            "sha256": self.sha256,
            "strength": self.strength,
            "layout": self.layout,
            "layers": f"{self.num_matched} of {self.num_layers}",
            **({"expert": self.expert} if self.expert else {}),
        }

    def describe_unused_layers(self) -> str | None:
        """Describe the layers that the model lacks; None without any."""
        if not self.unused_layers:
            return None
        listed = ", ".join(self.unused_layers[:4]) + (", ..." if len(self.unused_layers) > 4 else "")
        return f"{self.path.name}: {self.num_matched} of its {self.num_layers} layers are in this model; not used: {listed}"


def check_extra_loras(lora_paths: WeightedLoraPaths, model: str) -> WeightedLoraPaths:
    """Raise `ModelError` for files that are not LoRAs for this model, from their headers and the model's shapes, before it is loaded."""
    files = [read_lora_shapes(path) for path, _ in lora_paths]
    transformer = load_meta_transformer(model) if files else None
    if transformer is not None:
        for file in files:
            match_layers(file, transformer, model)
    return lora_paths


def load_extra_loras(family: Family, lora_paths: WeightedLoraPaths, report: Callable[[str], None]) -> list[ExtraLora]:
    """Read the LoRAs and match them with the model without changing it; `report` is called with notes. Raises `ModelError`."""
    loras: list[ExtraLora] = []
    experts = family.experts()
    for path, strength in lora_paths:
        file = read_lora(path)
        match = match_layers(file, experts[0].transformer, family.name)
        unused_layers = (*match.unused_layers, *sorted({format_layer_pattern(key) for key in file.ignored_keys}))
        part = infer_expert(file, [expert.part for expert in experts])
        lora = ExtraLora(
            path, strength, hash_file(path), LAYOUTS[file.layout], match.num_matched, match.num_layers, unused_layers, match.deltas, part
        )
        loras.append(lora)
        if note := lora.describe_unused_layers():
            report(note)
        if len(experts) > 1 and not part:
            report(f"{path.name}: neither its header nor its name specifies an expert; it acts on both")
    return loras


def infer_expert(file: LoraFile, experts: Sequence[str]) -> str:
    """Infer a file's expert from its header if this package wrote it, else from its name ("high_noise", "HighNoise", "low"), else ""."""
    stated = file.metadata.get("expert", "")
    words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", file.path.stem).lower())
    matches = [part for part in experts if part and not {part, part.partition("-")[0], part.replace("-", "")}.isdisjoint(words)]
    return stated if stated in experts else matches[0] if len(matches) == 1 else ""


@contextmanager
def activate_loras(family: Family, loras: Sequence[ExtraLora]) -> Iterator[None]:
    """Apply the LoRAs to every forward pass inside the block; afterwards the model's output is restored bit for bit.

    Deltas are not merged into linear layers, so that quantised and offloaded models are supported. The edit's own LoRA is not changed.
    """
    with ExitStack() as exit_stack:
        for expert, lora in product(family.experts(), loras):
            if lora.strength and lora.expert in ("", expert.part):
                _activate_lora(expert.transformer, lora, exit_stack)
        yield


def _activate_lora(transformer: nn.Module, lora: ExtraLora, exit_stack: ExitStack) -> None:
    linears = collect_linear_sizes(transformer)
    for name, delta in lora.deltas.items():
        if name in linears:
            exit_stack.callback(_add_hook(transformer.get_submodule(name), delta, lora.strength).remove)
        else:
            _add_parameter_deltas(transformer, name, delta, lora.strength, exit_stack)


def _add_hook(layer: nn.Module, delta: LayerDelta, strength: float) -> RemovableHandle:
    current = [delta]

    def add_delta(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if current[0].list_tensors()[0].device != args[0].device:
            current[0] = _move_to_device(delta, args[0].device)
        return output + strength * _compute_output_delta(current[0], args[0]).to(output.dtype)

    return layer.register_forward_hook(add_delta)


def _move_to_device(delta: LayerDelta, device: torch.device) -> LayerDelta:
    names = ("down", "up", "up_bias", "diff", "diff_bias")
    tensors: dict[str, torch.Tensor | None] = {name: getattr(delta, name) for name in names}
    return LayerDelta(alpha=delta.alpha, **{name: None if tensor is None else tensor.to(device) for name, tensor in tensors.items()})


def _compute_output_delta(delta: LayerDelta, x: torch.Tensor) -> torch.Tensor:
    """Compute the delta of a linear layer's output in the file's precision, or in the input's if the file's does not support it."""
    stored_dtype = delta.list_tensors()[0].dtype
    dtype = stored_dtype if stored_dtype in (torch.float32, torch.float16, torch.bfloat16) else x.dtype
    x = x.to(dtype)
    total = torch.zeros((), dtype=dtype, device=x.device)
    if delta.down is not None and delta.up is not None:
        bias = None if delta.up_bias is None else delta.up_bias.to(dtype)
        total = total + delta.scale * F.linear(F.linear(x, delta.down.to(dtype)), delta.up.to(dtype), bias)
    if delta.diff is not None:
        total = total + F.linear(x, delta.diff.to(dtype))
    return total if delta.diff_bias is None else total + delta.diff_bias.to(dtype)


def _add_parameter_deltas(transformer: nn.Module, name: str, delta: LayerDelta, strength: float, exit_stack: ExitStack) -> None:
    """Add full differences to a layer that is not linear (a norm, a table), and register their removal on `exit_stack`."""
    parameters = dict(transformer.named_parameters())
    weight = parameters.get(f"{name}.weight", parameters.get(name))
    for parameter, diff in ((weight, delta.diff), (parameters.get(f"{name}.bias"), delta.diff_bias)):
        if parameter is not None and diff is not None:
            exit_stack.callback(setattr, parameter, "data", parameter.data)
            parameter.data = parameter.data + (strength * diff.to(parameter.device, torch.float32)).to(parameter.dtype)
