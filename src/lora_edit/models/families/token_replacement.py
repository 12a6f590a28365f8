"""What models without a mask channel have in common: given tokens stand clean in place of the noisy ones, and are told time 0.

Upstream, frame 0 alone is given so (diffusers `pipeline_wan_i2v.py` with `expand_timesteps`, `pipeline_ltx_image2video.py`). As the
transformer takes a time for every token, any tokens can be, in space and time, but only whole: one that touches the hole is generated.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import repeat
from torch import nn

from lora_edit.conditioning.sample import Sample
from lora_edit.errors import InputError
from lora_edit.models.families.condition_packing import pack_mask
from lora_edit.models.families.wan.family import Autoencoder
from lora_edit.models.family import EncodedSample, Geometry
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.models.runtime.fingerprint import compute_fingerprint

MIN_TIME = 1e-6
"""The least time that a difference is divided by."""


def pack_given_cells(m_cond: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """`M_cond` `[B, 1, T, H, W]` (1 = given) -> `[B, 1, F, h, w]`: 1 where every pixel of the cell's token is given in all of the latent
    frame's frames, else 0."""
    tokens = pack_mask(m_cond, geometry.token_size, geometry.temporal_compression).amin(1, keepdim=True)
    side = geometry.token_size // geometry.spatial_compression
    return repeat(tokens, "b 1 f h w -> b 1 f (h p) (w q)", p=side, q=side)


def compute_token_timesteps(time: torch.Tensor, hole: torch.Tensor, side: int) -> torch.Tensor:
    """Times `[B]` -> `[B, F * h * w / side^2]`, one per token: 0 where it is given. `generate` is `[1, 1, F, h, w]`, `side` cells wide."""
    tokens = hole[:, 0, :, ::side, ::side].flatten(1)
    return time[:, None] * tokens.to(time)


def compute_velocity_to(clean: torch.Tensor, latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    """The velocity of the straight line from `latents` `[B, z, F, h, w]` at `time` `[B]` to `clean` `[1, z, F, h, w]` at 0."""
    # Given tokens follow this and not what the model says of them, which upstream throws away too. An Euler step to 0 then ends at `clean`
    # from wherever it starts, and other steps stay on the line from the noise. In training, where `clean` is the target at these tokens,
    # x = (1 - t) clean + t noise, so that (x - clean) / t = noise - clean is what the loss asks for: nothing is left of it there, nor a
    # gradient. So neither loop has to know of tokens. Near t = 0 rounding of x is divided by t: below `SOONEST` the line is cut short.
    return (latents - clean) / time.clamp(min=MIN_TIME).view(-1, 1, 1, 1, 1)


def check_size(name: str, geometry: Geometry, sample: Sample) -> None:
    """Raise `InputError` for a clip that is not made of whole tokens and whole latent frames."""
    height, width = sample.image.shape[1:]
    group, token = geometry.temporal_compression, geometry.token_size
    if (sample.num_frames - 1) % group:
        raise InputError(
            f"{name} takes {group} k + 1 frames at once, not {sample.num_frames}; set training.window and generation.window to such numbers"
        )
    if height % token or width % token:
        raise InputError(f"{name} takes frames with sides of whole {token} pixels, not {width}x{height}; resize them")


@dataclass(frozen=True)
class TokenReplaceParts:
    """The loaded pieces of one checkpoint; `embed_prompt`: prompt to `[1, L, D]`."""

    name: str
    geometry: Geometry
    transformer: nn.Module
    autoencoder: Autoencoder
    embed_prompt: Callable[[str], torch.Tensor]
    lora_targets: dict[str, str]
    device_manager: DeviceManager
    dtype: torch.dtype


class TokenReplaceFamily(ABC):
    """`Family` and its only `Expert`. In an `EncodedSample` of it, `condition` holds V_cond's latents, shown where `generate` is 0."""

    last_frame = False
    part = ""
    time_range = (0.0, 1.0)

    def __init__(self, parts: TokenReplaceParts) -> None:
        self.parts = parts
        self.name, self.geometry, self.transformer = parts.name, parts.geometry, parts.transformer
        self.lora_targets = parts.lora_targets
        self.z_dim = parts.autoencoder.z_dim
        self._fingerprint = ""

    @abstractmethod
    def predict(self, model_input: torch.Tensor, timesteps: torch.Tensor, prompt_embeds: torch.Tensor) -> torch.Tensor:
        """The transformer's answer `[B, z, F, h, w]` to latents of that shape at `times` `[B, tokens]` in [0, 1000]."""

    def experts(self) -> tuple[TokenReplaceFamily, ...]:
        """Itself."""
        return (self,)

    def to_device(self) -> None:
        """Bring the transformer to the device; what was there goes back to main memory."""
        self.parts.device_manager.load(self.transformer)

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Prompt -> embeddings `[1, L, D]`."""
        return self.parts.embed_prompt(prompt).to(self.parts.device_manager.device, self.parts.dtype)

    @torch.no_grad()
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """V_cond and V_target encoded whole. Raises `InputError` for sizes that the model does not take.

        Where a token is given, its target is what it is given: V_cond's latents, which the autoencoder lets the hole nearby seep into.
        """
        check_size(self.name, self.geometry, sample)
        encode, device, grid = self.parts.autoencoder.encode, self.parts.device_manager.device, self.geometry
        text = self.encode_prompt(sample.prompt)  # first, as the two take turns on the device
        given = pack_given_cells(sample.m_cond[None].to(device), grid)
        condition = encode(sample.v_cond[None].to(device))
        target = None if sample.v_target is None else encode(sample.v_target[None].to(device))
        keep = (
            None
            if sample.m_blend is None
            else pack_mask(sample.m_blend[None].to(device), grid.spatial_compression, grid.temporal_compression)
        )
        return EncodedSample(
            condition=condition,
            hole=1 - given,
            prompt_embeds=text,
            target=None if target is None else torch.where(given > 0, condition, target),
            blend_latents=None if sample.v_blend is None else encode(sample.v_blend[None].to(device)),
            blend_mask=None if keep is None else keep.amin(1, keepdim=True),
        )

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Velocity (noise - data) `[B, z, F, h, w]` in float32; at given tokens the one that leads to what is given."""
        self.to_device()
        generate = encoded.hole > 0
        shown = torch.where(generate, latents, encoded.condition).to(self.parts.dtype)
        times = compute_token_timesteps(1000 * time, encoded.hole, self.geometry.token_size // self.geometry.spatial_compression)
        answer = self.predict(shown, times, encoded.prompt_embeds.expand(len(latents), -1, -1))
        return torch.where(generate, answer.float(), compute_velocity_to(encoded.condition, latents, time))

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `[1, z, F, h, w]` -> pixels `[3, T, H, W]` in [-1, 1] on the CPU."""
        return self.parts.autoencoder.decode(latents)[0].cpu()

    def fingerprint(self) -> str:
        """Of name and weights."""
        if not self._fingerprint:
            self._fingerprint = compute_fingerprint(self.name, self.transformer)
        return self._fingerprint
