"""Parts of a model from GGUF files: the transformer, for generation only, whose weights stay as they are stored until a layer computes with
them, and the text encoder, which is multiplied out as it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.single_file import build_empty_module
from lora_edit.models.families.wan.key_names import find_model_prefix, rename_transformer_key
from lora_edit.models.runtime.precision import is_gguf_parameter, is_kept_in_fp32


def load_gguf_transformer(model_class: Any, config: dict[str, Any], config_file: Path, file: Path, dtype: torch.dtype) -> nn.Module:
    """A transformer of diffusers' class `kind`, computing in `dtype`. Raises `ModelError` when the file holds another model.

    Two faults of diffusers' reader are made good: it forgets that GGUF keeps four dimensions at most, so the patch embedding's five come
    flattened (city96's files note them as `orig_shape`), and it leaves weights packed that are not a linear layer's. Layers that belong in
    float32 are multiplied out too.
    """
    from diffusers import GGUFQuantizationConfig
    from diffusers.models.model_loading_utils import load_gguf_checkpoint
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    outline = build_empty_module(lambda: model_class.from_config(config))
    wanted = {name: tuple(parameter.shape) for name, parameter in outline.named_parameters()}
    linear = {f"{name}.weight" for name, part in outline.named_modules() if isinstance(part, nn.Linear)}
    try:
        packed = load_gguf_checkpoint(str(file))
    except (ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{file}: not a readable GGUF file ({error}); download it again, or give a .safetensors file") from error
    prefix = find_model_prefix(packed)
    ready: dict[str, torch.Tensor] = {}
    for key, value in packed.items():
        (name,) = rename_transformer_key(key.removeprefix(prefix))
        packed_linear = is_gguf_parameter(value) and name in linear and not is_kept_in_fp32(outline, name)
        exact = dequantize_gguf_tensor(value).as_subclass(torch.Tensor) if is_gguf_parameter(value) and not packed_linear else value
        size = tuple(value.quant_shape) if packed_linear else tuple(exact.shape)
        if name not in wanted or exact.numel() == 0 or _count_elements(size) != _count_elements(wanted[name]):
            found = f"{key} is {list(size)} instead of {list(wanted[name])}" if name in wanted else f"{key} is unknown"
            raise ModelError(f"{file}: is not this model ({found}); choose the model that it is, or another file")
        ready[name] = exact if packed_linear else exact.reshape(wanted[name])
    gone = [name for name in wanted if name not in ready]
    if gone:
        raise ModelError(f"{file}: is not this model ({len(gone)} tensors are missing, such as {gone[0]}); choose the model that it is")
    packing = GGUFQuantizationConfig(compute_dtype=dtype)
    made: nn.Module = model_class.from_single_file(
        ready, config=str(config_file), quantization_config=packing, dtype=dtype, local_files_only=True
    )
    return made


def load_gguf_text_encoder(model_class: Any, config: Any, file: Path, dtype: torch.dtype) -> nn.Module:
    """A text encoder of transformers' class `kind` and `config`, in `dtype`. Raises `ModelError` when the file holds another."""
    try:
        made, told = model_class.from_pretrained(
            file.parent, gguf_file=file.name, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{file}: this text encoder cannot be read ({first}); download it again, or give a .safetensors file") from error
    if gone := sorted(told["missing_keys"]):
        raise ModelError(f"{file}: {len(gone)} of the text encoder's tensors are missing, such as {gone[0]}; give another file")
    encoder: nn.Module = made
    return encoder


def _count_elements(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
