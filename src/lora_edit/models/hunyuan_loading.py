"""Loading the HunyuanVideo families: a folder in diffusers' layout or a Hub repository to components, and components to a `Family`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.catalog.facts import ModelFacts
from lora_edit.models.family import Family
from lora_edit.models.hunyuan import Hunyuan15Family, HunyuanAutoencoder, HunyuanFamily, HunyuanFirstFrame, HunyuanParts
from lora_edit.models.hunyuan_encoders import LlavaPrompt, QwenGlyphPrompt, SiglipPicture
from lora_edit.models.later import Later, later
from lora_edit.models.loading import Unread, at_places, autoencoder_from, from_folder, reading, sparing, waiting
from lora_edit.models.precision import settle
from lora_edit.models.workbench import TurnsAutoencoder, Workbench

FIRST_VERSION = "HunyuanVideoTransformer3DModel"

PICTURE_TOKENS_EVERY = {"latent_concat": 2, "token_replace": 4}
"""How many of a picture's tokens in the prompt are kept: one in so many (diffusers `pipeline_hunyuan_video_image2video.py`)."""


@dataclass(frozen=True)
class HunyuanComponents:
    """A checkpoint's modules as diffusers and transformers load them. `processor` prepares pictures for LLaVA or SigLIP.

    The autoencoder is in float32. What is read from files is read at its first use (`later.py`), but for the transformer.
    """

    transformer: Any
    vae: nn.Module | Later
    text_encoder: nn.Module | Later
    tokenizer: Callable[..., Any]
    text_encoder_2: nn.Module | Later
    tokenizer_2: Callable[..., Any]
    processor: Callable[..., Any]
    image_encoder: nn.Module | Later | None = None


def load_hunyuan(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> Family:
    """The catalogue's loader of every HunyuanVideo family. Raises `ModelError`."""
    return build_hunyuan(load_components(facts, source, dtype), facts, device, dtype)


def build_hunyuan(components: HunyuanComponents, facts: ModelFacts, device: torch.device, dtype: torch.dtype) -> HunyuanFamily:
    """Components to a family: autoencoder in float32, all by turns on the device.

    Raises `ModelError` when transformer and autoencoder do not belong together.
    """
    bench = Workbench(device)
    vae = later(components.vae)
    autoencoder = TurnsAutoencoder(HunyuanAutoencoder, vae, vae.config.latent_channels, bench)
    config = components.transformer.config
    replacing = getattr(config, "image_condition_type", None) == "token_replace"
    if config.in_channels != (autoencoder.z_dim if replacing else 2 * autoencoder.z_dim + 1):
        raise ModelError(
            f"{facts.name}: {config.in_channels} input channels do not fit an autoencoder of {autoencoder.z_dim}; give its own vae folder"
        )
    image_encoder = components.image_encoder
    kind = Hunyuan15Family if image_encoder is not None else HunyuanFirstFrame if replacing else HunyuanFamily
    return kind(
        HunyuanParts(
            name=facts.name,
            geometry=facts.geometry,
            transformer=sparing(settle(components.transformer, dtype)),
            autoencoder=autoencoder,
            embed_text=_text(components, facts, bench),
            embed_image=None if image_encoder is None else SiglipPicture(later(image_encoder), components.processor, bench),
            bench=bench,
            dtype=dtype,
        )
    )


def _text(components: HunyuanComponents, facts: ModelFacts, bench: Workbench) -> Callable[[str, torch.Tensor | None], torch.Tensor]:
    first, second = later(components.text_encoder), later(components.text_encoder_2)
    if components.image_encoder is not None:
        return QwenGlyphPrompt(first, components.tokenizer, second, components.tokenizer_2, facts.text_length, bench)
    every = PICTURE_TOKENS_EVERY[components.transformer.config.image_condition_type]
    return LlavaPrompt(first, components.tokenizer, second, components.tokenizer_2, components.processor, every, facts.text_length, bench)


def load_components(facts: ModelFacts, source: str, dtype: torch.dtype) -> HunyuanComponents:
    """Read a folder in diffusers' layout, or a downloaded Hub repository, into main memory.

    Everything that can be checked without weights is checked first. Raises `ModelError` with what to do.
    """
    import diffusers

    places = at_places(facts, source, dtype)
    at = {part: place.folder or place.files[0].parent for part, place in places.items()}
    kind = facts.transformer_config()["_class_name"]

    def part(unread: Unread, *names: str) -> Later:
        return waiting(facts, source, tuple(places[name] for name in names), unread)

    with reading(facts, source):
        transformer = getattr(diffusers, kind).from_pretrained(at["transformer"], dtype=dtype, local_files_only=True)
        return (_first_version if kind == FIRST_VERSION else _version_15)(at, part, transformer, dtype)


def _first_version(at: dict[str, Path], part: Callable[..., Later], transformer: Any, dtype: torch.dtype) -> HunyuanComponents:
    import diffusers
    import transformers

    llava = from_folder(transformers.LlavaForConditionalGeneration, at["text_encoder"], dtype)
    clip = from_folder(transformers.CLIPTextModel, at["text_encoder_2"], dtype)
    # Told a configuration, it looks for none beside the tokenizer: there is none, which ends offline loading from the Hub.
    read = transformers.AutoTokenizer.from_pretrained
    return HunyuanComponents(
        transformer=transformer,
        vae=part(autoencoder_from(diffusers.AutoencoderKLHunyuanVideo, at["vae"]), "vae"),
        text_encoder=part(llava, "text_encoder", "tokenizer", "image_processor"),
        tokenizer=read(at["tokenizer"], config=llava.config.text_config, local_files_only=True),
        text_encoder_2=part(clip, "text_encoder_2", "tokenizer_2"),
        tokenizer_2=read(at["tokenizer_2"], config=clip.config, local_files_only=True),
        processor=_processor("CLIPImageProcessor").from_pretrained(at["image_processor"], local_files_only=True),
    )


def _version_15(at: dict[str, Path], part: Callable[..., Later], transformer: Any, dtype: torch.dtype) -> HunyuanComponents:
    import diffusers
    import transformers

    qwen = from_folder(transformers.Qwen2_5_VLTextModel, at["text_encoder"], dtype)
    glyphs = from_folder(transformers.T5EncoderModel, at["text_encoder_2"], dtype)
    pictures = from_folder(transformers.SiglipVisionModel, at["image_encoder"], dtype)
    read = transformers.AutoTokenizer.from_pretrained
    return HunyuanComponents(
        transformer=transformer,
        vae=part(autoencoder_from(diffusers.AutoencoderKLHunyuanVideo15, at["vae"]), "vae"),
        text_encoder=part(qwen, "text_encoder", "tokenizer"),
        tokenizer=read(at["tokenizer"], config=qwen.config, local_files_only=True),
        text_encoder_2=part(glyphs, "text_encoder_2", "tokenizer_2"),
        tokenizer_2=transformers.ByT5Tokenizer.from_pretrained(at["tokenizer_2"], local_files_only=True),
        processor=_processor("SiglipImageProcessor").from_pretrained(at["feature_extractor"], local_files_only=True),
        image_encoder=part(pictures, "image_encoder", "feature_extractor"),
    )


def _processor(name: str) -> Any:
    """The picture processor that works with Pillow alone; newer versions of transformers give the plain name to another."""
    import transformers

    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
