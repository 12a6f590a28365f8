"""Condition layout of models without a mask channel: given tokens are clean in place of the noisy ones, at time 0.

Upstream, only frame 0 is given this way (diffusers `pipeline_wan_i2v.py` with `expand_timesteps`, `pipeline_ltx_image2video.py`). Because
the transformer takes a time for every token, any token can be given, in space and time, but only whole: a token that touches the hole is
generated.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from einops import repeat

from lora_edit.conditioning.sample import Sample
from lora_edit.errors import InputError
from lora_edit.models.families.base import TransformerFamily, build_meta_tensors
from lora_edit.models.families.condition_packing import pack_mask
from lora_edit.models.family import EncodedSample, LatentShape
from lora_edit.models.record import Geometry, ModelRecord

MIN_TIME = 1e-6
"""Smallest divisor of a difference of latents."""


def pack_given_cells(m_cond: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """Pack `M_cond` `[B, 1, T, H, W]` (1 = given) to `[B, 1, F, h, w]`.

    A cell is 1 where every pixel of its token is given in all frames of the latent frame, else 0.
    """
    tokens = pack_mask(m_cond, geometry.token_size, geometry.temporal_compression).amin(1, keepdim=True)
    side = geometry.token_size // geometry.spatial_compression
    return repeat(tokens, "b 1 f h w -> b 1 f (h p) (w q)", p=side, q=side)


def compute_token_timesteps(time: torch.Tensor, hole: torch.Tensor, side: int) -> torch.Tensor:
    """Compute the time of each token, `[B, F * h * w / side^2]`, from `time` `[B]`: 0 where the token is given.

    `hole` is `[1, 1, F, h, w]`; a token is `side` cells wide.
    """
    tokens = hole[:, 0, :, ::side, ::side].flatten(1)
    return time[:, None] * tokens.to(time)


def compute_velocity_to(clean: torch.Tensor, latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """Compute the velocity of the straight line from `latents` `[B, z, F, h, w]` at `time` `[B]` to `clean` `[1, z, F, h, w]` at 0."""
    # Given tokens follow this velocity instead of the model's prediction, which upstream discards too. An Euler step to 0 then ends at
    # `clean` from any start, and other steps stay on the line from the noise. In training, where `clean` is the target at these tokens,
    # x = (1 - t) clean + t noise, so that (x - clean) / t = noise - clean is the target of the loss: neither loss nor gradient remains
    # there, and neither loop needs a case for tokens. Near t = 0 rounding of x is divided by t: below `MIN_TIME` the line is cut short.
    return (latents - clean) / time.clamp(min=MIN_TIME).view(-1, 1, 1, 1, 1)


def check_size(name: str, geometry: Geometry, sample: Sample) -> None:
    """Raise `InputError` for a clip that does not consist of whole tokens and whole latent frames."""
    height, width = sample.image.shape[1:]
    group, token = geometry.temporal_compression, geometry.token_size
    if (sample.num_frames - 1) % group:
        raise InputError(
            f"{name} takes {group} k + 1 frames at once, not {sample.num_frames}; set training.window and generation.window to such numbers"
        )
    if height % token or width % token:
        raise InputError(f"{name} takes frames with sides of whole {token} pixels, not {width}x{height}; resize them")


class TokenReplaceFamily(TransformerFamily):
    """`Family` and its only `Expert`. In its `EncodedSample`, `condition` holds V_cond's latents, used where `hole` is 0."""

    @abstractmethod
    def predict(self, model_input: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """Call the transformer: latents `[B, z, F, h, w]` at times `[B, tokens]` in [0, 1000] to an output of the latents' shape."""

    @torch.no_grad()
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode V_cond and V_target whole. Raises `InputError` for sizes that the model does not take.

        The target of a given token is V_cond's latents there, because the autoencoder mixes in the hole nearby.
        """
        check_size(self.name, self.geometry, sample)
        encode, device, grid = self.parts.autoencoder.encode, self.device, self.geometry
        prompt_embeds = self.encode_prompt(sample.prompt)  # first, because the encoders take turns on the device
        given = pack_given_cells(sample.m_cond[None].to(device), grid)
        condition = encode(sample.v_cond[None].to(device))
        target = None if sample.v_target is None else encode(sample.v_target[None].to(device))
        blend_mask = None
        if sample.m_blend is not None:
            blend_mask = pack_mask(sample.m_blend[None].to(device), grid.spatial_compression, grid.temporal_compression)
        return EncodedSample(
            condition=condition,
            hole=1 - given,
            prompt_embeds=prompt_embeds,
            target=None if target is None else torch.where(given > 0, condition, target),
            blend_latents=None if sample.v_blend is None else encode(sample.v_blend[None].to(device)),
            blend_mask=None if blend_mask is None else blend_mask.amin(1, keepdim=True),
        )

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Predict the velocity (noise - data) `[B, z, F, h, w]` in float32; at given tokens, the one that leads to their latents."""
        self.to_device()
        in_hole = encoded.hole > 0
        model_input = torch.where(in_hole, latents, encoded.condition).to(self.parts.dtype)
        timesteps = compute_token_timesteps(1000 * time, encoded.hole, self.geometry.token_size // self.geometry.spatial_compression)
        output = self.predict(model_input, timesteps, encoded.prompt_embeds.expand(len(latents), -1, -1))
        return torch.where(in_hole, output.float(), compute_velocity_to(encoded.condition, latents, time))


def build_token_replace_sample(record: ModelRecord, latent_shape: LatentShape, dtype: torch.dtype, text_dim: int) -> EncodedSample:
    """Build a sample without values on torch's meta device."""
    z_dim = record.read_transformer_config()["out_channels"]
    return EncodedSample(
        **build_meta_tensors({"condition": z_dim, "hole": 1, "target": z_dim}, latent_shape, dtype),
        prompt_embeds=torch.empty(1, record.text_length, text_dim, dtype=dtype, device="meta"),
    )
