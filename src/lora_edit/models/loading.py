"""Loading families: from folders and single files to components, and from components to a `Family`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.catalog.checks import check_memory, survey
from lora_edit.models.catalog.facts import CONFIGS, ModelFacts
from lora_edit.models.catalog.identity import identity
from lora_edit.models.catalog.places import GGUF, SPIECE, Place
from lora_edit.models.catalog.shapes import renames
from lora_edit.models.experts import HIGH, LOW, ExpertPair, StagedWan
from lora_edit.models.family import Family
from lora_edit.models.gguf_file import load_gguf, load_gguf_text
from lora_edit.models.later import Later, later
from lora_edit.models.precision import kept_in_fp32, settle
from lora_edit.models.single_file import empty, fill, sources_of
from lora_edit.models.spiece import tokenizer_from
from lora_edit.models.wan import WanAutoencoder, WanParts
from lora_edit.models.wan_encoders import PictureEncoder, PromptEncoder
from lora_edit.models.wan_keys import Rename, picture_names, text_names, transformer_names
from lora_edit.models.workbench import TurnsAutoencoder, Workbench


@dataclass(frozen=True)
class Components:
    """A checkpoint's modules as diffusers and transformers load them; `transformers` in the order of `ModelFacts.parts`.

    The autoencoder is in float32. What is read from files is read at its first use (`later.py`), but for the transformers.
    """

    transformers: tuple[Any, ...]
    vae: nn.Module | Later
    text_encoder: nn.Module | Later
    tokenizer: Callable[..., Any]
    image_encoder: nn.Module | Later | None = None


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
    vae = later(components.vae)
    autoencoder = TurnsAutoencoder(WanAutoencoder, vae, vae.config.z_dim, bench)
    channels = components.transformers[0].config.in_channels
    if channels != 2 * autoencoder.z_dim + facts.geometry.group:
        raise ModelError(
            f"{facts.name}: {channels} input channels do not fit an autoencoder of {autoencoder.z_dim}; give its own vae folder"
        )
    prompts = PromptEncoder(later(components.text_encoder), components.tokenizer, facts.text_length, bench)
    pictures = None
    if components.image_encoder is not None:
        pictures = PictureEncoder(later(components.image_encoder), facts.last_frame, bench)

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

    Everything that can be checked without weights is checked first, of autoencoder and encoders too, which are read at their first use.
    `device` is where the components will work, for loaders that can read straight to it. Raises `ModelError` with what to do.
    """
    places = at_places(facts, source, dtype)

    def part(unread: Unread, *names: str) -> Later:
        return waiting(facts, source, tuple(places[name] for name in names), unread)

    with reading(facts, source):
        tokenizer = _tokenizer(places["tokenizer"], _text_config(facts, places["text_encoder"]))
        text = part(_text_encoder(facts, places["text_encoder"], dtype, kinds), "text_encoder", "tokenizer")
        vae = part(_vae(facts, places["vae"], kinds), "vae")
        pictures = part(_image_encoder(facts, places["image_encoder"]), "image_encoder") if facts.image_encoder else None
        transformers = tuple(_transformer(facts, places[name], dtype) for name in facts.parts)
        return Components(transformers, vae, text, tokenizer, pictures)


@dataclass(frozen=True)
class Unread:
    """A module that is known but for its weights: its configuration, how they are read, and their number format."""

    config: Any
    read: Callable[[], nn.Module]
    dtype: torch.dtype = torch.float32


def waiting(facts: ModelFacts, source: str, places: tuple[Place, ...], unread: Unread) -> Later:
    """The module in its files; `places` are those of all that decides what it says, its own and its reader's."""

    def read() -> nn.Module:
        with reading(facts, source):
            return unread.read()

    def identify() -> str:
        with reading(facts, source):
            return f"{identity(*places)} {unread.dtype}"

    return Later(read, unread.config, identify)


def from_folder(kind: Any, folder: Path, dtype: torch.dtype) -> Unread:
    """A model of transformers in a folder of its own layout."""
    config = kind.config_class.from_pretrained(folder, local_files_only=True)
    return Unread(config, lambda: kind.from_pretrained(folder, dtype=dtype, local_files_only=True), dtype)


def autoencoder_from(kind: Any, folder: Path) -> Unread:
    """An autoencoder of diffusers in a folder of its layout, for float32."""
    # A file of an older version may lack settings, which the class adds.
    config = empty(lambda: kind.from_config(kind.load_config(folder, local_files_only=True))).config
    return Unread(config, lambda: kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True))


def _from_files(build: Callable[[], nn.Module], place: Place, rename: Rename, dtypes: Callable[[str], torch.dtype]) -> Unread:
    """A module in single files, which are refused now when they do not hold exactly this one."""
    outline = empty(build)
    sources_of(outline, place.files, rename)
    return Unread(outline.config, lambda: fill(empty(build), place.files, rename, dtypes))


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


def _vae(facts: ModelFacts, place: Place, kinds: Kinds) -> Unread:
    import diffusers

    kind = getattr(diffusers, kinds.vae)
    if place.folder is not None:
        return autoencoder_from(kind, place.folder)
    config = facts.companion_configs()["vae"]
    return _from_files(lambda: kind.from_config(config), place, renames("vae", config), lambda name: torch.float32)


def _text_config(facts: ModelFacts, place: Place) -> Any:
    from transformers import AutoConfig, UMT5Config

    if place.folder is not None:
        return AutoConfig.from_pretrained(place.folder, local_files_only=True)
    return UMT5Config(**facts.companion_configs()["text_encoder"])


def _text_encoder(facts: ModelFacts, place: Place, dtype: torch.dtype, kinds: Kinds) -> Unread:
    import transformers

    kind = getattr(transformers, kinds.text_encoder)
    if place.folder is not None:
        return from_folder(kind, place.folder, dtype)
    if place.files[0].suffix == GGUF:
        wanted = _text_config(facts, place)
        return Unread(wanted, lambda: load_gguf_text(kind, wanted, place.files[0], dtype), dtype)

    def number_format(name: str) -> torch.dtype:
        # Its second feed-forward layer overflows in float16, so transformers keeps it wide there.
        return torch.float32 if dtype == torch.float16 and ".wo." in name else dtype

    return replace(_from_files(lambda: kind(_text_config(facts, place)), place, text_names, number_format), dtype=dtype)


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


def _image_encoder(facts: ModelFacts, place: Place) -> Unread:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    if place.folder is not None:
        return from_folder(CLIPVisionModel, place.folder, torch.float32)
    config = CLIPVisionConfig(**facts.companion_configs()["image_encoder"])
    return _from_files(lambda: CLIPVisionModel(config), place, picture_names, lambda name: torch.float32)


@contextmanager
def reading(facts: ModelFacts, source: str) -> Iterator[None]:
    """Turn the libraries' failures to read a file into one `ModelError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{source}: a part of {facts.name} cannot be read ({first}); download it again") from error
