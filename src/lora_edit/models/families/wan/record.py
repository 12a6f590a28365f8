"""Records of Wan 2.1 image-to-video and of the models with the same input, with their presets."""

from __future__ import annotations

from typing import Any

from lora_edit.models.record import (
    AREA_480,
    AREA_540,
    AREA_720,
    MEMORY_480,
    MEMORY_720,
    Geometry,
    ModelRecord,
    Preset,
    read_negative_prompt,
)

WAN_LOADER = "lora_edit.models.families.wan.loading:load_wan"
WAN_META_SAMPLE = "lora_edit.models.families.wan.conditioning:build_meta_sample"
COMPANIONS_CONFIG = "wan2.1-companions.json"
UMT5_LENGTH = 512
UMT5_WEIGHTS_GB, UMT5_GB, CLIP_GB = 11.4, 11.9, 2.5
"""Memory of UMT5-XXL's encoder in bfloat16, alone and with the autoencoder, and of CLIP ViT-H/14's image tower in float32."""


def build_wan_preset(**generation: Any) -> Preset:
    """Build a preset of sampling settings with the negative prompt that Wan's pipelines use (Wan2.1 `wan/configs/shared_config.py`)."""
    return {"generation": {**generation, "negative_prompt": read_negative_prompt("wan")}}


def wan_480p_preset() -> Preset:
    """40 steps, shift 3 at 480 lines, guidance 5 (Wan2.1 `generate.py`)."""
    return build_wan_preset(steps=40, shift=3.0)


def wan_720p_preset() -> Preset:
    """40 steps, shift 5, guidance 5 (Wan2.1 `generate.py`)."""
    return build_wan_preset(steps=40)


def wan_flf2v_preset() -> Preset:
    """50 steps, shift 16, guidance 5 (Wan2.1 `generate.py`)."""
    return build_wan_preset(steps=50, shift=16.0)


def wan_fun_preset() -> Preset:
    """50 steps, shift 3, guidance 6 (VideoX-Fun `examples/wan2.1_fun/predict_i2v.py`)."""
    return build_wan_preset(steps=50, shift=3.0, guidance_scale=6.0)


def skyreels_preset() -> Preset:
    """30 steps, shift 3, guidance 5 (SkyReels-V2 `generate_video.py`, `README.md`). Its negative prompt is an English version of Wan's."""
    return build_wan_preset(shift=3.0)


def wan22_a14b_preset() -> Preset:
    """Guidance 3.5 for both experts, 40 steps, shift 5 (Wan2.2 `wan/configs/wan_i2v_A14B.py`)."""
    return build_wan_preset(steps=40, guidance_scale=3.5)


def wan22_fun_preset() -> Preset:
    """50 steps, guidance 6, shift 5 (VideoX-Fun `examples/wan2.2_fun/predict_i2v.py`, `predict_i2v_5b.py`)."""
    return build_wan_preset(steps=50, guidance_scale=6.0)


WAN21_I2V_480P = ModelRecord(
    name="wan2.1-i2v-480p",
    summary="the paper's base model; 14 billion parameters; text and CLIP image encoder",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_480),
    loader=WAN_LOADER,
    preset=wan_480p_preset,
    memory=MEMORY_480,
    repo="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    layout="diffusers",
    download_gb=90,
    config="wan2.1-i2v-14b.json",
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    largest_encoder_gb=UMT5_WEIGHTS_GB,
    encoders_gb=UMT5_GB + CLIP_GB,
    meta_sample=WAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLWan",
    upstream="Wan2.1 wan/image2video.py, wan/configs/wan_i2v_14B.py",
)

WAN21_I2V_720P = ModelRecord(
    name="wan2.1-i2v-720p",
    summary="as wan2.1-i2v-480p, for larger frames",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_720),
    loader=WAN_LOADER,
    preset=wan_720p_preset,
    memory=MEMORY_720,
    repo="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
    layout="diffusers",
    download_gb=90,
    config="wan2.1-i2v-14b.json",
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    largest_encoder_gb=UMT5_WEIGHTS_GB,
    encoders_gb=UMT5_GB + CLIP_GB,
    meta_sample=WAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLWan",
    upstream="Wan2.1 wan/image2video.py, wan/configs/wan_i2v_14B.py",
)

WAN21_FLF2V = ModelRecord(
    name="wan2.1-flf2v",
    summary="between a first and a last frame: needs the edited last frame too (--anchor)",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_720),
    loader=WAN_LOADER,
    preset=wan_flf2v_preset,
    memory=MEMORY_720,
    repo="Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers",
    layout="diffusers",
    download_gb=90,
    config="wan2.1-flf2v-14b.json",
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    largest_encoder_gb=UMT5_WEIGHTS_GB,
    encoders_gb=UMT5_GB + CLIP_GB,
    last_frame=True,
    meta_sample=WAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLWan",
    upstream="Wan2.1 wan/first_last_frame2video.py",
)

WAN21_FUN_1_3B = ModelRecord(
    name="wan2.1-fun-1.3b",
    summary="small, and pretrained on masked clips; text and CLIP image encoder",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_480),
    loader=WAN_LOADER,
    preset=wan_fun_preset,
    memory="about 16 GB GPU, 32 GB RAM",
    repo="alibaba-pai/Wan2.1-Fun-1.3B-InP",
    layout="original",
    companions_repo="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    download_gb=30,
    config="wan2.1-fun-1.3b-inp.json",
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    largest_encoder_gb=UMT5_WEIGHTS_GB,
    encoders_gb=UMT5_GB + CLIP_GB,
    meta_sample=WAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLWan",
    upstream="VideoX-Fun videox_fun/pipeline/pipeline_wan_fun_inpaint.py",
)

WAN21_FUN_14B = ModelRecord(
    name="wan2.1-fun-14b",
    summary="pretrained on masked clips; 14 billion parameters; text and CLIP image encoder",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_480),
    loader=WAN_LOADER,
    preset=wan_fun_preset,
    memory=MEMORY_480,
    repo="alibaba-pai/Wan2.1-Fun-14B-InP",
    layout="original",
    companions_repo="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    download_gb=60,
    config="wan2.1-i2v-14b.json",
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    largest_encoder_gb=UMT5_WEIGHTS_GB,
    encoders_gb=UMT5_GB + CLIP_GB,
    meta_sample=WAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLWan",
    upstream="VideoX-Fun videox_fun/pipeline/pipeline_wan_fun_inpaint.py",
)

SKYREELS_V2_I2V = ModelRecord(
    name="skyreels-v2-i2v",
    summary="Wan 2.1 trained further on film footage at 24 frames per second",
    license="Skywork Community License",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=97, native_area=AREA_540),
    loader=WAN_LOADER,
    preset=skyreels_preset,
    memory="about 70 GB GPU, 64 GB RAM",
    repo="Skywork/SkyReels-V2-I2V-14B-540P-Diffusers",
    layout="diffusers",
    download_gb=90,
    config="skyreels-v2-i2v-14b.json",
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    largest_encoder_gb=UMT5_WEIGHTS_GB,
    encoders_gb=UMT5_GB + CLIP_GB,
    meta_sample=WAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLWan",
    upstream="diffusers pipelines/skyreels_v2/pipeline_skyreels_v2_i2v.py",
)

WAN22_I2V_A14B = ModelRecord(
    name="wan2.2-i2v-a14b",
    summary="two experts, by noise level: a LoRA for each, trained in turn; no image encoder",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_720),
    loader=WAN_LOADER,
    preset=wan22_a14b_preset,
    memory="about 80 GB GPU, 96 GB RAM",
    repo="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
    layout="diffusers",
    download_gb=126,
    config="wan2.2-i2v-a14b.json",
    transformer_parts=("transformer", "transformer_2"),
    largest_encoder_gb=UMT5_WEIGHTS_GB,
    encoders_gb=UMT5_GB,
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    boundary_ratio=0.9,
    meta_sample=WAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLWan",
    upstream="Wan2.2 wan/configs/wan_i2v_A14B.py, diffusers pipelines/wan/pipeline_wan_i2v.py",
)

WAN22_FUN_A14B = ModelRecord(
    name="wan2.2-fun-a14b",
    summary="wan2.2-i2v-a14b pretrained on masked clips: two experts, a LoRA for each; no image encoder",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_480),
    loader=WAN_LOADER,
    preset=wan22_fun_preset,
    memory="about 60 GB GPU, 96 GB RAM",
    repo="alibaba-pai/Wan2.2-Fun-A14B-InP",
    layout="original",
    companions_repo="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
    download_gb=70,
    config="wan2.2-i2v-a14b.json",
    transformer_parts=("transformer", "transformer_2"),
    largest_encoder_gb=UMT5_WEIGHTS_GB,
    encoders_gb=UMT5_GB,
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    boundary_ratio=0.9,
    meta_sample=WAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLWan",
    upstream="VideoX-Fun videox_fun/pipeline/pipeline_wan2_2_fun_inpaint.py",
)

MODELS = (
    WAN21_I2V_480P,
    WAN21_I2V_720P,
    WAN21_FLF2V,
    WAN21_FUN_1_3B,
    WAN21_FUN_14B,
    SKYREELS_V2_I2V,
    WAN22_I2V_A14B,
    WAN22_FUN_A14B,
)
