"""Memory of autoencoders: the estimate, against every allocation of the real module on torch's meta device."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.families.vace.record import VACE_MODELS
from lora_edit.models.families.wan.record import WAN21_FUN_1_3B
from lora_edit.models.families.wan_ti2v.record import WAN22_TI2V_5B
from lora_edit.models.runtime.autoencoder_memory import (
    _replace_networks,
    build_meta_autoencoder,
    count_codec_bytes,
    read_autoencoder_costs,
    run_on_meta,
)
from lora_edit.models.runtime.step_cost import fused_attention
from lora_edit.types import Size

COSTS = read_autoencoder_costs()
SIZES = {"small": (Size(128, 192), 3), "wide": (Size(128, 256), 4), "long": (Size(192, 192), 6)}
"""Frames of at most one tile, and latent frames."""


@cache
def autoencoder(name: str) -> Any:
    return build_meta_autoencoder(COSTS[name])


def count_both(name: str, size: Size, latent_frames: int, *, encode: bool, tiled: bool) -> tuple[int, int]:
    """Count the bytes with weights, of the real module and of the estimate."""
    cost, module = COSTS[name], autoencoder(name)
    with fused_attention():
        exact = run_on_meta(module, size, latent_frames, encode=encode, tiled=tiled)
    with _replace_networks(module.vae, cost):
        estimated = run_on_meta(module, size, latent_frames, encode=encode, tiled=tiled)
    weights = sum(each.nbytes for each in module.vae.parameters())
    assert weights == cost.weight_bytes
    return exact, estimated


@pytest.mark.parametrize("encode", [True, False], ids=["encode", "decode"])
@pytest.mark.parametrize("name", list(COSTS))
def test_estimates_are_within_a_tenth_at_three_sizes(name: str, encode: bool) -> None:
    """Without weights, so that their share hides nothing."""
    for size, latent_frames in SIZES.values():
        exact, estimated = count_both(name, size, latent_frames, encode=encode, tiled=False)
        assert estimated == pytest.approx(exact, rel=0.1), (size, latent_frames)


@pytest.mark.parametrize("encode", [True, False], ids=["encode", "decode"])
@pytest.mark.parametrize("name", ["AutoencoderKLWan", "AutoencoderKLLTXVideo", "AutoencoderKLHunyuanVideo15"])
def test_tiles_are_counted(name: str, encode: bool) -> None:
    """Four tiles, of which three are smaller."""
    exact, estimated = count_both(name, Size(256, 288), 3, encode=encode, tiled=True)
    whole, _ = count_both(name, Size(256, 288), 3, encode=encode, tiled=False)
    assert estimated == pytest.approx(exact, rel=0.1) and exact <= whole


def test_every_model_of_a_published_checkpoint_has_an_autoencoder() -> None:
    """Otherwise a clip could fail to decode after it was sampled."""
    assert all(record.meta_autoencoder in COSTS for record in (*KNOWN_MODELS, *VACE_MODELS) if record.repo)
    assert all(record.encoders_gb >= record.largest_encoder_gb > 0 for record in KNOWN_MODELS if record.text_length)


def test_published_sizes() -> None:
    """Wan2.2 TI2V-5B's decoder needs 22.3 GB at 1280x704, and its encoder 9.4, without the clip; tiles need a fraction."""
    codec = count_codec_bytes(WAN22_TI2V_5B, Size(704, 1280), 9)
    assert codec.decode == pytest.approx(22.3e9, rel=0.1) and codec.encode == pytest.approx(9.4e9, rel=0.1)
    assert codec.tiled_decode < 0.4 * codec.decode and codec.tiled_encode < codec.encode
    assert count_codec_bytes(WAN21_FUN_1_3B, Size(480, 832), 81).decode == pytest.approx(8.7e9, rel=0.1)
