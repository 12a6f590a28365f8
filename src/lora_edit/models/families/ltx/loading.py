"""Loading LTX-Video 0.9."""

from __future__ import annotations

from functools import partial

import torch

from lora_edit.errors import ModelError
from lora_edit.models.families.base import ExpertPair, TransformerFamily, build_family
from lora_edit.models.families.ltx.conditioning import LtxFamily
from lora_edit.models.families.ltx.encoders import LtxAutoencoder, UnpaddedPromptEncoder, has_causal_fix
from lora_edit.models.families.wan.encoders import PromptEncoder
from lora_edit.models.families.wan.loading import ComponentClasses, Components, build_meta_components, load_components
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.lazy_module import to_lazy_module

LTX_CLASSES = ComponentClasses(vae="AutoencoderKLLTXVideo", text_encoder="T5EncoderModel")


def load_ltx(record: ModelRecord, source: str, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Load LTX-Video; the loader of its record. On torch's meta device it is 0.9.5. Raises `ModelError`."""
    if device.type == "meta":
        z_dim = record.read_transformer_config()["out_channels"]
        components = build_meta_components(
            record, latent_channels=z_dim, decoder_inject_noise=(False,), down_block_types=("LTXVideo095DownBlock3D",)
        )
    else:
        components = load_components(record, source, device, dtype, LTX_CLASSES)
    return build_ltx(components, record, device, dtype)


def build_ltx(components: Components, record: ModelRecord, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Build the family from components, which take turns on the device; the autoencoder stays in float32.

    Raises `ModelError` for the autoencoder of 0.9.1, whose decoder draws noise that nothing seeds.
    """
    vae = to_lazy_module(components.vae)
    if any(vae.config.decoder_inject_noise):
        raise ModelError(f"{record.name}: the decoder of 0.9.1 makes another clip each time; give the folder of another version, as 0.9.5")
    device_manager = DeviceManager(device)
    prompt_encoder = PromptEncoder(to_lazy_module(components.text_encoder), components.tokenizer, record.text_length, device_manager)
    return build_family(
        partial(LtxFamily, causal_fix=has_causal_fix(vae.config)),
        record,
        components.transformers,
        autoencoder=ManagedAutoencoder(LtxAutoencoder, vae, vae.config.latent_channels, device_manager),
        text_encoder=UnpaddedPromptEncoder(prompt_encoder),
        image_encoder=None,
        device_manager=device_manager,
        dtype=dtype,
    )
