"""Loading LTX-2: a folder in diffusers' layout or a Hub repository to components, and components to a `Family`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_edit.errors import ModelError
from lora_edit.models.checkpoints.module_loader import (
    ModuleLoader,
    build_autoencoder_loader,
    build_lazy_module,
    convert_read_errors,
    verify_parts_and_memory,
)
from lora_edit.models.checkpoints.single_file import build_empty_module
from lora_edit.models.families.base import ExpertPair, TransformerFamily, build_family, build_meta_module
from lora_edit.models.families.ltx.encoders import LtxAutoencoder
from lora_edit.models.families.ltx2.conditioning import Ltx2Family
from lora_edit.models.families.ltx2.encoders import GemmaPromptEncoder
from lora_edit.models.family import build_meta_transformer
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.lazy_module import LazyModule, to_lazy_module


@dataclass(frozen=True)
class Ltx2Components:
    """A checkpoint's modules as diffusers and transformers load them; those of the sound are not read.

    The autoencoder is in float32. The transformer is in memory; all else that comes from files is read at its first use.
    """

    transformer: Any
    vae: nn.Module | LazyModule
    text_encoder: nn.Module | LazyModule
    tokenizer: Callable[..., Any]
    connectors: nn.Module | LazyModule


def load_ltx2(record: ModelRecord, source: str, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Load an LTX-2; the loader of its records. Raises `ModelError`."""
    components = build_meta_components(record) if device.type == "meta" else load_components(record, source, dtype)
    return build_ltx2(components, record, device, dtype)


def build_ltx2(components: Ltx2Components, record: ModelRecord, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Build the family from components, which take turns on the device; the autoencoder stays in float32.

    Raises `ModelError` for an autoencoder whose decoder draws noise that nothing seeds.
    """
    vae = to_lazy_module(components.vae)
    if any(vae.config.decoder_inject_noise):
        raise ModelError(f"{record.name}: its decoder makes another clip each time; give the vae folder of {record.name}")
    device_manager = DeviceManager(device)
    text_encoder, connectors = to_lazy_module(components.text_encoder), to_lazy_module(components.connectors)
    return build_family(
        Ltx2Family,
        record,
        (components.transformer,),
        autoencoder=ManagedAutoencoder(LtxAutoencoder, vae, vae.config.latent_channels, device_manager),
        text_encoder=GemmaPromptEncoder(text_encoder, connectors, components.tokenizer, record.text_length, device_manager),
        image_encoder=None,
        device_manager=device_manager,
        dtype=dtype,
    )


def build_meta_components(record: ModelRecord) -> Ltx2Components:
    """Build components on torch's meta device."""
    z_dim = record.read_transformer_config()["out_channels"]
    return Ltx2Components(
        transformer=build_meta_transformer(record),
        vae=build_meta_module(latent_channels=z_dim, decoder_inject_noise=(False,)),
        text_encoder=build_meta_module(),
        tokenizer=lambda *_, **__: None,
        connectors=build_meta_module(),
    )


def load_components(record: ModelRecord, source: str, dtype: torch.dtype) -> Ltx2Components:
    """Read a folder in diffusers' layout, or a downloaded Hub repository, into main memory.

    Everything that needs no weights is checked first. Raises `ModelError` with what to do.
    """
    import diffusers
    import transformers
    from diffusers.pipelines.ltx2 import LTX2TextConnectors

    parts = verify_parts_and_memory(record, source, dtype)
    folders = {name: part_files.folder or part_files.files[0].parent for name, part_files in parts.items()}

    def build_part(loader: ModuleLoader, *names: str) -> LazyModule:
        return build_lazy_module(record, source, tuple(parts[name] for name in names), loader)

    def read(model_class: Any, part: str) -> Any:
        return model_class.from_pretrained(folders[part], dtype=dtype, local_files_only=True)

    with convert_read_errors(record, source):
        text_config = transformers.AutoConfig.from_pretrained(folders["text_encoder"], local_files_only=True)
        connectors_config = LTX2TextConnectors.load_config(folders["connectors"], local_files_only=True)
        connectors = build_empty_module(lambda: LTX2TextConnectors.from_config(connectors_config))
        return Ltx2Components(
            transformer=read(diffusers.LTX2VideoTransformer3DModel, record.transformer_parts[0]),
            vae=build_part(build_autoencoder_loader(diffusers.AutoencoderKLLTX2Video, folders["vae"]), "vae"),
            text_encoder=build_part(
                ModuleLoader(text_config, lambda: read(transformers.AutoModelForImageTextToText, "text_encoder"), dtype),
                "text_encoder",
                "tokenizer",
            ),
            tokenizer=transformers.AutoTokenizer.from_pretrained(folders["tokenizer"], config=text_config, local_files_only=True),
            connectors=build_part(ModuleLoader(connectors.config, lambda: read(LTX2TextConnectors, "connectors"), dtype), "connectors"),
        )
