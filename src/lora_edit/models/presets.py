"""Presets: differences from the settings' defaults. A family's own presets are beside its records.

The defaults are the paper's: rate 1e-4, rank 16, 100 steps, 30 sampling steps, guidance 5, shift 5 (paper 4.1; LoRAEdit `inference.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_edit.models.record import Preset


def paper_preset() -> Preset:
    """Return no differences: the defaults."""
    return {}


def build_named_preset(name: str, standard: Mapping[str, Any], short_window: int) -> Preset:
    """Build the changes by `--preset NAME` to a model's own settings `standard`. Empty for the name `standard` and for unknown names."""
    if name == "fast":
        return build_fast_preset(standard)
    return build_low_vram_preset(short_window) if name == "low-vram" else {}


def build_fast_preset(standard: Mapping[str, Any]) -> Preset:
    """Halve the training steps, use two thirds of the sampling steps and one pass per step instead of two.

    A small region is generated at the frame's scale, unless the model's own preset sets `zoom`. Half the steps cost less than half a
    decibel on scenes with a true edit (docs/studies/presets.md).
    """
    training, generation = standard["training"], standard["generation"]
    return {
        "training": {name: -(-training[name] // 2) for name in ("motion_steps", "appearance_steps")},
        "generation": {"steps": -(-2 * generation["steps"] // 3), "guidance_scale": 1.0},
        "compositing": {"zoom": False} | standard.get("compositing", {}),
    }


def build_low_vram_preset(window: int) -> Preset:
    """Train on short windows (appendix C), with the frozen weights in 8 bits."""
    return {"training": {"window": window, "base": "int8"}}
