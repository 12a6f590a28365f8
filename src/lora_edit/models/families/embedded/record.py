"""Record of the embedded model, with its preset."""

from __future__ import annotations

from lora_edit.models.record import Geometry, ModelRecord, Preset


def tiny_preset() -> Preset:
    """Differences from the paper's settings, chosen by measurement.

    Training uses a higher rate that falls to zero, and times near noise, where motion is decided. Sampling uses a single step, because the
    model is small: a second step costs 0.2 dB on average. The frames are so small that a region is always generated at a whole frame's
    size, and that a loose box would damage the surroundings of a precise mask.
    """
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

MODELS = (TINY,)
