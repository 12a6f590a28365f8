"""Modules of autoencoders and encoders that are checked when a model is loaded and read at their first use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.checks import check_memory, verify_parts
from lora_edit.models.checkpoints.file_identity import compute_file_identity
from lora_edit.models.checkpoints.layout import PartFiles
from lora_edit.models.checkpoints.single_file import build_empty_module, find_tensor_sources, load_weights
from lora_edit.models.families.wan.key_names import KeyRenamer
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.lazy_module import LazyModule

SAFETENSORS_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


@dataclass(frozen=True)
class ModuleLoader:
    """A module without its weights: its configuration, the function that reads it, and its number format."""

    config: Any
    load: Callable[[], nn.Module]
    dtype: torch.dtype = torch.float32


def build_lazy_module(record: ModelRecord, source: str, parts: tuple[PartFiles, ...], loader: ModuleLoader) -> LazyModule:
    """Build a module that is read at its first use. `parts` are all files that decide its output, its tokenizer's too."""

    def read() -> nn.Module:
        with convert_read_errors(record, source):
            return loader.load()

    def identify() -> str:
        with convert_read_errors(record, source):
            return f"{compute_file_identity(*parts)} {loader.dtype}"

    return LazyModule(read, loader.config, identify)


def build_folder_loader(model_class: Any, folder: Path, dtype: torch.dtype) -> ModuleLoader:
    """Build the loader of a model of transformers from a folder in its own layout."""
    config = model_class.config_class.from_pretrained(folder, local_files_only=True)
    return ModuleLoader(config, lambda: model_class.from_pretrained(folder, dtype=dtype, local_files_only=True), dtype)


def build_autoencoder_loader(model_class: Any, folder: Path) -> ModuleLoader:
    """Build the loader of an autoencoder of diffusers from a folder in its layout, for float32."""
    # A file of an older version may lack settings, for which the class has defaults.
    config = build_empty_module(lambda: model_class.from_config(model_class.load_config(folder, local_files_only=True))).config
    return ModuleLoader(config, lambda: model_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True))


def build_file_loader(
    build: Callable[[], nn.Module], part_files: PartFiles, rename_key: KeyRenamer, get_dtype: Callable[[str], torch.dtype]
) -> ModuleLoader:
    """Build the loader of a module from single files. Raises `ModelError` now when they do not hold exactly this module."""
    empty = build_empty_module(build)
    find_tensor_sources(empty, part_files.files, rename_key)
    return ModuleLoader(empty.config, lambda: load_weights(build_empty_module(build), part_files.files, rename_key, get_dtype))


def verify_parts_and_memory(record: ModelRecord, source: str, dtype: torch.dtype) -> dict[str, PartFiles]:
    """Find the files of each part, after all checks that need no weights. Raises `ModelError` with what to do."""
    parts = verify_parts(record, source)
    check_memory(record, parts, SAFETENSORS_DTYPES[dtype])
    return parts


@contextmanager
def convert_read_errors(record: ModelRecord, source: str) -> Iterator[None]:
    """Convert the libraries' errors on reading a file to one `ModelError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{source}: a part of {record.name} cannot be read ({reason}); download it again") from error
