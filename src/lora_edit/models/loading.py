"""Loading families: from a folder in diffusers' layout or a Hub repository to components, and from components to a `Family`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.catalog.facts import ModelFacts, differences
from lora_edit.models.catalog.locate import read_config, weights_at
from lora_edit.models.experts import HIGH, LOW, ExpertPair, StagedWan
from lora_edit.models.family import Family
from lora_edit.models.precision import settle
from lora_edit.models.wan import WanAutoencoder, WanParts
from lora_edit.models.wan_encoders import PictureEncoder, PromptEncoder
from lora_edit.models.workbench import Workbench


@dataclass(frozen=True)
class Components:
    """A checkpoint's modules as diffusers and transformers load them; `transformers` in the order of `ModelFacts.parts`."""

    transformers: tuple[Any, ...]
    vae: nn.Module
    text_encoder: nn.Module
    tokenizer: Callable[..., Any]
    image_encoder: nn.Module | None = None


@dataclass(frozen=True)
class Kinds:
    """Classes of a checkpoint's parts in diffusers and transformers; `companions`: part, the key of its configuration that says how wide it
    is, and the transformer's key that has to be equal."""

    vae: str
    text_encoder: str
    companions: tuple[tuple[str, str, str], ...]


WAN_KINDS = Kinds(
    vae="AutoencoderKLWan",
    text_encoder="UMT5EncoderModel",
    companions=(("vae", "z_dim", "out_channels"), ("text_encoder", "d_model", "text_dim"), ("image_encoder", "hidden_size", "image_dim")),
)


def load_wan(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> Family:
    """The catalogue's loader of every Wan family. Raises `ModelError`."""
    return build_wan(load_components(facts, source, device, dtype), facts, device, dtype)


def build_wan(components: Components, facts: ModelFacts, device: torch.device, dtype: torch.dtype) -> Family:
    """Components to a family: autoencoder in float32 on the device, everything larger by turns.

    Raises `ModelError` when transformer and autoencoder do not belong together.
    """
    bench = Workbench(device)
    autoencoder = WanAutoencoder(components.vae.to(device, torch.float32).eval().requires_grad_(False))
    channels = components.transformers[0].config.in_channels
    if channels != 2 * autoencoder.z_dim + facts.geometry.group:
        raise ModelError(
            f"{facts.name}: {channels} input channels do not fit an autoencoder of {autoencoder.z_dim}; give its own vae folder"
        )
    prompts = PromptEncoder(components.text_encoder.eval().requires_grad_(False), components.tokenizer, facts.text_length, bench)
    pictures = None
    if components.image_encoder is not None:
        pictures = PictureEncoder(components.image_encoder.eval().requires_grad_(False), facts.last_frame, bench)

    def staged(transformer: nn.Module, part: str, times: tuple[float, float]) -> StagedWan:
        return StagedWan(
            WanParts(
                name=facts.name,
                geometry=facts.geometry,
                transformer=sparing(settle(transformer, dtype)),
                autoencoder=autoencoder,
                embed_prompt=prompts,
                embed_image=pictures,
                device=device,
                dtype=dtype,
                last_frame=facts.last_frame,
                part=part,
                times=times,
            ),
            bench,
        )

    if facts.boundary is None:
        return staged(components.transformers[0], "", (0.0, 1.0))
    high, low = components.transformers
    return ExpertPair(staged(high, HIGH, (facts.boundary, 1.0)), staged(low, LOW, (0.0, facts.boundary)))


def sparing(transformer: Any) -> nn.Module:
    """The transformer with gradient checkpointing: training keeps one hidden state per block and computes the rest again."""
    transformer.enable_gradient_checkpointing()
    spared: nn.Module = transformer
    return spared


def load_components(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype, kinds: Kinds = WAN_KINDS) -> Components:
    """Read a folder in diffusers' layout, or a Hub repository (downloaded where it is not), into main memory.

    The transformer's configuration is held against the catalogue's before any weights are read. `device` is where the components will
    work, for loaders that can read straight to it. Raises `ModelError` with what to do.
    """
    if facts.layout == "original" and source == facts.repo:
        raise ModelError(f"{facts.name}: {source} holds single files; convert it, and give its folder as --model {facts.name}@FOLDER")
    place: dict[str, Any] = {"local_files_only": offline() or weights_at(facts, source) is not None}
    check_configs(facts, source, place["local_files_only"], kinds.companions)
    import diffusers
    import transformers

    with reading(facts, source):
        tokenizer = load_tokenizer(source, place)
        kind = getattr(diffusers, facts.transformer_config()["_class_name"])
        parts = tuple(kind.from_pretrained(source, subfolder=part, torch_dtype=dtype, **place) for part in facts.parts)
        vae = getattr(diffusers, kinds.vae).from_pretrained(source, subfolder="vae", torch_dtype=torch.float32, **place)
        text_encoder = getattr(transformers, kinds.text_encoder).from_pretrained(source, subfolder="text_encoder", dtype=dtype, **place)
        image_encoder = None
        if facts.image_encoder:
            image_encoder = transformers.CLIPVisionModel.from_pretrained(source, subfolder="image_encoder", dtype=torch.float32, **place)
    return Components(parts, vae, text_encoder, tokenizer, image_encoder)


def load_tokenizer(source: str, place: dict[str, Any]) -> Callable[..., Any]:
    """The tokenizer, before anything large is read. Raises `ModelError` for a kind that needs a library which is not installed."""
    import transformers

    # Told the encoder's configuration, it looks for none beside the tokenizer: there is none, which ends offline loading from the Hub.
    config = transformers.AutoConfig.from_pretrained(source, subfolder="text_encoder", **place)
    try:
        tokenizer: Callable[..., Any] = transformers.AutoTokenizer.from_pretrained(source, subfolder="tokenizer", config=config, **place)
    except (ImportError, ValueError) as error:
        raise ModelError(f"{source}: cannot read its tokenizer; if that is a SentencePiece file, `pip install 'lora-edit[ltx]'`") from error
    return tokenizer


def check_configs(
    facts: ModelFacts, source: str, local_files_only: bool, companions: tuple[tuple[str, str, str], ...] = WAN_KINDS.companions
) -> None:
    """Hold each part's configuration against the catalogue's, reading nothing else. Raises `ModelError`."""
    wanted = facts.transformer_config()
    checks = [(part, wanted) for part in facts.parts]
    checks += [(part, {own: wanted[key]}) for part, own, key in companions if part != "image_encoder" or facts.image_encoder]
    for part, shape in checks:
        faults = differences(_config(facts, source, part, local_files_only), shape)
        if faults:
            raise ModelError(f"{source}: {part} is not that of {facts.name} ({'; '.join(faults[:3])}); choose its own model or folder")


def _config(facts: ModelFacts, source: str, part: str, local_files_only: bool) -> dict[str, Any]:
    if Path(source).is_dir():
        return read_config(Path(source), part)
    from diffusers import WanTransformer3DModel

    with reading(facts, source):
        found: dict[str, Any] = WanTransformer3DModel.load_config(source, subfolder=part, local_files_only=local_files_only)
    return found


@contextmanager
def reading(facts: ModelFacts, source: str) -> Iterator[None]:
    """Turn the libraries' failures to find or read a file into one `ModelError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        folder = Path(source)
        if folder.is_dir():
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{folder}: a part of {facts.name} cannot be read ({first}); download the folder again") from error
        raise ModelError(
            f"{facts.name}: {source} is not downloaded and {why_not(error)}; get it with `hf download {source}` (about "
            f"{facts.download_gb:g} GB), or give a folder as --model {facts.name}@FOLDER"
        ) from error


def why_not(error: BaseException) -> str:
    """What kept a file from being downloaded, by the Hub library's own error somewhere behind this one."""
    kinds = set()
    behind: BaseException | None = error
    while behind is not None:
        kinds.add(type(behind).__name__)
        behind = behind.__cause__ or behind.__context__
    if offline():
        return "the network is switched off (HF_HUB_OFFLINE)"
    if "GatedRepoError" in kinds:
        return "its licence has to be accepted on the Hub first (then `hf auth login`)"
    if "RepositoryNotFoundError" in kinds:
        return "the Hub knows no such repository"
    return "the Hub cannot be reached or lacks a file of it"


def offline() -> bool:
    """Has the person told the Hub's library to stay off the network?"""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"}
