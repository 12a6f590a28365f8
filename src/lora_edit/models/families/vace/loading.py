"""Loading VACE."""

from __future__ import annotations

import torch

from lora_edit.errors import ModelError
from lora_edit.models.families.base import ExpertPair, TransformerFamily, build_family
from lora_edit.models.families.vace.conditioning import VaceFamily
from lora_edit.models.families.wan.encoders import PromptEncoder, WanAutoencoder
from lora_edit.models.families.wan.loading import Components, load_components
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.lazy_module import to_lazy_module


def load_vace(record: ModelRecord, source: str, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Load VACE from a folder in diffusers' layout or a Hub repository; the loader of its records. Raises `ModelError`."""
    return build_vace(load_components(record, source, device, dtype), record, device, dtype)


def build_vace(components: Components, record: ModelRecord, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Build the family from components, which take turns on the device; the autoencoder stays in float32. Raises `ModelError`."""
    device_manager = DeviceManager(device)
    vae = to_lazy_module(components.vae)
    autoencoder = ManagedAutoencoder(WanAutoencoder, vae, vae.config.z_dim, device_manager)
    config = components.transformers[0].config
    channels = 2 * autoencoder.z_dim + record.geometry.spatial_compression**2
    if config.vace_in_channels != channels:
        raise ModelError(f"{record.name}: {config.vace_in_channels} control channels, {channels} expected; give its own vae folder")
    return build_family(
        VaceFamily,
        record,
        components.transformers,
        autoencoder=autoencoder,
        text_encoder=PromptEncoder(to_lazy_module(components.text_encoder), components.tokenizer, record.text_length, device_manager),
        image_encoder=None,
        device_manager=device_manager,
        dtype=dtype,
    )
