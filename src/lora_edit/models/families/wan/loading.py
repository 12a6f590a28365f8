"""Loading Wan families: folders and single files to components, and components to a `Family`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.gguf_file import load_gguf_text_encoder, load_gguf_transformer
from lora_edit.models.checkpoints.infer_config import get_key_renamer
from lora_edit.models.checkpoints.layout import GGUF_SUFFIX, SENTENCEPIECE_KEY, PartFiles
from lora_edit.models.checkpoints.module_loader import (
    ModuleLoader,
    build_autoencoder_loader,
    build_file_loader,
    build_folder_loader,
    build_lazy_module,
    convert_read_errors,
    verify_parts_and_memory,
)
from lora_edit.models.checkpoints.sentencepiece_tokenizer import build_tokenizer
from lora_edit.models.checkpoints.single_file import build_empty_module, load_weights
from lora_edit.models.families.base import ExpertPair, TransformerFamily, build_family, build_meta_module
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.models.families.wan.encoders import ImageEncoder, PromptEncoder, WanAutoencoder
from lora_edit.models.families.wan.key_names import rename_image_encoder_key, rename_text_encoder_key, rename_transformer_key
from lora_edit.models.family import build_meta_transformer
from lora_edit.models.record import CONFIG_FOLDER, ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.lazy_module import LazyModule, to_lazy_module
from lora_edit.models.runtime.precision import is_kept_in_fp32


@dataclass(frozen=True)
class Components:
    """A checkpoint's modules as diffusers and transformers load them; `transformers` in the order of `ModelRecord.transformer_parts`.

    The autoencoder is in float32. The transformers are in memory; all else that comes from files is read at its first use.
    """

    transformers: tuple[Any, ...]
    vae: nn.Module | LazyModule
    text_encoder: nn.Module | LazyModule
    tokenizer: Callable[..., Any]
    image_encoder: nn.Module | LazyModule | None = None


@dataclass(frozen=True)
class ComponentClasses:
    """Classes of a checkpoint's autoencoder and text encoder, in diffusers and transformers."""

    vae: str
    text_encoder: str


WAN_CLASSES = ComponentClasses(vae="AutoencoderKLWan", text_encoder="UMT5EncoderModel")


def load_wan(record: ModelRecord, source: str, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Load a Wan family; the loader of its records. Raises `ModelError`."""
    return build_wan(load_components(record, source, device, dtype), record, device, dtype)


def build_wan(
    components: Components, record: ModelRecord, device: torch.device, dtype: torch.dtype, layout: type[WanFamily] = WanFamily
) -> TransformerFamily | ExpertPair:
    """Build a family with the condition layout `layout` from components, which take turns on the device; the autoencoder stays in float32.

    Raises `ModelError` when transformer and autoencoder do not belong together.
    """
    device_manager = DeviceManager(device)
    vae = to_lazy_module(components.vae)
    autoencoder = ManagedAutoencoder(WanAutoencoder, vae, vae.config.z_dim, device_manager)
    channels = components.transformers[0].config.in_channels
    if channels != 2 * autoencoder.z_dim + record.geometry.temporal_compression:
        raise ModelError(
            f"{record.name}: {channels} input channels do not fit an autoencoder of {autoencoder.z_dim}; give its own vae folder"
        )
    image_encoder = None
    if components.image_encoder is not None:
        image_encoder = ImageEncoder(to_lazy_module(components.image_encoder), record.last_frame, device_manager)
    return build_family(
        layout,
        record,
        components.transformers,
        autoencoder=autoencoder,
        text_encoder=PromptEncoder(to_lazy_module(components.text_encoder), components.tokenizer, record.text_length, device_manager),
        image_encoder=image_encoder,
        device_manager=device_manager,
        dtype=dtype,
    )


def load_components(
    record: ModelRecord, source: str, device: torch.device, dtype: torch.dtype, classes: ComponentClasses = WAN_CLASSES
) -> Components:
    """Read a model into main memory from a folder, single files or the Hub library's folder (docs/loading.md); nothing is downloaded.

    Everything that needs no weights is checked first, also of autoencoder and encoders, which are read at their first use. `device` is
    where the components will compute. On torch's meta device no file is read. Raises `ModelError` with what to do.
    """
    if device.type == "meta":
        return build_meta_components(record, z_dim=record.read_transformer_config()["out_channels"])
    parts = verify_parts_and_memory(record, source, dtype)

    def build_part(loader: ModuleLoader, *names: str) -> LazyModule:
        return build_lazy_module(record, source, tuple(parts[name] for name in names), loader)

    with convert_read_errors(record, source):
        tokenizer = _load_tokenizer(parts["tokenizer"], _load_text_config(record, parts["text_encoder"]))
        text_encoder = build_part(_build_text_encoder_loader(record, parts["text_encoder"], dtype, classes), "text_encoder", "tokenizer")
        vae = build_part(_build_vae_loader(record, parts["vae"], classes), "vae")
        image_encoder = None
        if record.image_encoder:
            image_encoder = build_part(_build_image_encoder_loader(record, parts["image_encoder"]), "image_encoder")
        transformers = tuple(_load_transformer(record, parts[name], dtype) for name in record.transformer_parts)
        return Components(transformers, vae, text_encoder, tokenizer, image_encoder)


def build_meta_components(record: ModelRecord, **vae_config: Any) -> Components:
    """Build components on torch's meta device; `vae_config` is what the family needs of the autoencoder's configuration.

    Two experts share one transformer, because both have the same configuration.
    """
    transformer = build_meta_transformer(record)
    assert transformer is not None, f"{record.name} has no configuration"
    return Components(
        transformers=(transformer,) * len(record.transformer_parts),
        vae=build_meta_module(**vae_config),
        text_encoder=build_meta_module(),
        tokenizer=lambda *_, **__: None,
        image_encoder=build_meta_module() if record.image_encoder else None,
    )


def _load_transformer(record: ModelRecord, part_files: PartFiles, dtype: torch.dtype) -> Any:
    import diffusers

    config = record.read_transformer_config()
    model_class = getattr(diffusers, config["_class_name"])
    if part_files.folder is not None:
        return model_class.from_pretrained(part_files.folder, dtype=dtype, local_files_only=True)
    if part_files.files[0].suffix == GGUF_SUFFIX:
        return load_gguf_transformer(model_class, config, CONFIG_FOLDER / record.config, part_files.files[0], dtype)
    module = build_empty_module(lambda: model_class.from_config(config))
    return load_weights(
        module,
        part_files.files,
        rename_transformer_key,
        lambda name: torch.float32 if is_kept_in_fp32(module, name) else dtype,
        keep_float8=True,
    )


def _build_vae_loader(record: ModelRecord, part_files: PartFiles, classes: ComponentClasses) -> ModuleLoader:
    import diffusers

    model_class = getattr(diffusers, classes.vae)
    if part_files.folder is not None:
        return build_autoencoder_loader(model_class, part_files.folder)
    config = record.read_companion_configs()["vae"]
    return build_file_loader(
        lambda: model_class.from_config(config), part_files, get_key_renamer("vae", config), lambda name: torch.float32
    )


def _load_text_config(record: ModelRecord, part_files: PartFiles) -> Any:
    from transformers import AutoConfig, UMT5Config

    if part_files.folder is not None:
        return AutoConfig.from_pretrained(part_files.folder, local_files_only=True)
    return UMT5Config(**record.read_companion_configs()["text_encoder"])


def _build_text_encoder_loader(record: ModelRecord, part_files: PartFiles, dtype: torch.dtype, classes: ComponentClasses) -> ModuleLoader:
    import transformers

    model_class = getattr(transformers, classes.text_encoder)
    if part_files.folder is not None:
        return build_folder_loader(model_class, part_files.folder, dtype)
    if part_files.files[0].suffix == GGUF_SUFFIX:
        config = _load_text_config(record, part_files)
        return ModuleLoader(config, lambda: load_gguf_text_encoder(model_class, config, part_files.files[0], dtype), dtype)

    def get_dtype(name: str) -> torch.dtype:
        # The second feed-forward layer overflows in float16, so transformers keeps it in float32.
        return torch.float32 if dtype == torch.float16 and ".wo." in name else dtype

    loader = build_file_loader(lambda: model_class(_load_text_config(record, part_files)), part_files, rename_text_encoder_key, get_dtype)
    return replace(loader, dtype=dtype)


def _load_tokenizer(part_files: PartFiles, config: Any) -> Any:
    if part_files.folder is not None:
        from transformers import AutoTokenizer

        # With the encoder's configuration given, AutoTokenizer does not search for one beside the tokenizer, where there is none.
        return AutoTokenizer.from_pretrained(part_files.folder, config=config, local_files_only=True)
    if part_files.files[0].suffix != ".safetensors":
        return build_tokenizer(part_files.files[0].read_bytes(), str(part_files.files[0]))
    from safetensors import safe_open

    with safe_open(part_files.files[0], framework="numpy") as file:
        return build_tokenizer(file.get_tensor(SENTENCEPIECE_KEY).tobytes(), str(part_files.files[0]))


def _build_image_encoder_loader(record: ModelRecord, part_files: PartFiles) -> ModuleLoader:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    if part_files.folder is not None:
        return build_folder_loader(CLIPVisionModel, part_files.folder, torch.float32)
    config = CLIPVisionConfig(**record.read_companion_configs()["image_encoder"])
    return build_file_loader(lambda: CLIPVisionModel(config), part_files, rename_image_encoder_key, lambda name: torch.float32)
