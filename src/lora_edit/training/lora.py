"""The edit's LoRA: added to a transformer with PEFT, initialised from the run's seed, saved and loaded bit for bit.

PEFT is imported inside functions: its import takes longer than all others together, and previews and rejected inputs do not need it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.loras.files import LayerDelta, WritableLayout, read_lora, write_lora
from lora_edit.loras.match import match_layers
from lora_edit.loras.names import build_ltx_namings, select_namings, to_original
from lora_edit.models.family import Expert
from lora_edit.seeds import create_generator
from lora_edit.training.settings import LoraSettings

ADAPTER_NAME = "edit"
DIFFUSERS_LAYOUT_MODELS = frozenset({"tiny"})
"""Models that no other program supports: their LoRA is written in diffusers' layout, which `load_lora_adapter` opens without a pipeline."""


def add_lora(expert: Expert, settings: LoraSettings, seed: int) -> dict[str, nn.Parameter]:
    """Add a new LoRA without effect (B = 0) and return its parameters by name.

    A is drawn from the run's seed, uniformly with bound 1 / sqrt(in_features) as in PEFT (`peft/tuners/lora/layer.py`).
    The adapter of an earlier edit with the same model object is removed first.
    """
    from peft import LoraConfig

    remove_lora(expert)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha or settings.rank, target_modules=expert.lora_targets[settings.targets])
    expert.transformer.add_adapter(config, adapter_name=ADAPTER_NAME)  # type: ignore[operator]
    _disable_input_cast(expert.transformer)
    parameters = get_lora_parameters(expert)
    generator = create_generator(seed, "lora")
    # PEFT places them next to the layer's weights, which may be offloaded to main memory while the model is on the device.
    device: torch.device = expert.transformer.device  # type: ignore[assignment]
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.data = parameter.data.to(device, torch.float32)
            if "lora_A" in name:
                bound = 1 / math.sqrt(parameter.shape[1])
                uniform = torch.rand(parameter.shape, generator=generator) * 2 * bound - bound
                parameter.copy_(uniform)
            else:
                parameter.zero_()
    return parameters


class _InputDtypeLinear(nn.Linear):
    """A linear layer that casts its weights to the input's dtype in each forward pass; the optimiser sees the original dtype."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Map `[..., in]` to `[..., out]`."""
        return F.linear(input, self.weight.to(input.dtype))


def _disable_input_cast(transformer: nn.Module) -> None:
    """Stop PEFT from casting each layer's input to the LoRA's float32.

    With a bfloat16 model, these copies, one per layer, are most of what a block saves for its backward pass; without them, query, key and
    value share one input.
    """
    from peft.tuners.lora import LoraLayer

    for layer in transformer.modules():
        if isinstance(layer, LoraLayer) and ADAPTER_NAME in layer.lora_A:
            layer.cast_input_dtype_enabled = False
            for pair in (layer.lora_A, layer.lora_B):
                linear = pair[ADAPTER_NAME]
                pair[ADAPTER_NAME] = replacement = _InputDtypeLinear(linear.in_features, linear.out_features, bias=False, device="meta")
                replacement.weight = linear.weight


def get_lora_parameters(expert: Expert) -> dict[str, nn.Parameter]:
    """Return the adapter's parameters by name, in the model's order."""
    return {name: parameter for name, parameter in expert.transformer.named_parameters() if "lora_" in name}


def remove_lora(expert: Expert) -> None:
    """Remove the adapter and restore the base model."""
    if ADAPTER_NAME in getattr(expert.transformer, "peft_config", {}):
        expert.transformer.delete_adapters(ADAPTER_NAME)  # type: ignore[operator]


def set_strength(expert: Expert, strength: float) -> None:
    """Set the adapter's strength at generation; has no effect without an adapter."""
    if get_lora_parameters(expert):
        expert.transformer.set_adapters(ADAPTER_NAME, strength)  # type: ignore[operator]


def save_lora(expert: Expert, path: Path, metadata: Mapping[str, str]) -> None:
    """Write one safetensors file with `metadata` in its header, in ComfyUI's layout if the model has one, else in diffusers'."""
    write_lora(path, _get_adapter_deltas(expert), choose_layout(expert), metadata)


def choose_layout(expert: Expert) -> WritableLayout:
    """Choose the layout that most programs can open for this model."""
    deltas = _get_adapter_deltas(expert)
    namings = select_namings(deltas)
    original_names = [to_original(name, namings) for name in deltas]
    if expert.name in DIFFUSERS_LAYOUT_MODELS or not all(each and len(each[1]) == 1 for each in original_names):
        return "diffusers"
    # diffusers' loader for LTX rejects the alphas of ComfyUI's layout.
    return "diffusers" if namings is build_ltx_namings() and any(delta.scale != 1 for delta in deltas.values()) else "comfyui"


def load_lora(expert: Expert, path: Path) -> None:
    """Load a file written by `save_lora` into the adapter of `add_lora`, bit for bit.

    Raises `ModelError` when the file is damaged, or has other layers, another rank or another alpha.
    """
    from peft import set_peft_model_state_dict

    matched = match_layers(read_lora(path), expert.transformer, expert.name)
    adapter_deltas, file_deltas = _get_adapter_deltas(expert), matched.deltas
    fitting = [
        name
        for name, change in adapter_deltas.items()
        if name in file_deltas and _describe_delta(file_deltas[name]) == _describe_delta(change)
    ]
    if matched.unused_layers or not len(fitting) == len(adapter_deltas) == len(file_deltas):
        expected, actual = (
            ", ".join(sorted({_describe_delta(change) for change in each.values()})) for each in (adapter_deltas, file_deltas)
        )
        raise ModelError(
            f"{path}: {len(fitting)} of the model's {len(adapter_deltas)} LoRA layers fit; it was made for other layers or settings "
            f"(found {actual} on {matched.num_layers} layers, expected {expected}); train again or give the run its own file"
        )
    state = {
        f"{name}.{key}.weight": tensor for name, each in file_deltas.items() for key, tensor in (("lora_A", each.down), ("lora_B", each.up))
    }
    set_peft_model_state_dict(expert.transformer, state, adapter_name=ADAPTER_NAME)


def _get_adapter_deltas(expert: Expert) -> dict[str, LayerDelta]:
    """Return the adapter's pairs by layer, without copying the tensors."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(expert.transformer, adapter_name=ADAPTER_NAME)
    alpha = float(expert.transformer.peft_config[ADAPTER_NAME].lora_alpha)  # type: ignore[union-attr, index]
    names = [key.removesuffix(".lora_A.weight") for key in state if key.endswith(".lora_A.weight")]
    return {name: LayerDelta(state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"], alpha) for name in names}


def _describe_delta(delta: LayerDelta) -> str:
    return f"rank {delta.rank} at scale {delta.scale:g}"
