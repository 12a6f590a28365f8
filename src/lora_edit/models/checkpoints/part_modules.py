"""The modules that files have to fill, built without weights from the configurations of a record."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.headers import read_header
from lora_edit.models.checkpoints.infer_config import get_key_renamer
from lora_edit.models.checkpoints.layout import PartFiles, get_part_config
from lora_edit.models.checkpoints.single_file import build_empty_module, list_parameters, match_tensors
from lora_edit.models.record import ModelRecord


def build_empty_part(record: ModelRecord, part: str) -> nn.Module:
    """Build a part with its parameters on the meta device. The record must have its configuration."""
    config: dict[str, Any] = record.read_transformer_config() if part in record.transformer_parts else get_part_config(record, part)
    if part == "text_encoder":
        from transformers import UMT5Config, UMT5EncoderModel

        return build_empty_module(lambda: UMT5EncoderModel(UMT5Config(**config)))
    if part == "image_encoder":
        from transformers import CLIPVisionConfig, CLIPVisionModel

        return build_empty_module(lambda: CLIPVisionModel(CLIPVisionConfig(**config)))
    import diffusers

    model_class: Any = getattr(diffusers, config.get("_class_name", "AutoencoderKLWan"))
    return build_empty_module(lambda: model_class.from_config(config))


@lru_cache(maxsize=32)
def list_tensors(record: ModelRecord, part: str) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """List the shapes of a part's parameters by name, and the names of its linear layers' weights."""
    return list_parameters(build_empty_part(record, part))


def verify_single_files(record: ModelRecord, part_files: PartFiles) -> None:
    """Compare every tensor of single files with the part that they have to fill, by headers. Raises `ModelError`."""
    shapes, linear_weights = list_tensors(record, part_files.part)
    renamer = get_key_renamer(part_files.part, get_part_config(record, part_files.part))
    match_tensors([read_header(file) for file in part_files.files], shapes, linear_weights, renamer)


def verify_folder(record: ModelRecord, part_files: PartFiles) -> None:
    """Compare the names and shapes of a transformer's tensors in diffusers' layout with those of its class. Raises `ModelError`."""
    expected, _ = list_tensors(record, part_files.part)
    shapes = {key: shape for file in part_files.files for key, shape in read_header(file).shapes.items()}
    missing = [name for name in expected if name not in shapes]
    if missing:
        raise ModelError(
            f"{part_files.folder}: is not {record.name} ({len(missing)} tensors are missing, such as {missing[0]}); download it again"
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise ModelError(f"{part_files.folder}: {name} is {list(shapes[name])} instead of {list(shape)}; choose the model that it is")
