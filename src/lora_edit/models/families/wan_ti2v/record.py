"""Record of Wan2.2 TI2V-5B, with its preset."""

from __future__ import annotations

from lora_edit.models.families.wan.record import UMT5_GB, UMT5_LENGTH
from lora_edit.models.record import Geometry, ModelRecord, Preset


def wan22_ti2v_preset() -> Preset:
    """50 steps, guidance 5, shift 5 (Wan2.2 `wan/configs/wan_ti2v_5B.py`).

    The overlap of consecutive windows fills two latent frames: a frame is given only together with all others of its latent frame.
    """
    return {"generation": {"steps": 50, "overlap": 8}}


WAN22_TI2V_5B = ModelRecord(
    name="wan2.2-ti2v-5b",
    summary="5 billion parameters at 720 lines and 24 frames per second; given whole tokens of 32 pixels; no image encoder",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=16, temporal_compression=4, token_size=32, max_frames=121, native_area=704 * 1280),
    loader="lora_edit.models.families.wan_ti2v.loading:load_ti2v",
    preset=wan22_ti2v_preset,
    memory="about 32 GB GPU, 48 GB RAM",
    repo="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    layout="diffusers",
    download_gb=34,
    config="wan2.2-ti2v-5b.json",
    text_length=UMT5_LENGTH,
    encoders_gb=UMT5_GB + 2.3,
    meta_sample="lora_edit.models.families.wan_ti2v.conditioning:build_meta_sample",
    upstream="Wan2.2 wan/configs/wan_ti2v_5B.py, diffusers pipelines/wan/pipeline_wan_i2v.py",
)

MODELS = (WAN22_TI2V_5B,)
