"""Loading Wan2.2 TI2V-5B and Wan2.2-Fun-5B-InP: Wan's blocks without image encoder, and 48 latent channels on cells of 16 pixels."""

from __future__ import annotations

import torch

from lora_edit.errors import ModelError
from lora_edit.models.families.base import ExpertPair, TransformerFamily, build_family
from lora_edit.models.families.wan.encoders import PromptEncoder, WanAutoencoder
from lora_edit.models.families.wan.loading import Components, build_wan, load_components
from lora_edit.models.families.wan_ti2v.conditioning import WanFunTI2VFamily, WanTI2VFamily
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.lazy_module import to_lazy_module


def load_ti2v(record: ModelRecord, source: str, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Load Wan2.2 TI2V-5B; the loader of its record. Raises `ModelError`."""
    return build_ti2v(load_components(record, source, device, dtype), record, device, dtype)


def build_ti2v(components: Components, record: ModelRecord, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Build the family from components, which take turns on the device; the autoencoder stays in float32.

    Raises `ModelError` when transformer and autoencoder do not belong together.
    """
    device_manager = DeviceManager(device)
    vae = to_lazy_module(components.vae)
    autoencoder = ManagedAutoencoder(WanAutoencoder, vae, vae.config.z_dim, device_manager)
    channels = components.transformers[0].config.in_channels
    if channels != autoencoder.z_dim:
        raise ModelError(
            f"{record.name}: {channels} input channels do not fit an autoencoder of {autoencoder.z_dim}; give its own vae folder"
        )
    return build_family(
        WanTI2VFamily,
        record,
        components.transformers,
        autoencoder=autoencoder,
        text_encoder=PromptEncoder(to_lazy_module(components.text_encoder), components.tokenizer, record.text_length, device_manager),
        image_encoder=None,
        device_manager=device_manager,
        dtype=dtype,
    )


def load_fun_ti2v(record: ModelRecord, source: str, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Load Wan2.2-Fun-5B-InP; the loader of its record. Raises `ModelError`."""
    return build_fun_ti2v(load_components(record, source, device, dtype), record, device, dtype)


def build_fun_ti2v(components: Components, record: ModelRecord, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Build the family from components. Raises `ModelError` when transformer and autoencoder do not belong together."""
    return build_wan(components, record, device, dtype, layout=WanFunTI2VFamily)
