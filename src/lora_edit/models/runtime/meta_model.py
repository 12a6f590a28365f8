"""A family and a sample on torch's meta device: the real code with shapes instead of values, to count costs without weights."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from lora_edit.models.family import EncodedSample, Expert, Family, LatentShape
from lora_edit.models.record import ModelRecord, import_target
from lora_edit.models.runtime.step_cost import LiveMemoryTracker
from lora_edit.types import Size


def has_meta_model(record: ModelRecord) -> bool:
    """Check whether a model can be built on the meta device: whether its record names a `meta_sample`."""
    return bool(record.meta_sample)


def build_meta_model(record: ModelRecord, latent_shape: LatentShape, dtype: torch.dtype) -> tuple[Expert, EncodedSample]:
    """Build the first expert of a model and a sample of `latent_shape` on the meta device; further experts have the same costs."""
    family: Family = import_target(record.loader)(record, "", torch.device("meta"), dtype)
    sample: EncodedSample = import_target(record.meta_sample)(record, latent_shape, dtype)
    return family.experts()[0], sample


@lru_cache(maxsize=8)
def count_codec_bytes(record: ModelRecord, size: Size) -> tuple[int, int]:
    """Count the peak bytes of the record's `meta_autoencoder` in encoding and in decoding, in float32, at a frame size; zeros without one.

    It processes one latent frame of a clip at a time, so the length of the clip does not matter.
    """
    if not record.meta_autoencoder:
        return 0, 0
    import diffusers

    geometry = record.geometry
    num_frames = 2 * geometry.temporal_compression + 1
    with torch.device("meta"), torch.no_grad():
        vae: Any = getattr(diffusers, record.meta_autoencoder)()
        latents = torch.empty(
            1, vae.config.z_dim, 3, size.height // geometry.spatial_compression, size.width // geometry.spatial_compression
        )
        with LiveMemoryTracker() as encoding:
            vae.encode(torch.empty(1, 3, num_frames, size.height, size.width))
        with LiveMemoryTracker() as decoding:
            vae.decode(latents)
    weight_bytes = sum(parameter.nbytes for parameter in vae.parameters())
    return encoding.peak_bytes + weight_bytes, decoding.peak_bytes + weight_bytes
