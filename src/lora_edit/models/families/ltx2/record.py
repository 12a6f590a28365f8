"""Records of LTX-2.3 and LTX-2.5, with their preset."""

from __future__ import annotations

from lora_edit.models.record import Geometry, ModelRecord, Preset

LTX2_LOADER = "lora_edit.models.families.ltx2.loading:load_ltx2"
LTX2_META_SAMPLE = "lora_edit.models.families.ltx2.conditioning:build_meta_sample"
LTX2_LICENSE = "LTX-2 Community License (a paid licence above $10M annual revenue)"
"""Entities with annual revenues of at least $10,000,000 need a paid licence (LTX-2 `LICENSE`, 2.1). It also covers LoRAs of the model."""

TEXT_LENGTH = 1024
"""Rows of text: the prompt's tokens, then learned registers."""
GEMMA_GB, ENCODERS_GB = 24.4, 33.6
"""Main memory of Gemma's 12 billion parameters in bfloat16, and of these with the connectors and the autoencoder in float32."""
GEOMETRY = Geometry(spatial_compression=32, temporal_compression=8, token_size=32, max_frames=121, native_area=512 * 768)
MEMORY = "about 40 GB GPU, 64 GB RAM"


def ltx2_preset() -> Preset:
    """30 steps, guidance 3, shift e^2.05 (LTX-2 `ltx_pipelines/utils/constants.py`, `ltx_core/components/schedulers.py`).

    Upstream's shift is that of 4096 tokens for every size; its last step is stretched, ours is not. The overlap of windows fills one latent
    frame.
    """
    return {"generation": {"steps": 30, "guidance_scale": 3.0, "shift": 7.77, "overlap": 8}}


LTX_23 = ModelRecord(
    name="ltx-2.3",
    summary="22 billion parameters with sound, of which the picture's are used; given whole tokens of 32 pixels and eight frames",
    license=LTX2_LICENSE,
    geometry=GEOMETRY,
    loader=LTX2_LOADER,
    preset=ltx2_preset,
    memory=MEMORY,
    repo="diffusers/LTX-2.3-Diffusers",
    layout="diffusers",
    download_gb=70,
    config="ltx-2.3.json",
    text_length=TEXT_LENGTH,
    largest_encoder_gb=GEMMA_GB,
    encoders_gb=ENCODERS_GB,
    other_parts=("connectors",),
    meta_sample=LTX2_META_SAMPLE,
    meta_autoencoder="AutoencoderKLLTX2Video",
    upstream="LTX-2 ltx_trainer/training_strategies/flexible.py, diffusers pipelines/ltx2/pipeline_ltx2_condition.py",
)

LTX_25 = ModelRecord(
    name="ltx-2.5",
    summary="as ltx-2.3, trained further, with another text encoder; the full transformer, not the distilled one",
    license=LTX2_LICENSE,
    geometry=GEOMETRY,
    loader=LTX2_LOADER,
    preset=ltx2_preset,
    memory=MEMORY,
    repo="Lightricks/LTX-2.5-Diffusers",
    layout="diffusers",
    download_gb=70,
    config="ltx-2.5.json",
    transformer_parts=("transformer_full",),
    text_length=TEXT_LENGTH,
    largest_encoder_gb=GEMMA_GB,
    encoders_gb=ENCODERS_GB,
    other_parts=("connectors",),
    meta_sample=LTX2_META_SAMPLE,
    meta_autoencoder="AutoencoderKLLTX2Video",
    upstream="LTX-2 ltx_trainer/training_strategies/flexible.py, diffusers pipelines/ltx2/pipeline_ltx2_condition.py",
)

MODELS = (LTX_23, LTX_25)
