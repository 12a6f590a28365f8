"""The models that this version knows.

Sizes of downloads are approximate: parameters times bytes. Memory is estimated for the most frames at the model's own area: bfloat16
weights, one hidden state per block, and what one block needs while it is computed again.
"""

from __future__ import annotations

from lora_edit.models.presets import (
    hunyuan_15_i2v_preset,
    hunyuan_i2v_16_preset,
    hunyuan_i2v_preset,
    ltx_preset,
    paper_preset,
    tiny_preset,
    wan22_a14b_preset,
    wan22_ti2v_preset,
    wan_480p_preset,
    wan_flf2v_preset,
)
from lora_edit.models.record import Geometry, ModelFacts

AREA_480 = 480 * 832
AREA_540 = 544 * 960
AREA_720 = 720 * 1280
WAN_LOADER = "lora_edit.models.families.wan.loading:load_wan"
HUNYUAN_LOADER = "lora_edit.models.families.hunyuan.loading:load_hunyuan"
HUNYUAN_LICENSE = "Tencent Hunyuan Community License"
UMT5_LENGTH = 512
UMT5_GB, CLIP_GB = 11.9, 2.5
"""UMT5-XXL's encoder in bfloat16 with the autoencoder, and CLIP ViT-H/14's image tower in float32."""
LLAVA_GB, QWEN_GB = 17.5, 17.0
"""LLaVA-Llama3 8B with CLIP-L, and Qwen2.5-VL 7B with ByT5 and SigLIP, in bfloat16, with the autoencoders."""
COMPANIONS_CONFIG = "wan2.1-companions.json"
MEMORY_480 = "about 60 GB GPU, 64 GB RAM"
MEMORY_720 = "about 90 GB GPU, 64 GB RAM"

TINY = ModelFacts(
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

WAN21_I2V_480P = ModelFacts(
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
    encoders_gb=UMT5_GB + CLIP_GB,
    upstream="Wan2.1 wan/image2video.py, wan/configs/wan_i2v_14B.py",
)

WAN21_I2V_720P = ModelFacts(
    name="wan2.1-i2v-720p",
    summary="as wan2.1-i2v-480p, for larger frames",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_720),
    loader=WAN_LOADER,
    preset=paper_preset,
    memory=MEMORY_720,
    repo="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
    layout="diffusers",
    download_gb=90,
    config="wan2.1-i2v-14b.json",
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    encoders_gb=UMT5_GB + CLIP_GB,
    upstream="Wan2.1 wan/image2video.py, wan/configs/wan_i2v_14B.py",
)

WAN21_FLF2V = ModelFacts(
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
    encoders_gb=UMT5_GB + CLIP_GB,
    last_frame=True,
    upstream="Wan2.1 wan/first_last_frame2video.py",
)

WAN21_FUN_1_3B = ModelFacts(
    name="wan2.1-fun-1.3b",
    summary="small, and pretrained on masked clips; text and CLIP image encoder",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_480),
    loader=WAN_LOADER,
    preset=wan_480p_preset,
    memory="about 16 GB GPU, 32 GB RAM",
    repo="alibaba-pai/Wan2.1-Fun-1.3B-InP",
    layout="original",
    companions_repo="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    download_gb=30,
    config="wan2.1-fun-1.3b-inp.json",
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    encoders_gb=UMT5_GB + CLIP_GB,
    upstream="VideoX-Fun videox_fun/pipeline/pipeline_wan_fun_inpaint.py",
)

WAN21_FUN_14B = ModelFacts(
    name="wan2.1-fun-14b",
    summary="pretrained on masked clips; 14 billion parameters; text and CLIP image encoder",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=81, native_area=AREA_480),
    loader=WAN_LOADER,
    preset=wan_480p_preset,
    memory=MEMORY_480,
    repo="alibaba-pai/Wan2.1-Fun-14B-InP",
    layout="original",
    companions_repo="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    download_gb=60,
    config="wan2.1-i2v-14b.json",
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    encoders_gb=UMT5_GB + CLIP_GB,
    upstream="VideoX-Fun videox_fun/pipeline/pipeline_wan_fun_inpaint.py",
)

SKYREELS_V2_I2V = ModelFacts(
    name="skyreels-v2-i2v",
    summary="Wan 2.1 trained further on film footage at 24 frames per second",
    license="Skywork Community License",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=16, max_frames=97, native_area=AREA_540),
    loader=WAN_LOADER,
    preset=paper_preset,
    memory="about 70 GB GPU, 64 GB RAM",
    repo="Skywork/SkyReels-V2-I2V-14B-540P-Diffusers",
    layout="diffusers",
    download_gb=90,
    config="skyreels-v2-i2v-14b.json",
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    encoders_gb=UMT5_GB + CLIP_GB,
    upstream="diffusers pipelines/skyreels_v2/pipeline_skyreels_v2_i2v.py",
)

WAN22_I2V_A14B = ModelFacts(
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
    encoders_gb=UMT5_GB,
    companions_config=COMPANIONS_CONFIG,
    text_length=UMT5_LENGTH,
    boundary_ratio=0.9,
    upstream="Wan2.2 wan/configs/wan_i2v_A14B.py, diffusers pipelines/wan/pipeline_wan_i2v.py",
)

WAN22_TI2V_5B = ModelFacts(
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
    upstream="Wan2.2 wan/configs/wan_ti2v_5B.py, diffusers pipelines/wan/pipeline_wan_i2v.py",
)

LTX_VIDEO = ModelFacts(
    name="ltx-video",
    summary="2 billion parameters, fast; given whole tokens of 32 pixels and eight frames; no image encoder",
    license="LTX-Video OpenRail-M",
    geometry=Geometry(spatial_compression=32, temporal_compression=8, token_size=32, max_frames=121, native_area=512 * 704),
    loader="lora_edit.models.families.ltx.loading:load_ltx",
    preset=ltx_preset,
    memory="about 16 GB GPU, 32 GB RAM",
    repo="Lightricks/LTX-Video-0.9.5",
    layout="diffusers",
    download_gb=26,
    config="ltx-video-2b.json",
    text_length=128,
    encoders_gb=11.3,
    upstream="LTX-Video ltx_video/pipelines/pipeline_ltx_video.py, diffusers pipelines/ltx/pipeline_ltx_condition.py",
)

HUNYUAN_I2V = ModelFacts(
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
    encoders_gb=LLAVA_GB,
    upstream="HunyuanVideo-I2V hyvideo/diffusion/flow/transport.py, diffusers pipelines/hunyuan_video/",
)

HUNYUAN_I2V_16 = ModelFacts(
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
    encoders_gb=LLAVA_GB,
    spatial_mask=False,
    upstream="HunyuanVideo-I2V hyvideo/diffusion/flow/transport.py, diffusers pipelines/hunyuan_video/",
)

# The repository's name follows its text-to-video sister's; no copy of its configuration was at hand. The values are the class's defaults,
# which diffusers' converter leaves as they are for this size.
HUNYUAN_15_I2V = ModelFacts(
    name="hunyuan-1.5-i2v",
    summary="HunyuanVideo-1.5 at 480 lines; 8 billion parameters; cells of 16 pixels; text in quotation marks is spelled out",
    license=HUNYUAN_LICENSE,
    geometry=Geometry(spatial_compression=16, temporal_compression=4, token_size=16, max_frames=121, native_area=480 * 848),
    loader=HUNYUAN_LOADER,
    preset=hunyuan_15_i2v_preset,
    memory="about 50 GB GPU, 48 GB RAM",
    repo="hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_i2v",
    layout="diffusers",
    download_gb=36,
    config="hunyuan-1.5-i2v-480p.json",
    text_length=1000,
    other_parts=("text_encoder_2", "tokenizer_2", "feature_extractor"),
    encoders_gb=QWEN_GB,
    image_encoder=True,
    upstream="diffusers pipelines/hunyuan_video1_5/pipeline_hunyuan_video1_5_image2video.py",
)

KNOWN_MODELS = (
    TINY,
    WAN21_I2V_480P,
    WAN21_I2V_720P,
    WAN21_FLF2V,
    WAN21_FUN_1_3B,
    WAN21_FUN_14B,
    SKYREELS_V2_I2V,
    WAN22_I2V_A14B,
    WAN22_TI2V_5B,
    LTX_VIDEO,
    HUNYUAN_I2V,
    HUNYUAN_I2V_16,
    HUNYUAN_15_I2V,
)
