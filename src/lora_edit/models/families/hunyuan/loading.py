"""Loading HunyuanVideo families: a folder in diffusers' layout or a Hub repository to components, and components to a `Family`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.module_loader import (
    ModuleLoader,
    build_autoencoder_loader,
    build_folder_loader,
    build_lazy_module,
    convert_read_errors,
    verify_parts_and_memory,
)
from lora_edit.models.families.base import ExpertPair, TransformerFamily, build_family, build_meta_module
from lora_edit.models.families.hunyuan.conditioning import Hunyuan15Family, HunyuanFamily, HunyuanFirstFrameFamily
from lora_edit.models.families.hunyuan.encoders import HunyuanAutoencoder, LlavaPromptEncoder, QwenGlyphPromptEncoder, SiglipImageEncoder
from lora_edit.models.family import build_meta_transformer
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.lazy_module import LazyModule, to_lazy_module

FIRST_VERSION_CLASS = "HunyuanVideoTransformer3DModel"

IMAGE_EMBED_INTERLEAVE = {"latent_concat": 2, "token_replace": 4}
"""One in so many of an image's tokens in the prompt is kept (diffusers `pipeline_hunyuan_video_image2video.py`)."""


@dataclass(frozen=True)
class HunyuanComponents:
    """A checkpoint's modules as diffusers and transformers load them. `processor` prepares images for LLaVA or SigLIP.

    The autoencoder is in float32. The transformer is in memory; all else that comes from files is read at its first use.
    """

    transformer: Any
    vae: nn.Module | LazyModule
    text_encoder: nn.Module | LazyModule
    tokenizer: Callable[..., Any]
    text_encoder_2: nn.Module | LazyModule
    tokenizer_2: Callable[..., Any]
    processor: Callable[..., Any]
    image_encoder: nn.Module | LazyModule | None = None


def load_hunyuan(record: ModelRecord, source: str, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Load a HunyuanVideo family; the loader of its records. Raises `ModelError`."""
    components = build_meta_components(record) if device.type == "meta" else load_components(record, source, dtype)
    return build_hunyuan(components, record, device, dtype)


def build_hunyuan(
    components: HunyuanComponents, record: ModelRecord, device: torch.device, dtype: torch.dtype
) -> TransformerFamily | ExpertPair:
    """Build a family from components, which take turns on the device; the autoencoder stays in float32.

    Raises `ModelError` when transformer and autoencoder do not belong together.
    """
    device_manager = DeviceManager(device)
    vae = to_lazy_module(components.vae)
    autoencoder = ManagedAutoencoder(HunyuanAutoencoder, vae, vae.config.latent_channels, device_manager)
    config = components.transformer.config
    replaces_tokens = getattr(config, "image_condition_type", None) == "token_replace"
    if config.in_channels != (autoencoder.z_dim if replaces_tokens else 2 * autoencoder.z_dim + 1):
        raise ModelError(
            f"{record.name}: {config.in_channels} input channels do not fit an autoencoder of {autoencoder.z_dim}; give its own vae folder"
        )
    layout, image_encoder = HunyuanFirstFrameFamily if replaces_tokens else HunyuanFamily, None
    if components.image_encoder is not None:
        layout = Hunyuan15Family
        image_encoder = SiglipImageEncoder(to_lazy_module(components.image_encoder), components.processor, device_manager)
    return build_family(
        layout,
        record,
        (components.transformer,),
        autoencoder=autoencoder,
        text_encoder=_build_prompt_encoder(components, record, device_manager),
        image_encoder=image_encoder,
        device_manager=device_manager,
        dtype=dtype,
    )


def _build_prompt_encoder(
    components: HunyuanComponents, record: ModelRecord, device_manager: DeviceManager
) -> Callable[[str, torch.Tensor | None], torch.Tensor]:
    first, second = to_lazy_module(components.text_encoder), to_lazy_module(components.text_encoder_2)
    if components.image_encoder is not None:
        return QwenGlyphPromptEncoder(first, components.tokenizer, second, components.tokenizer_2, record.text_length, device_manager)
    interleave = IMAGE_EMBED_INTERLEAVE[components.transformer.config.image_condition_type]
    return LlavaPromptEncoder(
        first, components.tokenizer, second, components.tokenizer_2, components.processor, interleave, record.text_length, device_manager
    )


def build_meta_components(record: ModelRecord) -> HunyuanComponents:
    """Build components on torch's meta device."""

    def no_tokens(*_: Any, **__: Any) -> None:
        return None

    return HunyuanComponents(
        transformer=build_meta_transformer(record),
        vae=build_meta_module(latent_channels=record.read_transformer_config()["out_channels"]),
        text_encoder=build_meta_module(),
        tokenizer=no_tokens,
        text_encoder_2=build_meta_module(),
        tokenizer_2=no_tokens,
        processor=no_tokens,
        image_encoder=build_meta_module() if record.image_encoder else None,
    )


def load_components(record: ModelRecord, source: str, dtype: torch.dtype) -> HunyuanComponents:
    """Read a folder in diffusers' layout, or a downloaded Hub repository, into main memory.

    Everything that needs no weights is checked first. Raises `ModelError` with what to do.
    """
    import diffusers

    parts = verify_parts_and_memory(record, source, dtype)
    folders = {name: part_files.folder or part_files.files[0].parent for name, part_files in parts.items()}
    model_class = record.read_transformer_config()["_class_name"]

    def build_part(loader: ModuleLoader, *names: str) -> LazyModule:
        return build_lazy_module(record, source, tuple(parts[name] for name in names), loader)

    with convert_read_errors(record, source):
        transformer = getattr(diffusers, model_class).from_pretrained(folders["transformer"], dtype=dtype, local_files_only=True)
        return (_load_first_version if model_class == FIRST_VERSION_CLASS else _load_version_15)(folders, build_part, transformer, dtype)


def _load_first_version(
    folders: dict[str, Path], build_lazy: Callable[..., LazyModule], transformer: Any, dtype: torch.dtype
) -> HunyuanComponents:
    import diffusers
    import transformers

    llava = build_folder_loader(transformers.LlavaForConditionalGeneration, folders["text_encoder"], dtype)
    clip = build_folder_loader(transformers.CLIPTextModel, folders["text_encoder_2"], dtype)
    # With a configuration given, AutoTokenizer does not search for one beside the tokenizer: its absence ends offline loading from the Hub.
    load_tokenizer = transformers.AutoTokenizer.from_pretrained
    return HunyuanComponents(
        transformer=transformer,
        vae=build_lazy(build_autoencoder_loader(diffusers.AutoencoderKLHunyuanVideo, folders["vae"]), "vae"),
        text_encoder=build_lazy(llava, "text_encoder", "tokenizer", "image_processor"),
        tokenizer=load_tokenizer(folders["tokenizer"], config=llava.config.text_config, local_files_only=True),
        text_encoder_2=build_lazy(clip, "text_encoder_2", "tokenizer_2"),
        tokenizer_2=load_tokenizer(folders["tokenizer_2"], config=clip.config, local_files_only=True),
        processor=_get_processor_class("CLIPImageProcessor").from_pretrained(folders["image_processor"], local_files_only=True),
    )


def _load_version_15(
    folders: dict[str, Path], build_lazy: Callable[..., LazyModule], transformer: Any, dtype: torch.dtype
) -> HunyuanComponents:
    import diffusers
    import transformers

    qwen = build_folder_loader(transformers.Qwen2_5_VLTextModel, folders["text_encoder"], dtype)
    glyphs = build_folder_loader(transformers.T5EncoderModel, folders["text_encoder_2"], dtype)
    siglip = build_folder_loader(transformers.SiglipVisionModel, folders["image_encoder"], dtype)
    load_tokenizer = transformers.AutoTokenizer.from_pretrained
    return HunyuanComponents(
        transformer=transformer,
        vae=build_lazy(build_autoencoder_loader(diffusers.AutoencoderKLHunyuanVideo15, folders["vae"]), "vae"),
        text_encoder=build_lazy(qwen, "text_encoder", "tokenizer"),
        tokenizer=load_tokenizer(folders["tokenizer"], config=qwen.config, local_files_only=True),
        text_encoder_2=build_lazy(glyphs, "text_encoder_2", "tokenizer_2"),
        tokenizer_2=transformers.ByT5Tokenizer.from_pretrained(folders["tokenizer_2"], local_files_only=True),
        processor=_get_processor_class("SiglipImageProcessor").from_pretrained(folders["feature_extractor"], local_files_only=True),
        image_encoder=build_lazy(siglip, "image_encoder", "feature_extractor"),
    )


def _get_processor_class(name: str) -> Any:
    """Return the image processor that works with Pillow alone; newer versions of transformers use the plain name for another one."""
    import transformers

    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
