"""Peak memory of an autoencoder at a frame size, in milliseconds: its own loops over tiles and frames run on torch's meta device.

The encoder and decoder inside are replaced by allocations of the size that they were counted to need per pixel of a frame
(`configs/autoencoders.json`, written by `tools/autoencoder_memory.py`): counting them takes seconds, and their memory is proportional to
the area. What is around them - tiles that wait for others, clips that grow frame by frame, blending - is that of the real code.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from lora_edit.models.record import CONFIG_FOLDER, ModelRecord, import_target, read_config_file
from lora_edit.models.runtime.step_cost import LiveMemoryTracker
from lora_edit.types import Size

AUTOENCODERS_FILE = CONFIG_FOLDER / "autoencoders.json"


@dataclass(frozen=True)
class AutoencoderCost:
    """An autoencoder's class, the family's adapter around it, its configuration, and the memory of its encoder and decoder.

    `encoder_bytes` and `decoder_bytes` are peak bytes per pixel of a frame, by the number of latent frames of one call; linear between
    these numbers and beyond them.
    """

    class_name: str
    adapter: str
    config: dict[str, Any]
    weight_bytes: int
    encoder_bytes: dict[int, float]
    decoder_bytes: dict[int, float]


@dataclass(frozen=True)
class CodecBytes:
    """Peak bytes on the device in encoding and decoding a clip, weights included: of whole frames, and in tiles."""

    encode: float = 0.0
    decode: float = 0.0
    tiled_encode: float = 0.0
    tiled_decode: float = 0.0


@cache
def read_autoencoder_costs() -> dict[str, AutoencoderCost]:
    """Read the costs of all autoencoders by the name that records give as `meta_autoencoder`."""

    def by_frames(values: dict[str, float]) -> dict[int, float]:
        return {int(frames): value for frames, value in values.items()}

    return {
        name: AutoencoderCost(
            entry["class"],
            entry["adapter"],
            entry["config"] if isinstance(entry["config"], dict) else read_config_file(entry["config"])["vae"],
            entry.get("weight_bytes", 0),
            by_frames(entry.get("encoder_bytes", {})),
            by_frames(entry.get("decoder_bytes", {})),
        )
        for name, entry in json.loads(AUTOENCODERS_FILE.read_text("utf-8")).items()
    }


def build_meta_autoencoder(cost: AutoencoderCost) -> Any:
    """Build the family's adapter around the autoencoder on torch's meta device."""
    import diffusers

    with torch.device("meta"):
        vae = getattr(diffusers, cost.class_name).from_config(cost.config)
    return import_target(cost.adapter)(vae.eval().requires_grad_(False))


def run_on_meta(
    autoencoder: Any, size: Size, latent_frames: int, *, encode: bool, tiled: bool, tracker: LiveMemoryTracker | None = None
) -> int:
    """Encode or decode a clip on the meta device; returns the peak bytes without weights, as `tracker` counts them."""
    spatial, temporal = get_compression(autoencoder.vae)
    autoencoder.set_tiling(tiled)
    tracker = tracker or LiveMemoryTracker()
    frames = temporal * (latent_frames - 1) + 1
    shape = (
        (3, frames, size.height, size.width)
        if encode
        else (autoencoder.z_dim, latent_frames, size.height // spatial, size.width // spatial)
    )
    with tracker, torch.no_grad():
        values = torch.empty(1, *shape, device="meta")
        autoencoder.encode(values) if encode else autoencoder.decode(values)
    return tracker.peak_bytes


def get_compression(vae: Any) -> tuple[int, int]:
    """Return an autoencoder's pixels per side of a latent cell, and its frames per latent frame after the first."""
    config = vae.config
    spatial = getattr(vae, "spatial_compression_ratio", None) or config.scale_factor_spatial
    temporal = getattr(vae, "temporal_compression_ratio", None) or config.scale_factor_temporal
    return int(spatial), int(temporal)


@lru_cache(maxsize=32)
def count_codec_bytes(record: ModelRecord, size: Size, num_frames: int) -> CodecBytes:
    """Count the peak bytes of the record's autoencoder in float32 at a frame size and a clip length; zeros without one."""
    if not record.meta_autoencoder:
        return CodecBytes()
    cost = read_autoencoder_costs()[record.meta_autoencoder]
    autoencoder = build_meta_autoencoder(cost)
    latent_frames = (num_frames - 1) // record.geometry.temporal_compression + 1

    def count(*, encode: bool, tiled: bool) -> float:
        with _replace_networks(autoencoder.vae, cost):
            return cost.weight_bytes + run_on_meta(autoencoder, size, latent_frames, encode=encode, tiled=tiled)

    return CodecBytes(
        count(encode=True, tiled=False), count(encode=False, tiled=False), count(encode=True, tiled=True), count(encode=False, tiled=True)
    )


@contextmanager
def _replace_networks(vae: Any, cost: AutoencoderCost) -> Iterator[None]:
    """Let the encoder and decoder allocate what they were counted to need, and return tensors of their outputs' shapes."""
    spatial, temporal = get_compression(vae)
    patch = getattr(vae.config, "patch_size", None) or 1
    patch = patch if cost.class_name == "AutoencoderKLWan" else 1  # the others' encoder and decoder cut patches themselves
    latent_channels = getattr(vae.config, "z_dim", None) or vae.config.latent_channels

    def encode(pixels: torch.Tensor, **_: Any) -> torch.Tensor:
        frames, height, width = pixels.shape[2:]
        latent_frames = (frames - 1) // temporal + 1
        transient = _allocate(_interpolate(cost.encoder_bytes, latent_frames) * height * width * patch**2)
        ratio = spatial // patch
        shape = (len(pixels), 2 * latent_channels, latent_frames, height // ratio, width // ratio)
        del transient
        return torch.empty(shape, device="meta")

    def decode(latents: torch.Tensor, *_: Any, **chunk: Any) -> torch.Tensor:
        latent_frames, height, width = latents.shape[2:]
        transient = _allocate(_interpolate(cost.decoder_bytes, latent_frames) * height * width * spatial**2)
        # Wan's decoder gets one latent frame at a time, with a cache of the frames before.
        is_later_chunk = "feat_cache" in chunk and not chunk.get("first_chunk", False)
        frames = temporal if is_later_chunk else temporal * (latent_frames - 1) + 1
        ratio = spatial // patch
        del transient
        return torch.empty(len(latents), 3 * patch**2, frames, height * ratio, width * ratio, device="meta")

    def replace(network: nn.Module, function: Callable[..., torch.Tensor]) -> None:
        network.forward = function

    replace(vae.encoder, encode)
    replace(vae.decoder, decode)
    try:
        yield
    finally:
        del vae.encoder.forward, vae.decoder.forward


def _allocate(num_bytes: float) -> torch.Tensor:
    return torch.empty(max(0, round(num_bytes)), dtype=torch.uint8, device="meta")


def _interpolate(table: dict[int, float], frames: int) -> float:
    """Interpolate linearly between the numbers of frames, and extrapolate from the last two."""
    if len(table) == 1 or frames <= min(table):
        return table[min(table)]
    lower, upper = next((pair for pair in pairwise(sorted(table)) if frames <= pair[1]), tuple(sorted(table)[-2:]))
    share = (frames - lower) / (upper - lower)
    return (1 - share) * table[lower] + share * table[upper]
