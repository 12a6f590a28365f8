"""Parts of a model from GGUF files.

The transformer serves generation only: its weights stay as they are stored until a layer computes with them. The text encoder is
dequantized as it is read.
"""

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
    """Load a transformer of diffusers' class `model_class`, computing in `dtype`. Raises `ModelError` when the file holds another model.

    Corrects two faults of diffusers' reader: it ignores that GGUF keeps four dimensions at most, so the patch embedding's five are
    flattened (city96's files note them as `orig_shape`), and it leaves weights packed that are not a linear layer's. Layers that belong in
    float32 are dequantized too.
    """
    from diffusers import GGUFQuantizationConfig
    from diffusers.models.model_loading_utils import load_gguf_checkpoint
    from diffusers.quantizers.gguf.utils import dequantize_gguf_tensor

    empty = build_empty_module(lambda: model_class.from_config(config))
    expected = {name: tuple(parameter.shape) for name, parameter in empty.named_parameters()}
    linear = {f"{name}.weight" for name, part in empty.named_modules() if isinstance(part, nn.Linear)}
    try:
        packed = load_gguf_checkpoint(str(file))
    except (ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{file}: not a readable GGUF file ({error}); download it again, or give a .safetensors file") from error
    prefix = find_model_prefix(packed)
    state: dict[str, torch.Tensor] = {}
    for key, value in packed.items():
        (name,) = rename_transformer_key(key.removeprefix(prefix))
        packed_linear = is_gguf_parameter(value) and name in linear and not is_kept_in_fp32(empty, name)
        exact = dequantize_gguf_tensor(value).as_subclass(torch.Tensor) if is_gguf_parameter(value) and not packed_linear else value
        size = tuple(value.quant_shape) if packed_linear else tuple(exact.shape)
        if name not in expected or exact.numel() == 0 or _count_elements(size) != _count_elements(expected[name]):
            difference = f"{key} is {list(size)} instead of {list(expected[name])}" if name in expected else f"{key} is unknown"
            raise ModelError(f"{file}: is not this model ({difference}); choose the model that it is, or another file")
        state[name] = exact if packed_linear else exact.reshape(expected[name])
    missing = [name for name in expected if name not in state]
    if missing:
        raise ModelError(
            f"{file}: is not this model ({len(missing)} tensors are missing, such as {missing[0]}); choose the model that it is"
        )
    quantization = GGUFQuantizationConfig(compute_dtype=dtype)
    transformer: nn.Module = model_class.from_single_file(
        state, config=str(config_file), quantization_config=quantization, dtype=dtype, local_files_only=True
    )
    return transformer


def load_gguf_text_encoder(model_class: Any, config: Any, file: Path, dtype: torch.dtype) -> nn.Module:
    """Load a text encoder of transformers' class `model_class` with `config`, in `dtype`. Raises `ModelError` for a file of another."""
    try:
        encoder, report = model_class.from_pretrained(
            file.parent, gguf_file=file.name, config=config, dtype=dtype, local_files_only=True, output_loading_info=True
        )
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{file}: this text encoder cannot be read ({first}); download it again, or give a .safetensors file") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(f"{file}: {len(missing)} of the text encoder's tensors are missing, such as {missing[0]}; give another file")
    text_encoder: nn.Module = encoder
    return text_encoder


def _count_elements(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())
