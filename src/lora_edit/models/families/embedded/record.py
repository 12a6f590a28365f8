"""Record of the embedded model, with its preset."""

from __future__ import annotations

from lora_edit.models.record import Geometry, ModelRecord, Preset


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


TINY = ModelRecord(
    name="tiny",
    summary="embedded; trained from scratch on rendered clips and film; low resolution; ignores prompts",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=8, max_frames=17, native_area=128 * 128),
    loader="lora_edit.models.families.embedded.loading:load_embedded",
    preset=tiny_preset,
    config="../families/embedded/weights/tiny/transformer/config.json",
    memory="1 GB, CPU",
    short_window=13,
    upstream="tools/pretrain/README.md",
)

EMBEDDED_MODELS = (TINY,)
