"""Loading the HunyuanVideo families: a folder in diffusers' layout or a Hub repository to components, and components to a `Family`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.families.hunyuan.encoders import LlavaPromptEncoder, QwenGlyphPromptEncoder, SiglipImageEncoder
from lora_edit.models.families.hunyuan.family import (
    Hunyuan15Family,
    HunyuanAutoencoder,
    HunyuanFamily,
    HunyuanFirstFrameFamily,
    HunyuanParts,
)
from lora_edit.models.families.wan.loading import (
    ModuleLoader,
    build_autoencoder_loader,
    build_folder_loader,
    build_lazy_module,
    convert_read_errors,
    enable_checkpointing,
    verify_parts_and_memory,
)
from lora_edit.models.family import Family
from lora_edit.models.record import ModelFacts
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.lazy_module import LazyModule, to_lazy_module
from lora_edit.models.runtime.precision import cast_and_freeze

FIRST_VERSION_CLASS = "HunyuanVideoTransformer3DModel"

IMAGE_EMBED_INTERLEAVE = {"latent_concat": 2, "token_replace": 4}
"""How many of a picture's tokens in the prompt are kept: one in so many (diffusers `pipeline_hunyuan_video_image2video.py`)."""


@dataclass(frozen=True)
class HunyuanComponents:
    """A checkpoint's modules as diffusers and transformers load them. `processor` prepares pictures for LLaVA or SigLIP.

    The autoencoder is in float32. What is read from files is read at its first use (`later.py`), but for the transformer.
    """

    transformer: Any
    vae: nn.Module | LazyModule
    text_encoder: nn.Module | LazyModule
    tokenizer: Callable[..., Any]
    text_encoder_2: nn.Module | LazyModule
    tokenizer_2: Callable[..., Any]
    processor: Callable[..., Any]
    image_encoder: nn.Module | LazyModule | None = None


def load_hunyuan(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> Family:
    """The catalogue's loader of every HunyuanVideo family. Raises `ModelError`."""
    return build_hunyuan(load_components(facts, source, dtype), facts, device, dtype)


def build_hunyuan(components: HunyuanComponents, facts: ModelFacts, device: torch.device, dtype: torch.dtype) -> HunyuanFamily:
    """Components to a family: autoencoder in float32, all by turns on the device.

    Raises `ModelError` when transformer and autoencoder do not belong together.
    """
    bench = DeviceManager(device)
    vae = to_lazy_module(components.vae)
    autoencoder = ManagedAutoencoder(HunyuanAutoencoder, vae, vae.config.latent_channels, bench)
    config = components.transformer.config
    replacing = getattr(config, "image_condition_type", None) == "token_replace"
    if config.in_channels != (autoencoder.z_dim if replacing else 2 * autoencoder.z_dim + 1):
        raise ModelError(
            f"{facts.name}: {config.in_channels} input channels do not fit an autoencoder of {autoencoder.z_dim}; give its own vae folder"
        )
    image_encoder = components.image_encoder
    kind = Hunyuan15Family if image_encoder is not None else HunyuanFirstFrameFamily if replacing else HunyuanFamily
    return kind(
        HunyuanParts(
            name=facts.name,
            geometry=facts.geometry,
            transformer=enable_checkpointing(cast_and_freeze(components.transformer, dtype)),
            autoencoder=autoencoder,
            embed_text=_build_prompt_encoder(components, facts, bench),
            embed_image=None if image_encoder is None else SiglipImageEncoder(to_lazy_module(image_encoder), components.processor, bench),
            device_manager=bench,
            dtype=dtype,
        )
    )


def _build_prompt_encoder(
    components: HunyuanComponents, facts: ModelFacts, device_manager: DeviceManager
) -> Callable[[str, torch.Tensor | None], torch.Tensor]:
    first, second = to_lazy_module(components.text_encoder), to_lazy_module(components.text_encoder_2)
    if components.image_encoder is not None:
        return QwenGlyphPromptEncoder(first, components.tokenizer, second, components.tokenizer_2, facts.text_length, device_manager)
    every = IMAGE_EMBED_INTERLEAVE[components.transformer.config.image_condition_type]
    return LlavaPromptEncoder(
        first, components.tokenizer, second, components.tokenizer_2, components.processor, every, facts.text_length, device_manager
    )


def load_components(facts: ModelFacts, source: str, dtype: torch.dtype) -> HunyuanComponents:
    """Read a folder in diffusers' layout, or a downloaded Hub repository, into main memory.

    Everything that can be checked without weights is checked first. Raises `ModelError` with what to do.
    """
    import diffusers

    places = verify_parts_and_memory(facts, source, dtype)
    at = {part: place.folder or place.files[0].parent for part, place in places.items()}
    kind = facts.read_transformer_config()["_class_name"]

    def part(unread: ModuleLoader, *names: str) -> LazyModule:
        return build_lazy_module(facts, source, tuple(places[name] for name in names), unread)

    with convert_read_errors(facts, source):
        transformer = getattr(diffusers, kind).from_pretrained(at["transformer"], dtype=dtype, local_files_only=True)
        return (_load_first_version if kind == FIRST_VERSION_CLASS else _load_version_15)(at, part, transformer, dtype)


def _load_first_version(
    folders: dict[str, Path], build_lazy: Callable[..., LazyModule], transformer: Any, dtype: torch.dtype
) -> HunyuanComponents:
    import diffusers
    import transformers

    llava = build_folder_loader(transformers.LlavaForConditionalGeneration, folders["text_encoder"], dtype)
    clip = build_folder_loader(transformers.CLIPTextModel, folders["text_encoder_2"], dtype)
    # Told a configuration, it looks for none beside the tokenizer: there is none, which ends offline loading from the Hub.
    read = transformers.AutoTokenizer.from_pretrained
    return HunyuanComponents(
        transformer=transformer,
        vae=build_lazy(build_autoencoder_loader(diffusers.AutoencoderKLHunyuanVideo, folders["vae"]), "vae"),
        text_encoder=build_lazy(llava, "text_encoder", "tokenizer", "image_processor"),
        tokenizer=read(folders["tokenizer"], config=llava.config.text_config, local_files_only=True),
        text_encoder_2=build_lazy(clip, "text_encoder_2", "tokenizer_2"),
        tokenizer_2=read(folders["tokenizer_2"], config=clip.config, local_files_only=True),
        processor=_get_processor_class("CLIPImageProcessor").from_pretrained(folders["image_processor"], local_files_only=True),
    )


def _load_version_15(
    folders: dict[str, Path], build_lazy: Callable[..., LazyModule], transformer: Any, dtype: torch.dtype
) -> HunyuanComponents:
    import diffusers
    import transformers

    qwen = build_folder_loader(transformers.Qwen2_5_VLTextModel, folders["text_encoder"], dtype)
    glyphs = build_folder_loader(transformers.T5EncoderModel, folders["text_encoder_2"], dtype)
    pictures = build_folder_loader(transformers.SiglipVisionModel, folders["image_encoder"], dtype)
    read = transformers.AutoTokenizer.from_pretrained
    return HunyuanComponents(
        transformer=transformer,
        vae=build_lazy(build_autoencoder_loader(diffusers.AutoencoderKLHunyuanVideo15, folders["vae"]), "vae"),
        text_encoder=build_lazy(qwen, "text_encoder", "tokenizer"),
        tokenizer=read(folders["tokenizer"], config=qwen.config, local_files_only=True),
        text_encoder_2=build_lazy(glyphs, "text_encoder_2", "tokenizer_2"),
        tokenizer_2=transformers.ByT5Tokenizer.from_pretrained(folders["tokenizer_2"], local_files_only=True),
        processor=_get_processor_class("SiglipImageProcessor").from_pretrained(folders["feature_extractor"], local_files_only=True),
        image_encoder=build_lazy(pictures, "image_encoder", "feature_extractor"),
    )


def _get_processor_class(name: str) -> Any:
    """The picture processor that works with Pillow alone; newer versions of transformers give the plain name to another."""
    import transformers

    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
