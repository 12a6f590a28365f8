"""Loading families: from folders and single files to components, and from components to a `Family`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.catalog.checks import check_memory, survey
from lora_edit.models.catalog.facts import CONFIGS, ModelFacts
from lora_edit.models.catalog.places import GGUF, SPIECE, Place
from lora_edit.models.catalog.shapes import renames
from lora_edit.models.experts import HIGH, LOW, ExpertPair, StagedWan
from lora_edit.models.family import Family
from lora_edit.models.gguf_file import load_gguf
from lora_edit.models.precision import kept_in_fp32, settle
from lora_edit.models.single_file import empty, fill
from lora_edit.models.spiece import tokenizer_from
from lora_edit.models.wan import WanAutoencoder, WanParts
from lora_edit.models.wan_encoders import PictureEncoder, PromptEncoder
from lora_edit.models.wan_keys import picture_names, text_names, transformer_names
from lora_edit.models.workbench import TurnsAutoencoder, Workbench


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
    """Classes of a checkpoint's autoencoder and text encoder, in diffusers and transformers."""

    vae: str
    text_encoder: str


WAN_KINDS = Kinds(vae="AutoencoderKLWan", text_encoder="UMT5EncoderModel")


def load_wan(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> Family:
    """The catalogue's loader of every Wan family. Raises `ModelError`."""
    return build_wan(load_components(facts, source, device, dtype), facts, device, dtype)


def build_wan(components: Components, facts: ModelFacts, device: torch.device, dtype: torch.dtype) -> Family:
    """Components to a family: autoencoder in float32, all by turns on the device.

    Raises `ModelError` when transformer and autoencoder do not belong together.
    """
    bench = Workbench(device)
    vae = components.vae.float().eval().requires_grad_(False)
    autoencoder = TurnsAutoencoder(WanAutoencoder(vae), vae, bench)
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
    """Read a model into main memory from a folder, single files or the Hub library's folder (docs/loading.md); nothing is downloaded.

    Everything that can be checked without its weights is checked first. `device` is where the components will work, for loaders that can
    read straight to it. Raises `ModelError` with what to do.
    """
    places = at_places(facts, source, dtype)
    with reading(facts, source):
        tokenizer = _tokenizer(places["tokenizer"], _text_config(facts, places["text_encoder"]))
        transformers = tuple(_transformer(facts, places[part], dtype) for part in facts.parts)
        vae, text_encoder = _vae(facts, places["vae"], kinds), _text_encoder(facts, places["text_encoder"], dtype, kinds)
        image_encoder = _image_encoder(facts, places["image_encoder"]) if facts.image_encoder else None
        return Components(transformers, vae, text_encoder, tokenizer, image_encoder)


def at_places(facts: ModelFacts, source: str, dtype: torch.dtype) -> dict[str, Place]:
    """Where each part lies, after everything was checked that can be without its weights. Raises `ModelError` with what to do."""
    places = survey(facts, source)
    check_memory(facts, places, {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}[dtype])
    return places


def _transformer(facts: ModelFacts, place: Place, dtype: torch.dtype) -> Any:
    import diffusers

    config = facts.transformer_config()
    kind = getattr(diffusers, config["_class_name"])
    if place.folder is not None:
        return kind.from_pretrained(place.folder, dtype=dtype, local_files_only=True)
    if place.files[0].suffix == GGUF:
        return load_gguf(kind, config, CONFIGS / facts.config, place.files[0], dtype)
    module = empty(lambda: kind.from_config(config))
    return fill(module, place.files, transformer_names, lambda name: torch.float32 if kept_in_fp32(module, name) else dtype)


def _vae(facts: ModelFacts, place: Place, kinds: Kinds) -> Any:
    import diffusers

    kind = getattr(diffusers, kinds.vae)
    if place.folder is not None:
        return kind.from_pretrained(place.folder, dtype=torch.float32, local_files_only=True)
    config = facts.companion_configs()["vae"]
    module = empty(lambda: kind.from_config(config))
    return fill(module, place.files, renames("vae", config), lambda name: torch.float32)


def _text_config(facts: ModelFacts, place: Place) -> Any:
    from transformers import AutoConfig, UMT5Config

    if place.folder is not None:
        return AutoConfig.from_pretrained(place.folder, local_files_only=True)
    return UMT5Config(**facts.companion_configs()["text_encoder"])


def _text_encoder(facts: ModelFacts, place: Place, dtype: torch.dtype, kinds: Kinds) -> Any:
    import transformers

    kind = getattr(transformers, kinds.text_encoder)
    if place.folder is not None:
        return kind.from_pretrained(place.folder, dtype=dtype, local_files_only=True)
    module = empty(lambda: kind(_text_config(facts, place)))

    def number_format(name: str) -> torch.dtype:
        # Its second feed-forward layer overflows in float16, so transformers keeps it wide there.
        return torch.float32 if dtype == torch.float16 and ".wo." in name else dtype

    return fill(module, place.files, text_names, number_format)


def _tokenizer(place: Place, config: Any) -> Any:
    if place.folder is not None:
        from transformers import AutoTokenizer

        # Told the encoder's configuration, it looks for none beside the tokenizer, where there is none.
        return AutoTokenizer.from_pretrained(place.folder, config=config, local_files_only=True)
    if place.files[0].suffix != ".safetensors":
        return tokenizer_from(place.files[0].read_bytes(), str(place.files[0]))
    from safetensors import safe_open

    with safe_open(place.files[0], framework="numpy") as file:
        return tokenizer_from(file.get_tensor(SPIECE).tobytes(), str(place.files[0]))


def _image_encoder(facts: ModelFacts, place: Place) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    if place.folder is not None:
        return CLIPVisionModel.from_pretrained(place.folder, dtype=torch.float32, local_files_only=True)
    module = empty(lambda: CLIPVisionModel(CLIPVisionConfig(**facts.companion_configs()["image_encoder"])))
    return fill(module, place.files, picture_names, lambda name: torch.float32)


@contextmanager
def reading(facts: ModelFacts, source: str) -> Iterator[None]:
    """Turn the libraries' failures to read a file into one `ModelError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{source}: a part of {facts.name} cannot be read ({first}); download it again") from error
