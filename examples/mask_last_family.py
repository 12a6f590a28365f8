"""A model family in one file: `lora-edit edit --model mask_last_family:RECORD ...` with this folder on PYTHONPATH.

Its transformer takes [noise | V_cond latents | one mask channel], the order of HunyuanVideo's `latent_concat`, where Wan takes
[noise | mask | latents]. The weights are random: the file shows the structure of a family, not the results of a trained one.
"""

from __future__ import annotations

import torch
from diffusers import WanTransformer3DModel

from lora_edit.conditioning.sample import Sample
from lora_edit.models.families.condition_packing import pack_mask
from lora_edit.models.families.embedded.encoders import LappedCodec
from lora_edit.models.family import EncodedSample
from lora_edit.models.record import Geometry, ModelRecord, Preset
from lora_edit.models.runtime.device_manager import DeviceManager

CHANNELS, WIDTH = 16, 24
TARGETS = {
    "attention+ffn": r"blocks\.\d+\.(attn1\.to_[qkv]|ffn\.net\.2)",
    "attention": r"blocks\.\d+\.attn1\.to_[qkv]",
    "query+key": r"blocks\.\d+\.attn1\.to_[qk]",
}
"""Linear layers that a LoRA may adapt, as regular expressions over module names, for each value of `lora.targets`."""


def preset() -> Preset:
    """Return the differences from the settings' defaults."""
    return {"generation": {"guidance_scale": 1.0, "steps": 10}}


RECORD = ModelRecord(
    name="mask-last",
    summary="an example with random weights; ignores prompts",
    license="Apache-2.0",
    geometry=Geometry(spatial_compression=8, temporal_compression=4, token_size=8, max_frames=17, native_area=64 * 64),
    loader="mask_last_family:load",
    preset=preset,
    memory="1 GB, CPU",
    meta_sample="mask_last_family:build_meta_sample",
)


class MaskLast:
    """The family, and its only expert: one transformer for all times."""

    name, geometry, last_frame = RECORD.name, RECORD.geometry, False
    z_dim = CHANNELS
    part, time_range = "", (0.0, 1.0)

    def __init__(self, transformer: WanTransformer3DModel, codec: LappedCodec, device: torch.device) -> None:
        self.transformer, self.codec, self.device, self.lora_targets = transformer, codec, device, TARGETS
        self.device_manager = DeviceManager(device)

    def experts(self) -> tuple[MaskLast, ...]:
        """Return the experts, to each of which a LoRA is fitted."""
        return (self,)

    def to_device(self) -> None:
        """Move the transformer to the device."""
        self.device_manager.load(self.transformer)

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Return one empty token for every prompt."""
        return torch.zeros(1, 1, WIDTH, device=self.device)

    @torch.no_grad()
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode V_cond, and append a mask: 1 where all of a latent cell's frames are given."""
        grid = RECORD.geometry
        given = pack_mask(sample.m_cond[None].to(self.device), grid.spatial_compression, grid.temporal_compression).amin(1, keepdim=True)
        latents = self.codec.encode(sample.v_cond[None].to(self.device))
        return EncodedSample(
            condition=torch.cat([latents, given], 1),
            hole=1 - given,
            prompt_embeds=self.encode_prompt(sample.prompt),
            target=None if sample.v_target is None else self.codec.encode(sample.v_target[None].to(self.device)),
        )

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Predict the velocity, noise minus data; training and generation both call this method."""
        self.to_device()
        return self.transformer(torch.cat([latents, encoded.condition], 1), time * 1000, encoded.prompt_embeds, return_dict=False)[0]

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode latents to pixels on the CPU."""
        return self.codec.decode(latents)[0].cpu()

    def fingerprint(self) -> str:
        """Identify the weights, of which there is one set here."""
        return "mask-last-1"


def load(record: ModelRecord, source: str, device: torch.device, dtype: torch.dtype) -> MaskLast:
    """Load the model. A real family reads `source`, a folder or a Hub repository, here, except on torch's meta device."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = WanTransformer3DModel(
            patch_size=(1, 1, 1), num_attention_heads=2, attention_head_dim=WIDTH // 2, in_channels=2 * CHANNELS + 1, out_channels=CHANNELS,
            text_dim=WIDTH, freq_dim=16, ffn_dim=2 * WIDTH, num_layers=2, rope_max_seq_len=64,
        )  # fmt: skip
        codec = LappedCodec(z_dim=CHANNELS)
    return MaskLast(transformer.to(device).eval().requires_grad_(False), codec.to(device).eval().requires_grad_(False), device)


def build_meta_sample(record: ModelRecord, latent_shape: tuple[int, int, int], dtype: torch.dtype) -> EncodedSample:
    """Build a sample without values on torch's meta device, with which the costs of a step are counted before weights are read."""

    def build(channels: int) -> torch.Tensor:
        return torch.empty(1, channels, *latent_shape, device="meta")

    return EncodedSample(build(CHANNELS + 1), build(1), torch.empty(1, 1, WIDTH, device="meta"), build(CHANNELS))
