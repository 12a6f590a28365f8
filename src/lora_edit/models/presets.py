"""What differs from the settings' defaults, by model. The defaults are the paper's: rate 1e-4, rank 16, 100 steps, 30 sampling steps,
guidance 5, shift 5 (paper 4.1; LoRAEdit `inference.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_edit.models.record import Preset


def paper_preset() -> Preset:
    """The defaults as they are."""
    return {}


def build_named_preset(name: str, standard: Mapping[str, Any], short_window: int) -> Preset:
    """What `--preset NAME` changes of a model's own settings, which `standard` spells out. Empty for `standard` and for unknown names."""
    if name == "fast":
        return build_fast_preset(standard)
    return build_low_vram_preset(short_window) if name == "low-vram" else {}


def build_fast_preset(standard: Mapping[str, Any]) -> Preset:
    """Half the training steps, two thirds of the sampling steps, one pass each instead of two; a small region at the frame's scale, unless
    the model's own preset asks for more.

    Half the steps cost less than half a decibel on scenes with truth (docs/studies/presets.md).
    """
    training, generation = standard["training"], standard["generation"]
    return {
        "training": {name: -(-training[name] // 2) for name in ("motion_steps", "appearance_steps")},
        "generation": {"steps": -(-2 * generation["steps"] // 3), "guidance_scale": 1.0},
        "compositing": {"zoom": False} | standard.get("compositing", {}),
    }


def build_low_vram_preset(window: int) -> Preset:
    """Training on short windows (appendix C), the frozen weights in 8 bits."""
    return {"training": {"window": window, "base": "int8"}}
