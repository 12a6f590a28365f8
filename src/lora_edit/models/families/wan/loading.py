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
from lora_edit.models.checkpoints.checks import check_memory, verify_parts
from lora_edit.models.checkpoints.file_identity import compute_file_identity
from lora_edit.models.checkpoints.gguf_file import load_gguf_text_encoder, load_gguf_transformer
from lora_edit.models.checkpoints.infer_config import get_key_renamer
from lora_edit.models.checkpoints.layout import GGUF_SUFFIX, SENTENCEPIECE_KEY, PartFiles
from lora_edit.models.checkpoints.sentencepiece_tokenizer import build_tokenizer
from lora_edit.models.checkpoints.single_file import build_empty_module, find_tensor_sources, load_weights
from lora_edit.models.families.wan.encoders import ImageEncoder, PromptEncoder
from lora_edit.models.families.wan.experts import HIGH_NOISE, LOW_NOISE, ExpertPair, ManagedWanFamily
from lora_edit.models.families.wan.family import WanAutoencoder, WanParts
from lora_edit.models.families.wan.key_names import KeyRenamer, rename_image_encoder_key, rename_text_encoder_key, rename_transformer_key
from lora_edit.models.family import Family
from lora_edit.models.record import CONFIG_FOLDER, ModelFacts
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.lazy_module import LazyModule, to_lazy_module
from lora_edit.models.runtime.precision import cast_and_freeze, is_kept_in_fp32


@dataclass(frozen=True)
class Components:
    """A checkpoint's modules as diffusers and transformers load them; `transformers` in the order of `ModelFacts.parts`.

    The autoencoder is in float32. What is read from files is read at its first use (`later.py`), but for the transformers.
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


def load_wan(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> Family:
    """The catalogue's loader of every Wan family. Raises `ModelError`."""
    return build_wan(load_components(facts, source, device, dtype), facts, device, dtype)


def build_wan(components: Components, facts: ModelFacts, device: torch.device, dtype: torch.dtype) -> Family:
    """Components to a family: autoencoder in float32, all by turns on the device.

    Raises `ModelError` when transformer and autoencoder do not belong together.
    """
    bench = DeviceManager(device)
    vae = to_lazy_module(components.vae)
    autoencoder = ManagedAutoencoder(WanAutoencoder, vae, vae.config.z_dim, bench)
    channels = components.transformers[0].config.in_channels
    if channels != 2 * autoencoder.z_dim + facts.geometry.temporal_compression:
        raise ModelError(
            f"{facts.name}: {channels} input channels do not fit an autoencoder of {autoencoder.z_dim}; give its own vae folder"
        )
    prompts = PromptEncoder(to_lazy_module(components.text_encoder), components.tokenizer, facts.text_length, bench)
    pictures = None
    if components.image_encoder is not None:
        pictures = ImageEncoder(to_lazy_module(components.image_encoder), facts.last_frame, bench)

    def staged(transformer: nn.Module, part: str, times: tuple[float, float]) -> ManagedWanFamily:
        return ManagedWanFamily(
            WanParts(
                name=facts.name,
                geometry=facts.geometry,
                transformer=enable_checkpointing(cast_and_freeze(transformer, dtype)),
                autoencoder=autoencoder,
                embed_prompt=prompts,
                embed_image=pictures,
                device=device,
                dtype=dtype,
                last_frame=facts.last_frame,
                part=part,
                time_range=times,
            ),
            bench,
        )

    if facts.boundary_ratio is None:
        return staged(components.transformers[0], "", (0.0, 1.0))
    high, low = components.transformers
    return ExpertPair(staged(high, HIGH_NOISE, (facts.boundary_ratio, 1.0)), staged(low, LOW_NOISE, (0.0, facts.boundary_ratio)))


def enable_checkpointing(transformer: Any) -> nn.Module:
    """The transformer with gradient checkpointing: training keeps one hidden state per block and computes the rest again."""
    transformer.enable_gradient_checkpointing()
    spared: nn.Module = transformer
    return spared


def load_components(
    facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype, classes: ComponentClasses = WAN_CLASSES
) -> Components:
    """Read a model into main memory from a folder, single files or the Hub library's folder (docs/loading.md); nothing is downloaded.

    Everything that can be checked without weights is checked first, of autoencoder and encoders too, which are read at their first use.
    `device` is where the components will work, for loaders that can read straight to it. Raises `ModelError` with what to do.
    """
    places = verify_parts_and_memory(facts, source, dtype)

    def part(unread: ModuleLoader, *names: str) -> LazyModule:
        return build_lazy_module(facts, source, tuple(places[name] for name in names), unread)

    with convert_read_errors(facts, source):
        tokenizer = _load_tokenizer(places["tokenizer"], _load_text_config(facts, places["text_encoder"]))
        text = part(_build_text_encoder_loader(facts, places["text_encoder"], dtype, classes), "text_encoder", "tokenizer")
        vae = part(_build_vae_loader(facts, places["vae"], classes), "vae")
        pictures = part(_build_image_encoder_loader(facts, places["image_encoder"]), "image_encoder") if facts.image_encoder else None
        transformers = tuple(_load_transformer(facts, places[name], dtype) for name in facts.transformer_parts)
        return Components(transformers, vae, text, tokenizer, pictures)


@dataclass(frozen=True)
class ModuleLoader:
    """A module that is known but for its weights: its configuration, how they are read, and their number format."""

    config: Any
    load: Callable[[], nn.Module]
    dtype: torch.dtype = torch.float32


def build_lazy_module(facts: ModelFacts, source: str, parts: tuple[PartFiles, ...], loader: ModuleLoader) -> LazyModule:
    """The module in its files; `places` are those of all that decides what it says, its own and its reader's."""

    def read() -> nn.Module:
        with convert_read_errors(facts, source):
            return loader.load()

    def identify() -> str:
        with convert_read_errors(facts, source):
            return f"{compute_file_identity(*parts)} {loader.dtype}"

    return LazyModule(read, loader.config, identify)


def build_folder_loader(model_class: Any, folder: Path, dtype: torch.dtype) -> ModuleLoader:
    """A model of transformers in a folder of its own layout."""
    config = model_class.config_class.from_pretrained(folder, local_files_only=True)
    return ModuleLoader(config, lambda: model_class.from_pretrained(folder, dtype=dtype, local_files_only=True), dtype)


def build_autoencoder_loader(model_class: Any, folder: Path) -> ModuleLoader:
    """An autoencoder of diffusers in a folder of its layout, for float32."""
    # A file of an older version may lack settings, which the class adds.
    config = build_empty_module(lambda: model_class.from_config(model_class.load_config(folder, local_files_only=True))).config
    return ModuleLoader(config, lambda: model_class.from_pretrained(folder, dtype=torch.float32, local_files_only=True))


def _build_file_loader(
    build: Callable[[], nn.Module], part_files: PartFiles, rename_key: KeyRenamer, get_dtype: Callable[[str], torch.dtype]
) -> ModuleLoader:
    """A module in single files, which are refused now when they do not hold exactly this one."""
    outline = build_empty_module(build)
    find_tensor_sources(outline, part_files.files, rename_key)
    return ModuleLoader(outline.config, lambda: load_weights(build_empty_module(build), part_files.files, rename_key, get_dtype))


def verify_parts_and_memory(facts: ModelFacts, source: str, dtype: torch.dtype) -> dict[str, PartFiles]:
    """Where each part lies, after everything was checked that can be without its weights. Raises `ModelError` with what to do."""
    places = verify_parts(facts, source)
    check_memory(facts, places, {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}[dtype])
    return places


def _load_transformer(facts: ModelFacts, part_files: PartFiles, dtype: torch.dtype) -> Any:
    import diffusers

    config = facts.read_transformer_config()
    kind = getattr(diffusers, config["_class_name"])
    if part_files.folder is not None:
        return kind.from_pretrained(part_files.folder, dtype=dtype, local_files_only=True)
    if part_files.files[0].suffix == GGUF_SUFFIX:
        return load_gguf_transformer(kind, config, CONFIG_FOLDER / facts.config, part_files.files[0], dtype)
    module = build_empty_module(lambda: kind.from_config(config))
    return load_weights(
        module, part_files.files, rename_transformer_key, lambda name: torch.float32 if is_kept_in_fp32(module, name) else dtype
    )


def _build_vae_loader(facts: ModelFacts, part_files: PartFiles, classes: ComponentClasses) -> ModuleLoader:
    import diffusers

    kind = getattr(diffusers, classes.vae)
    if part_files.folder is not None:
        return build_autoencoder_loader(kind, part_files.folder)
    config = facts.read_companion_configs()["vae"]
    return _build_file_loader(lambda: kind.from_config(config), part_files, get_key_renamer("vae", config), lambda name: torch.float32)


def _load_text_config(facts: ModelFacts, part_files: PartFiles) -> Any:
    from transformers import AutoConfig, UMT5Config

    if part_files.folder is not None:
        return AutoConfig.from_pretrained(part_files.folder, local_files_only=True)
    return UMT5Config(**facts.read_companion_configs()["text_encoder"])


def _build_text_encoder_loader(facts: ModelFacts, part_files: PartFiles, dtype: torch.dtype, classes: ComponentClasses) -> ModuleLoader:
    import transformers

    kind = getattr(transformers, classes.text_encoder)
    if part_files.folder is not None:
        return build_folder_loader(kind, part_files.folder, dtype)
    if part_files.files[0].suffix == GGUF_SUFFIX:
        wanted = _load_text_config(facts, part_files)
        return ModuleLoader(wanted, lambda: load_gguf_text_encoder(kind, wanted, part_files.files[0], dtype), dtype)

    def number_format(name: str) -> torch.dtype:
        # Its second feed-forward layer overflows in float16, so transformers keeps it wide there.
        return torch.float32 if dtype == torch.float16 and ".wo." in name else dtype

    return replace(
        _build_file_loader(lambda: kind(_load_text_config(facts, part_files)), part_files, rename_text_encoder_key, number_format),
        dtype=dtype,
    )


def _load_tokenizer(part_files: PartFiles, config: Any) -> Any:
    if part_files.folder is not None:
        from transformers import AutoTokenizer

        # Told the encoder's configuration, it looks for none beside the tokenizer, where there is none.
        return AutoTokenizer.from_pretrained(part_files.folder, config=config, local_files_only=True)
    if part_files.files[0].suffix != ".safetensors":
        return build_tokenizer(part_files.files[0].read_bytes(), str(part_files.files[0]))
    from safetensors import safe_open

    with safe_open(part_files.files[0], framework="numpy") as file:
        return build_tokenizer(file.get_tensor(SENTENCEPIECE_KEY).tobytes(), str(part_files.files[0]))


def _build_image_encoder_loader(facts: ModelFacts, part_files: PartFiles) -> ModuleLoader:
    from transformers import CLIPVisionConfig, CLIPVisionModel

    if part_files.folder is not None:
        return build_folder_loader(CLIPVisionModel, part_files.folder, torch.float32)
    config = CLIPVisionConfig(**facts.read_companion_configs()["image_encoder"])
    return _build_file_loader(lambda: CLIPVisionModel(config), part_files, rename_image_encoder_key, lambda name: torch.float32)


@contextmanager
def convert_read_errors(facts: ModelFacts, source: str) -> Iterator[None]:
    """Turn the libraries' failures to read a file into one `ModelError`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{source}: a part of {facts.name} cannot be read ({first}); download it again") from error
