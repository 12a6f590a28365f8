"""The LoRA: put into a transformer by PEFT, initialised from the run's seed, saved and loaded bit for bit.

PEFT is imported where it is used: it takes longer to load than everything else together, and a preview or a refused input needs none of it.
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
from lora_edit.loras.names import to_original
from lora_edit.models.family import Expert
from lora_edit.seeds import create_generator
from lora_edit.training.settings import LoraSettings

ADAPTER_NAME = "edit"
DIFFUSERS_LAYOUT_MODELS = frozenset({"tiny"})
"""Models that no other program has: their LoRA stays in diffusers' layout, which `load_lora_adapter` opens without a pipeline."""


def add_lora(expert: Expert, settings: LoraSettings, seed: int) -> dict[str, nn.Parameter]:
    """Insert a fresh LoRA that changes nothing yet (B = 0) and return its parameters by name.

    A is drawn from the run's seed, uniformly with bound 1 / sqrt(in_features) as PEFT does (`peft/tuners/lora/layer.py`).
    An adapter left from an earlier edit with the same model object is removed first.
    """
    from peft import LoraConfig

    remove_lora(expert)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha or settings.rank, target_modules=expert.lora_targets[settings.targets])
    expert.transformer.add_adapter(config, adapter_name=ADAPTER_NAME)  # type: ignore[operator]
    _disable_input_cast(expert.transformer)
    parameters = get_lora_parameters(expert)
    generator = create_generator(seed, "lora")
    # PEFT puts them beside the layer's own weights, which may wait in main memory while the model is on the device.
    device: torch.device = expert.transformer.device  # type: ignore[assignment]
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.data = parameter.data.to(device, torch.float32)
            if "lora_A" in name:
                bound = 1 / math.sqrt(parameter.shape[1])
                drawn = torch.rand(parameter.shape, generator=generator) * 2 * bound - bound
                parameter.copy_(drawn)
            else:
                parameter.zero_()
    return parameters


class _InputDtypeLinear(nn.Linear):
    """A linear layer whose weights take their input's number format for each pass, and keep their own for the optimiser."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """`[..., in]` to `[..., out]`."""
        return F.linear(input, self.weight.to(input.dtype))


def _disable_input_cast(transformer: nn.Module) -> None:
    """Stop PEFT from turning each layer's input into the LoRA's float32: in bfloat16 those copies, one for each layer, are most of what a
    block keeps for its backward pass, where query, key and value can share one."""
    from peft.tuners.lora import LoraLayer

    for layer in transformer.modules():
        if isinstance(layer, LoraLayer) and ADAPTER_NAME in layer.lora_A:
            layer.cast_input_dtype_enabled = False
            for pair in (layer.lora_A, layer.lora_B):
                plain = pair[ADAPTER_NAME]
                pair[ADAPTER_NAME] = mixed = _InputDtypeLinear(plain.in_features, plain.out_features, bias=False, device="meta")
                mixed.weight = plain.weight


def get_lora_parameters(expert: Expert) -> dict[str, nn.Parameter]:
    """The adapter's parameters in the model's order."""
    return {name: parameter for name, parameter in expert.transformer.named_parameters() if "lora_" in name}


def remove_lora(expert: Expert) -> None:
    """Take the adapter out, leaving the base model as it was loaded."""
    if ADAPTER_NAME in getattr(expert.transformer, "peft_config", {}):
        expert.transformer.delete_adapters(ADAPTER_NAME)  # type: ignore[operator]


def set_strength(expert: Expert, strength: float) -> None:
    """Scale the adapter's effect, for generation; without an adapter nothing changes."""
    if get_lora_parameters(expert):
        expert.transformer.set_adapters(ADAPTER_NAME, strength)  # type: ignore[operator]


def save_lora(expert: Expert, path: Path, metadata: Mapping[str, str]) -> None:
    """Write one safetensors file with `metadata` in its header, in ComfyUI's layout where the model has one, else in diffusers'."""
    write_lora(path, _get_adapter_deltas(expert), choose_layout(expert), metadata)


def choose_layout(expert: Expert) -> WritableLayout:
    """The layout that most programs open for this model."""
    found = [to_original(name) for name in _get_adapter_deltas(expert)]
    return "comfyui" if expert.name not in DIFFUSERS_LAYOUT_MODELS and all(each and len(each[1]) == 1 for each in found) else "diffusers"


def load_lora(expert: Expert, path: Path) -> None:
    """Read a file written by `save_lora` into the adapter that `add_lora` made, bit for bit.

    Raises `ModelError` when the file is damaged, or was made for other layers, another rank or another alpha.
    """
    from peft import set_peft_model_state_dict

    matched = match_layers(read_lora(path), expert.transformer, expert.name)
    own, found = _get_adapter_deltas(expert), matched.deltas
    fitting = [name for name, change in own.items() if name in found and _describe_delta(found[name]) == _describe_delta(change)]
    if matched.unused_layers or not len(fitting) == len(own) == len(found):
        wanted, given = (", ".join(sorted({_describe_delta(change) for change in each.values()})) for each in (own, found))
        raise ModelError(
            f"{path}: {len(fitting)} of the model's {len(own)} LoRA layers fit; it was made for other layers or settings "
            f"(found {given} on {matched.num_layers} layers, expected {wanted}); train again or give the run its own file"
        )
    state = {f"{name}.{key}.weight": tensor for name, each in found.items() for key, tensor in (("lora_A", each.down), ("lora_B", each.up))}
    set_peft_model_state_dict(expert.transformer, state, adapter_name=ADAPTER_NAME)


def _get_adapter_deltas(expert: Expert) -> dict[str, LayerDelta]:
    """The adapter's pairs by layer: the live tensors."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(expert.transformer, adapter_name=ADAPTER_NAME)
    alpha = float(expert.transformer.peft_config[ADAPTER_NAME].lora_alpha)  # type: ignore[union-attr, index]
    names = [key.removesuffix(".lora_A.weight") for key in state if key.endswith(".lora_A.weight")]
    return {name: LayerDelta(state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"], alpha) for name in names}


def _describe_delta(delta: LayerDelta) -> str:
    return f"rank {delta.rank} at scale {delta.scale:g}"
