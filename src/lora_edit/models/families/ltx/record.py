"""Record of LTX-Video 0.9, with its preset."""

from __future__ import annotations

from lora_edit.models.record import Geometry, ModelRecord, Preset, read_negative_prompt

T5_GB = 9.5
"""Memory of T5 v1.1 XXL's encoder in bfloat16."""


def ltx_preset() -> Preset:
    """40 steps, guidance 3 (LTX-Video `configs/ltxv-2b-0.9.5.yaml`), the negative prompt of `ltx_video/inference.py`.

    Upstream also uses spatio-temporal guidance (`stg_scale: 1`), which is not supported here.

    Upstream's shift grows with the number of tokens; 13 is the value for 121 frames of 704x512, without the stretched last step. The
    overlap of windows fills one latent frame.
    """
    negative_prompt = read_negative_prompt("ltx")
    return {"generation": {"steps": 40, "guidance_scale": 3.0, "shift": 13.0, "overlap": 8, "negative_prompt": negative_prompt}}


LTX_VIDEO = ModelRecord(
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
    largest_encoder_gb=T5_GB,
    encoders_gb=T5_GB + 5.0,
    meta_sample="lora_edit.models.families.ltx.conditioning:build_meta_sample",
    meta_autoencoder="AutoencoderKLLTXVideo",
    upstream="LTX-Video ltx_video/pipelines/pipeline_ltx_video.py, diffusers pipelines/ltx/pipeline_ltx_condition.py",
)

MODELS = (LTX_VIDEO,)
