"""Records of HunyuanVideo-I2V and HunyuanVideo-1.5, with their presets."""

from __future__ import annotations

from lora_edit.models.record import AREA_720, MEMORY_720, Geometry, ModelRecord, Preset

HUNYUAN_LOADER = "lora_edit.models.families.hunyuan.loading:load_hunyuan"
HUNYUAN_META_SAMPLE = "lora_edit.models.families.hunyuan.conditioning:build_meta_sample"
HUNYUAN_LICENSE = "Tencent Hunyuan Community License"
LLAVA_WEIGHTS_GB, LLAVA_GB = 16.7, 17.9
"""Memory of LLaVA-Llama3 8B in bfloat16, alone and with CLIP-L and the autoencoder."""
QWEN_WEIGHTS_GB, QWEN_GB = 14.1, 20.5
"""Memory of Qwen2.5-VL 7B's text model in bfloat16, alone and with ByT5, SigLIP and the autoencoder, which has 5 GB in float32."""


def hunyuan_i2v_preset() -> Preset:
    """No guidance, shift 7 and 50 steps (diffusers `pipeline_hunyuan_video_image2video.py`, HunyuanVideo-I2V `README.md`)."""
    return {"generation": {"guidance_scale": 1.0, "shift": 7.0, "steps": 50}}


def hunyuan_i2v_16_preset() -> Preset:
    """As `hunyuan-i2v`, with the naive LoRA (paper 3.2), because only the first frame can be given."""
    return {**hunyuan_i2v_preset(), "method": {"conditioning": "first-frame", "appearance_mask": "after-first"}}


def hunyuan_15_i2v_preset() -> Preset:
    """Guidance 6, shift 5 at 480 lines (diffusers `scripts/convert_hunyuan_video1_5_to_diffusers.py`), 50 steps."""
    return {"generation": {"guidance_scale": 6.0, "shift": 5.0, "steps": 50}}


HUNYUAN_I2V = ModelRecord(
    name="hunyuan-i2v",
    summary="HunyuanVideo-I2V with 33 input channels; 13 billion parameters; the picture stands in the prompt",
    license=HUNYUAN_LICENSE,
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=129, native_area=AREA_720),
    loader=HUNYUAN_LOADER,
    preset=hunyuan_i2v_preset,
    memory=MEMORY_720,
    repo="hunyuanvideo-community/HunyuanVideo-I2V-33ch",
    layout="diffusers",
    download_gb=44,
    config="hunyuan-i2v.json",
    text_length=256,
    other_parts=("text_encoder_2", "tokenizer_2", "image_processor"),
    largest_encoder_gb=LLAVA_WEIGHTS_GB,
    encoders_gb=LLAVA_GB,
    meta_sample=HUNYUAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLHunyuanVideo",
    upstream="HunyuanVideo-I2V hyvideo/diffusion/flow/transport.py, diffusers pipelines/hunyuan_video/",
)

HUNYUAN_I2V_16 = ModelRecord(
    name="hunyuan-i2v-16",
    summary="HunyuanVideo-I2V that is given the first frame alone: the naive LoRA, for comparison (edits: hunyuan-i2v)",
    license=HUNYUAN_LICENSE,
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=129, native_area=AREA_720),
    loader=HUNYUAN_LOADER,
    preset=hunyuan_i2v_16_preset,
    memory=MEMORY_720,
    repo="hunyuanvideo-community/HunyuanVideo-I2V",
    layout="diffusers",
    download_gb=44,
    config="hunyuan-i2v-16.json",
    text_length=256,
    other_parts=("text_encoder_2", "tokenizer_2", "image_processor"),
    largest_encoder_gb=LLAVA_WEIGHTS_GB,
    encoders_gb=LLAVA_GB,
    spatial_mask=False,
    meta_sample=HUNYUAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLHunyuanVideo",
    upstream="HunyuanVideo-I2V hyvideo/diffusion/flow/transport.py, diffusers pipelines/hunyuan_video/",
)

# The repository is named after the text-to-video one; its configuration was not available. The values are the class's defaults, which
# diffusers' converter keeps for this size.
HUNYUAN_15_I2V = ModelRecord(
    name="hunyuan-1.5-i2v",
    summary="HunyuanVideo-1.5 at 480 lines; 8 billion parameters; cells of 16 pixels; text in quotation marks is spelled out",
    license=HUNYUAN_LICENSE,
    geometry=Geometry(spatial_compression=16, temporal_compression=4, token_size=16, max_frames=121, native_area=480 * 848),
    loader=HUNYUAN_LOADER,
    preset=hunyuan_15_i2v_preset,
    memory="about 50 GB GPU, 48 GB RAM",
    repo="hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v",
    layout="diffusers",
    download_gb=56,
    config="hunyuan-1.5-i2v-480p.json",
    text_length=1000,
    other_parts=("text_encoder_2", "tokenizer_2", "feature_extractor"),
    largest_encoder_gb=QWEN_WEIGHTS_GB,
    encoders_gb=QWEN_GB,
    image_encoder=True,
    meta_sample=HUNYUAN_META_SAMPLE,
    meta_autoencoder="AutoencoderKLHunyuanVideo15",
    upstream="diffusers pipelines/hunyuan_video1_5/pipeline_hunyuan_video1_5_image2video.py",
)

MODELS = (HUNYUAN_I2V, HUNYUAN_I2V_16, HUNYUAN_15_I2V)
