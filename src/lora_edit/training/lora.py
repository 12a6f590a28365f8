"""The LoRA: put into a transformer by PEFT, initialised from the run's seed, saved and loaded bit for bit."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.family import Expert
from lora_edit.seeds import named_generator
from lora_edit.training.settings import LoraSettings

ADAPTER = "edit"
_PREFIX = "transformer."


def add_lora(expert: Expert, settings: LoraSettings, seed: int) -> dict[str, nn.Parameter]:
    """Insert a fresh LoRA that changes nothing yet (B = 0) and return its parameters by name.

    A is drawn from the run's seed, uniformly with bound 1 / sqrt(in_features) as PEFT does (`peft/tuners/lora/layer.py`).
    An adapter left from an earlier edit with the same model object is removed first.
    """
    remove_lora(expert)
    config = LoraConfig(r=settings.rank, lora_alpha=settings.alpha or settings.rank, target_modules=expert.lora_targets[settings.targets])
    expert.transformer.add_adapter(config, adapter_name=ADAPTER)  # type: ignore[operator]
    parameters = lora_parameters(expert)
    generator = named_generator(seed, "lora")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.data = parameter.data.float()
            if "lora_A" in name:
                bound = 1 / math.sqrt(parameter.shape[1])
                drawn = torch.rand(parameter.shape, generator=generator) * 2 * bound - bound
                parameter.copy_(drawn)
            else:
                parameter.zero_()
    return parameters


def lora_parameters(expert: Expert) -> dict[str, nn.Parameter]:
    """The adapter's parameters in the model's order."""
    return {name: parameter for name, parameter in expert.transformer.named_parameters() if "lora_" in name}


def remove_lora(expert: Expert) -> None:
    """Take the adapter out, leaving the base model as it was loaded."""
    if ADAPTER in getattr(expert.transformer, "peft_config", {}):
        expert.transformer.delete_adapters(ADAPTER)  # type: ignore[operator]


def set_strength(expert: Expert, strength: float) -> None:
    """How strongly the adapter acts at generation."""
    expert.transformer.set_adapters(ADAPTER, strength)  # type: ignore[operator]


def save_lora(expert: Expert, path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file that diffusers' `load_lora_weights` opens, with its PEFT settings and `metadata` in the header."""
    state = get_peft_model_state_dict(expert.transformer, adapter_name=ADAPTER)
    config = expert.transformer.peft_config[ADAPTER].to_dict()  # type: ignore[union-attr, index]
    header = {"format": "pt", "lora_adapter_metadata": json.dumps({f"{_PREFIX}{k}": _plain(v) for k, v in config.items()}, sort_keys=True)}
    tensors = {_PREFIX + k: v.detach().contiguous().cpu().clone() for k, v in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(_in_order(save(tensors, metadata=header | metadata)))
    part.replace(path)


def load_lora(expert: Expert, path: Path) -> None:
    """Read a file written by `save_lora` into the adapter that `add_lora` made.

    Raises `ModelError` when the file is damaged, or was made for other layers or another rank.
    """
    try:
        with safe_open(path, framework="pt") as file:
            state = {key.removeprefix(_PREFIX): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a readable LoRA file ({error}); train again or restore it from a copy") from error
    own = get_peft_model_state_dict(expert.transformer, adapter_name=ADAPTER)
    fitting = {k for k, v in state.items() if k in own and own[k].shape == v.shape}
    if len(fitting) != len(own) or len(state) != len(own):
        raise ModelError(f"{path}: {len(fitting)} of the model's {len(own)} LoRA tensors fit; it was made for another model or rank")
    set_peft_model_state_dict(expert.transformer, state, adapter_name=ADAPTER)


def _in_order(raw: bytes) -> bytes:
    """The same safetensors file with its header's keys sorted: the library writes metadata in another order each time."""
    length = int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8 : 8 + length]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + raw[8 + length :]


def _plain(value: object) -> object:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value if isinstance(value, str | int | float | bool | list | dict | type(None)) else str(value)
