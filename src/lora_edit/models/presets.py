"""What differs from the settings' defaults, by model. The defaults are the paper's: rate 1e-4, rank 16, 100 steps, 30 sampling steps,
guidance 5, shift 5 (paper 4.1; LoRAEdit `inference.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lora_edit.models.record import Preset


def paper_preset() -> Preset:
    """The defaults as they are."""
    return {}


def tiny_preset() -> Preset:
    """What differs from the paper's settings for the embedded model, chosen by measurement: a higher rate that falls to zero, times near
    noise, where motion is decided; a single denoising step, as it is small: a second one costs 0.2 dB on average. Its frames are so small
    that a region always gets a whole one, and that what a loose box takes in of a precise mask's surroundings is damaged."""
    return {
        "training": {
            "learning_rate": 1e-3,
            "schedule": "linear",
            "shift": 8.0,
            "motion_steps": 50,
            "appearance_steps": 50,
            "motion_share": 0.4,
        },
        "method": {"appearance_mask": "after-first", "hint": "explained"},
        "masks": {"shape": "auto"},
        "compositing": {"zoom": True, "detail": True},
        "generation": {"steps": 1, "guidance_scale": 1.0, "shift": 1.0},
    }


def wan_480p_preset() -> Preset:
    """Shift 3 at 480 lines (Wan2.1 `generate.py`)."""
    return {"generation": {"shift": 3.0}}


def wan_flf2v_preset() -> Preset:
    """Shift 16 (Wan2.1 `generate.py`), guidance 5.5 (diffusers' documentation of Wan)."""
    return {"generation": {"shift": 16.0, "guidance_scale": 5.5}}


def wan22_a14b_preset() -> Preset:
    """Guidance 3.5 for both experts, 40 steps, shift 5 (Wan2.2 `wan/configs/wan_i2v_A14B.py`)."""
    return {"generation": {"guidance_scale": 3.5, "steps": 40}}


def wan22_ti2v_preset() -> Preset:
    """50 steps, guidance 5, shift 5 (Wan2.2 `wan/configs/wan_ti2v_5B.py`). What consecutive windows share fills two latent frames: a frame
    is given with all others of its latent frame or not at all."""
    return {"generation": {"steps": 50, "overlap": 8}}


def ltx_preset() -> Preset:
    """40 steps, guidance 3 (LTX-Video `configs/ltxv-2b-0.9.5.yaml`). Its shift grows with the number of tokens; 13 is that of 121 frames of
    704x512, without its lifted last step. What windows share fills one latent frame."""
    return {"generation": {"steps": 40, "guidance_scale": 3.0, "shift": 13.0, "overlap": 8}}


def hunyuan_i2v_preset() -> Preset:
    """No guidance, shift 7 and 50 steps (diffusers `pipeline_hunyuan_video_image2video.py`, HunyuanVideo-I2V `README.md`)."""
    return {"generation": {"guidance_scale": 1.0, "shift": 7.0, "steps": 50}}


def hunyuan_i2v_16_preset() -> Preset:
    """As `hunyuan-i2v`, and what the model allows of the method: the naive LoRA (paper 3.2), as only the first frame can be given."""
    return {**hunyuan_i2v_preset(), "method": {"conditioning": "first-frame", "appearance_mask": "after-first"}}


def hunyuan_15_i2v_preset() -> Preset:
    """Guidance 6, shift 5 at 480 lines (diffusers `scripts/convert_hunyuan_video1_5_to_diffusers.py`), 50 steps."""
    return {"generation": {"guidance_scale": 6.0, "shift": 5.0, "steps": 50}}


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
