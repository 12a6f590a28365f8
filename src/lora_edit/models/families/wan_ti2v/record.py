"""Records of Wan2.2 TI2V-5B and Wan2.2-Fun-5B-InP, with their presets."""

from __future__ import annotations

from lora_edit.models.families.wan.record import (
    UMT5_GB,
    UMT5_LENGTH,
    UMT5_WEIGHTS_GB,
    WAN_META_SAMPLE,
    build_wan_preset,
    wan22_fun_preset,
)
from lora_edit.models.record import Geometry, ModelRecord, Preset


def wan22_ti2v_preset() -> Preset:
    """50 steps, guidance 5, shift 5 (Wan2.2 `wan/configs/wan_ti2v_5B.py`).

    The overlap of consecutive windows fills two latent frames: a frame is given only together with all others of its latent frame.
    """
    return build_wan_preset(steps=50, overlap=8)


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
    companions_config="wan2.2-ti2v-companions.json",
    text_length=UMT5_LENGTH,
    largest_encoder_gb=UMT5_WEIGHTS_GB,
    encoders_gb=UMT5_GB + 2.3,
    meta_sample="lora_edit.models.families.wan_ti2v.conditioning:build_meta_sample",
    meta_autoencoder="AutoencoderKLWan-2.2",
    upstream="Wan2.2 wan/configs/wan_ti2v_5B.py, diffusers pipelines/wan/pipeline_wan_i2v.py",
)

WAN22_FUN_5B = ModelRecord(
    name="wan2.2-fun-5b",
    summary="wan2.2-ti2v-5b pretrained on masked clips: a mask channel for cells of 16 pixels; no image encoder",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=16, temporal_compression=4, token_size=32, max_frames=121, native_area=704 * 1280),
    loader="lora_edit.models.families.wan_ti2v.loading:load_fun_ti2v",
    preset=wan22_fun_preset,
    memory="about 32 GB GPU, 48 GB RAM",
    repo="alibaba-pai/Wan2.2-Fun-5B-InP",
    layout="original",
    companions_repo="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    download_gb=24,
    config="wan2.2-fun-5b-inp.json",
    companions_config="wan2.2-ti2v-companions.json",
    text_length=UMT5_LENGTH,
    largest_encoder_gb=UMT5_WEIGHTS_GB,
    encoders_gb=UMT5_GB + 2.3,
    meta_sample=WAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLWan-2.2",
    upstream="VideoX-Fun videox_fun/pipeline/pipeline_wan2_2_fun_inpaint.py",
)

MODELS = (WAN22_TI2V_5B, WAN22_FUN_5B)
