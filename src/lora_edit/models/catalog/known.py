"""The models that this version knows.

Sizes of downloads are approximate: parameters times bytes. Memory is estimated for the most frames at the model's own area: bfloat16
weights, one hidden state per block, and what one block needs while it is computed again.
"""

from __future__ import annotations

from lora_edit.models.catalog.facts import Geometry, ModelFacts
from lora_edit.models.catalog.presets import paper_preset, tiny_preset, wan22_a14b_preset, wan_480p_preset, wan_flf2v_preset

AREA_480 = 480 * 832
AREA_540 = 544 * 960
AREA_720 = 720 * 1280
WAN_LOADER = "lora_edit.models.loading:load_wan"
UMT5_LENGTH = 512
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
    companions=COMPANIONS,
    text_length=UMT5_LENGTH,
    boundary=0.9,
    upstream="Wan2.2 wan/configs/wan_i2v_A14B.py, diffusers pipelines/wan/pipeline_wan_i2v.py",
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
)
