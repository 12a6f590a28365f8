"""The models that this version knows.

Sizes of downloads are approximate: parameters times bytes. Memory is estimated for the most frames at the model's own area: bfloat16
weights, one hidden state per block, and what one block needs while it is computed again.
"""

from __future__ import annotations

from lora_edit.models.catalog.facts import Geometry, ModelFacts
from lora_edit.models.catalog.presets import (
    ltx_preset,
    paper_preset,
    tiny_preset,
    wan22_a14b_preset,
    wan22_ti2v_preset,
    wan_480p_preset,
    wan_flf2v_preset,
)

AREA_480 = 480 * 832
AREA_540 = 544 * 960
AREA_720 = 720 * 1280
WAN_LOADER = "lora_edit.models.loading:load_wan"
UMT5_LENGTH = 512
UMT5_GB, CLIP_GB = 11.9, 2.5
"""UMT5-XXL's encoder in bfloat16 with the autoencoder, and CLIP ViT-H/14's image tower in float32."""
COMPANIONS = "wan2.1-companions.json"
MEMORY_480 = "about 60 GB GPU, 64 GB RAM"
MEMORY_720 = "about 90 GB GPU, 64 GB RAM"

TINY = ModelFacts(
    name="tiny",
    summary="embedded; trained from scratch on rendered clips; low resolution; ignores prompts",
    license="Apache-2.0",
    geometry=Geometry(cell=8, group=4, token=8, max_frames=17, area=88 * 88),
    loader="lora_edit.models.tiny:load_embedded",
    preset=tiny_preset,
    config="../../weights/tiny/transformer/config.json",
    memory="1 GB, CPU",
    short_window=13,
    upstream="tools/pretrain/README.md",
)

WAN21_I2V_480P = ModelFacts(
    name="wan2.1-i2v-480p",
    summary="the paper's base model; 14 billion parameters; text and CLIP image encoder",
    license="Apache-2.0",
    geometry=Geometry(cell=8, group=4, token=16, max_frames=81, area=AREA_480),
    loader=WAN_LOADER,
    preset=wan_480p_preset,
    memory=MEMORY_480,
    repo="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    layout="diffusers",
    download_gb=90,
    config="wan2.1-i2v-14b.json",
    companions=COMPANIONS,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    encoders_gb=UMT5_GB + CLIP_GB,
    upstream="Wan2.1 wan/image2video.py, wan/configs/wan_i2v_14B.py",
)

WAN21_I2V_720P = ModelFacts(
    name="wan2.1-i2v-720p",
    summary="as wan2.1-i2v-480p, for larger frames",
    license="Apache-2.0",
    geometry=Geometry(cell=8, group=4, token=16, max_frames=81, area=AREA_720),
    loader=WAN_LOADER,
    preset=paper_preset,
    memory=MEMORY_720,
    repo="Wan-AI/Wan2.1-I2V-14B-720P-Diffusers",
    layout="diffusers",
    download_gb=90,
    config="wan2.1-i2v-14b.json",
    companions=COMPANIONS,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    encoders_gb=UMT5_GB + CLIP_GB,
    upstream="Wan2.1 wan/image2video.py, wan/configs/wan_i2v_14B.py",
)

WAN21_FLF2V = ModelFacts(
    name="wan2.1-flf2v",
    summary="between a first and a last frame: needs the edited last frame too (--anchor)",
    license="Apache-2.0",
    geometry=Geometry(cell=8, group=4, token=16, max_frames=81, area=AREA_720),
    loader=WAN_LOADER,
    preset=wan_flf2v_preset,
    memory=MEMORY_720,
    repo="Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers",
    layout="diffusers",
    download_gb=90,
    config="wan2.1-flf2v-14b.json",
    companions=COMPANIONS,
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
    geometry=Geometry(cell=8, group=4, token=16, max_frames=81, area=AREA_480),
    loader=WAN_LOADER,
    preset=wan_480p_preset,
    memory="about 16 GB GPU, 32 GB RAM",
    repo="alibaba-pai/Wan2.1-Fun-1.3B-InP",
    layout="original",
    companions_repo="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    download_gb=30,
    config="wan2.1-fun-1.3b-inp.json",
    companions=COMPANIONS,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    encoders_gb=UMT5_GB + CLIP_GB,
    upstream="VideoX-Fun videox_fun/pipeline/pipeline_wan_fun_inpaint.py",
)

WAN21_FUN_14B = ModelFacts(
    name="wan2.1-fun-14b",
    summary="pretrained on masked clips; 14 billion parameters; text and CLIP image encoder",
    license="Apache-2.0",
    geometry=Geometry(cell=8, group=4, token=16, max_frames=81, area=AREA_480),
    loader=WAN_LOADER,
    preset=wan_480p_preset,
    memory=MEMORY_480,
    repo="alibaba-pai/Wan2.1-Fun-14B-InP",
    layout="original",
    companions_repo="Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
    download_gb=60,
    config="wan2.1-i2v-14b.json",
    companions=COMPANIONS,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    encoders_gb=UMT5_GB + CLIP_GB,
    upstream="VideoX-Fun videox_fun/pipeline/pipeline_wan_fun_inpaint.py",
)

SKYREELS_V2_I2V = ModelFacts(
    name="skyreels-v2-i2v",
    summary="Wan 2.1 trained further on film footage at 24 frames per second",
    license="Skywork Community License",
    geometry=Geometry(cell=8, group=4, token=16, max_frames=97, area=AREA_540),
    loader=WAN_LOADER,
    preset=paper_preset,
    memory="about 70 GB GPU, 64 GB RAM",
    repo="Skywork/SkyReels-V2-I2V-14B-540P-Diffusers",
    layout="diffusers",
    download_gb=90,
    config="skyreels-v2-i2v-14b.json",
    companions=COMPANIONS,
    text_length=UMT5_LENGTH,
    image_encoder=True,
    encoders_gb=UMT5_GB + CLIP_GB,
    upstream="diffusers pipelines/skyreels_v2/pipeline_skyreels_v2_i2v.py",
)

WAN22_I2V_A14B = ModelFacts(
    name="wan2.2-i2v-a14b",
    summary="two experts, by noise level: a LoRA for each, trained in turn; no image encoder",
    license="Apache-2.0",
    geometry=Geometry(cell=8, group=4, token=16, max_frames=81, area=AREA_720),
    loader=WAN_LOADER,
    preset=wan22_a14b_preset,
    memory="about 80 GB GPU, 96 GB RAM",
    repo="Wan-AI/Wan2.2-I2V-A14B-Diffusers",
    layout="diffusers",
    download_gb=126,
    config="wan2.2-i2v-a14b.json",
    parts=("transformer", "transformer_2"),
    encoders_gb=UMT5_GB,
    companions=COMPANIONS,
    text_length=UMT5_LENGTH,
    boundary=0.9,
    upstream="Wan2.2 wan/configs/wan_i2v_A14B.py, diffusers pipelines/wan/pipeline_wan_i2v.py",
)

WAN22_TI2V_5B = ModelFacts(
    name="wan2.2-ti2v-5b",
    summary="5 billion parameters at 720 lines and 24 frames per second; given whole tokens of 32 pixels; no image encoder",
    license="Apache-2.0",
    geometry=Geometry(cell=16, group=4, token=32, max_frames=121, area=704 * 1280),
    loader="lora_edit.models.wan_ti2v:load_ti2v",
    preset=wan22_ti2v_preset,
    memory="about 32 GB GPU, 48 GB RAM",
    repo="Wan-AI/Wan2.2-TI2V-5B-Diffusers",
    layout="diffusers",
    download_gb=34,
    config="wan2.2-ti2v-5b.json",
    text_length=UMT5_LENGTH,
    upstream="Wan2.2 wan/configs/wan_ti2v_5B.py, diffusers pipelines/wan/pipeline_wan_i2v.py",
)

LTX_VIDEO = ModelFacts(
    name="ltx-video",
    summary="2 billion parameters, fast; given whole tokens of 32 pixels and eight frames; no image encoder",
    license="LTX-Video OpenRail-M",
    geometry=Geometry(cell=32, group=8, token=32, max_frames=121, area=512 * 704),
    loader="lora_edit.models.ltx:load_ltx",
    preset=ltx_preset,
    memory="about 16 GB GPU, 32 GB RAM",
    repo="Lightricks/LTX-Video-0.9.5",
    layout="diffusers",
    download_gb=26,
    config="ltx-video-2b.json",
    text_length=128,
    upstream="LTX-Video ltx_video/pipelines/pipeline_ltx_video.py, diffusers pipelines/ltx/pipeline_ltx_condition.py",
)

KNOWN = (
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
)
