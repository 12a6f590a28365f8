"""HunyuanVideo image-to-video: [noise | V_cond latents | one mask channel], and the first version's variant that only replaces frame 0.

No published code conditions these models on a mask in space; what is done here is the default condition (HunyuanVideo-I2V
`hyvideo/diffusion/flow/transport.py`) with more cells given: latents are zero where a cell is not given, as theirs are after frame 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lora_edit.conditioning.sample import Sample
from lora_edit.models.families.condition_packing import pack_mask
from lora_edit.models.families.hunyuan.encoders import unpack_text
from lora_edit.models.families.wan.family import Autoencoder
from lora_edit.models.family import EncodedSample, Geometry
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.models.runtime.fingerprint import compute_fingerprint

_DOUBLE, _SINGLE = r"transformer_blocks\.\d+\.", r"single_transformer_blocks\.\d+\."
_JOINT = r"attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
HUNYUAN_TARGETS = {
    "attention+ffn": rf"{_DOUBLE}({_JOINT}|ff(_context)?\.net\.(0\.proj|2))|{_SINGLE}(attn\.to_[qkv]|proj_mlp|proj_out)",
    "attention": rf"{_DOUBLE}{_JOINT}|{_SINGLE}attn\.to_[qkv]",
    "query+key": rf"{_DOUBLE}attn\.(to_q|to_k|add_q_proj|add_k_proj)|{_SINGLE}attn\.to_[qk]",
}
"""Picture and text tokens attend to each other in all blocks, so both sides are adapted. A single block's `proj_out` joins the outputs of
attention and MLP; it counts with the MLP. HunyuanVideo-1.5 has no single blocks. Modulation stays as it is, unlike HunyuanVideo-I2V
`train_image2video_lora.py`."""

EMBEDDED_GUIDANCE = 6.0
"""What models distilled from guidance are told to imitate (HunyuanVideo-I2V `hyvideo/config.py`)."""

MIN_TIME = 1e-5


class HunyuanAutoencoder:
    """diffusers' autoencoders of HunyuanVideo and HunyuanVideo-1.5: the posterior's mode, scaled.

    Large frames go through in overlapping tiles, as the publishers do. The first version also cuts clips of more than 16 frames in time,
    which changes latents; it happens alike in training and inference, and when decoding.
    """

    def __init__(self, vae: Any) -> None:
        vae.enable_tiling()
        self.vae = vae
        self.z_dim: int = vae.config.latent_channels
        self.scale: float = vae.config.scaling_factor

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels `[B, 3, T, H, W]` -> scaled latents."""
        mode: torch.Tensor = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return mode.float() * self.scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Scaled latents -> pixels `[B, 3, T, H, W]`, clamped to [-1, 1]: all frames, where upstream drops the first latent's."""
        pixels: torch.Tensor = self.vae.decode((latents.float() / self.scale).to(self.vae.dtype), return_dict=False)[0]
        return pixels.float().clamp(-1, 1)


def encode_condition(codec: Autoencoder, pixels: torch.Tensor) -> torch.Tensor:
    """Pixels `[B, 3, T, H, W]` -> latents with frame 0 encoded alone, as the models are shown it.

    Within a clip its latents are others: the first version's autoencoder normalises over time.
    """
    latents = codec.encode(pixels)
    return latents if pixels.shape[2] == 1 else torch.cat([codec.encode(pixels[:, :, :1]), latents[:, :, 1:]], 2)


@dataclass(frozen=True)
class HunyuanParts:
    """The loaded pieces of one checkpoint.

    `embed_text`: prompt, and the first frame `[3, H, W]` or None, to packed embeddings (`hunyuan_encoders.py`); `embed_image`: the first
    frame to `[1, L, D]`, for models that have an image encoder of its own.
    """

    name: str
    geometry: Geometry
    transformer: nn.Module
    autoencoder: Autoencoder
    embed_text: Callable[[str, torch.Tensor | None], torch.Tensor]
    embed_image: Callable[[torch.Tensor], torch.Tensor] | None
    device_manager: DeviceManager
    dtype: torch.dtype


class HunyuanFamily:
    """`Family` of HunyuanVideo-I2V with 33 input channels (`latent_concat`)."""

    last_frame = False
    part, time_range = "", (0.0, 1.0)

    def __init__(self, parts: HunyuanParts) -> None:
        self.parts = parts
        self.name, self.geometry, self.transformer = parts.name, parts.geometry, parts.transformer
        self.z_dim = parts.autoencoder.z_dim
        self.lora_targets = HUNYUAN_TARGETS
        self.config: Any = parts.transformer.config
        self._fingerprint = ""

    def experts(self) -> tuple[HunyuanFamily, ...]:
        """Itself: one transformer for all times."""
        return (self,)

    def to_device(self) -> None:
        """Bring the transformer to the device; what was there goes back to main memory."""
        self.parts.device_manager.load(self.transformer)

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """A negative prompt -> packed embeddings; where the picture stands in the prompt, it is a black one."""
        return self.parts.embed_text(prompt, None).to(self.parts.dtype)

    @torch.no_grad()
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """V_cond's latents where all of a cell is given, zero elsewhere; then the mask; the current first frame for the encoders."""
        self._check_size(sample)
        clip, device = self.parts.autoencoder, self.parts.device_manager.device
        # One encoder after the other, as they take turns on the device.
        text = self.parts.embed_text(sample.prompt, sample.image).to(self.parts.dtype)
        pictures = None if self.parts.embed_image is None else self.parts.embed_image(sample.image).to(self.parts.dtype)
        given = self._pack_given_cells(sample.m_cond)
        return EncodedSample(
            condition=torch.cat([encode_condition(clip, sample.v_cond[None].to(device)) * given, given], 1),
            hole=1 - given,
            prompt_embeds=text,
            target=None if sample.v_target is None else clip.encode(sample.v_target[None].to(device)),
            image_embeds=pictures,
            blend_latents=None if sample.v_blend is None else encode_condition(clip, sample.v_blend[None].to(device)),
            blend_mask=None if sample.m_blend is None else self._pack_given_cells(sample.m_blend),
        )

    def _pack_given_cells(self, m_cond: torch.Tensor) -> torch.Tensor:
        """`[1, 1, F, h, w]`: 1 where all frames and pixels of a cell are given."""
        return pack_mask(
            m_cond[None].to(self.parts.device_manager.device), self.geometry.spatial_compression, self.geometry.temporal_compression
        ).amin(1, keepdim=True)

    def _check_size(self, sample: Sample) -> None:
        """The autoencoders take other sizes too, and drop or mix what is over."""
        frames, height, width = sample.v_cond.shape[1:]
        token, group = self.geometry.token_size, self.geometry.temporal_compression
        assert (frames - 1) % group == 0, f"{frames} frames are not {group} * k + 1"
        assert height % token == 0 and width % token == 0, f"{width}x{height} is not a multiple of {token}"

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Velocity (noise - data) `[B, z, F, h, w]` in float32."""
        condition = encoded.condition.expand(len(latents), -1, -1, -1, -1)
        return self._predict(torch.cat([latents, condition], 1), time, encoded)

    def _predict(self, model_input: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """The transformer's answer; it is told `1000 * time`."""
        self.to_device()
        batch, dtype = len(model_input), self.parts.dtype
        rows = unpack_text(encoded.prompt_embeds, self.config.text_embed_dim, self.config.pooled_projection_dim)
        text, pooled = (each.to(model_input.device) for each in rows)
        guidance = (
            torch.full((batch,), 1000 * EMBEDDED_GUIDANCE, device=model_input.device, dtype=dtype) if self.config.guidance_embeds else None
        )
        out: torch.Tensor = self.transformer(
            hidden_states=model_input.to(dtype),
            timestep=time.expand(batch) * 1000,
            encoder_hidden_states=text.expand(batch, -1, -1),
            encoder_attention_mask=torch.ones(batch, text.shape[1], device=model_input.device, dtype=dtype),
            pooled_projections=pooled[:, 0].expand(batch, -1),
            guidance=guidance,
            return_dict=False,
        )[0]
        return out.float()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents `[1, z, F, h, w]` -> pixels `[3, T, H, W]` in [-1, 1] on the CPU."""
        return self.parts.autoencoder.decode(latents)[0].cpu()

    def fingerprint(self) -> str:
        """Hash of the name and the transformer's first and last weights."""
        self._fingerprint = self._fingerprint or compute_fingerprint(self.name, self.transformer)
        return self._fingerprint


class HunyuanFirstFrameFamily(HunyuanFamily):
    """HunyuanVideo-I2V with 16 input channels (`token_replace`): latent frame 0 of the input is the clean first frame, and that is all.

    The blocks treat the first frame's tokens apart, in one run, so no mask in space can be expressed: this serves the naive LoRA alone.
    """

    @torch.no_grad()
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Frame 0's latents as condition, zero behind; the target begins with the same latents, so nothing is learned there."""
        assert sample.num_frames > 1 and bool((sample.m_cond[:, 0] > 0.5).all()), "frame 0 has to be given, and others to be made"
        encoded = super().encode_sample(sample)
        first = encoded.condition[:, : self.z_dim].clone()
        first[:, :, 1:] = 0
        generate = torch.ones_like(encoded.hole)
        generate[:, :, 0] = 0
        target = encoded.target
        if target is not None:
            target = torch.cat([first[:, :, :1], target[:, :, 1:]], 2)
        return EncodedSample(**{**vars(encoded), "condition": first, "hole": generate, "target": target})

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """As predicted behind latent frame 0; there the one that leads straight to the clean latents.

        With c clean, (x - c) / t takes Euler's steps from any x to c at t = 0, so the loop needs no case for it. For x = (1 - t) c + t
        noise it is noise - c, the wanted velocity, so the loss there is zero. The model is shown c itself at all times.
        """
        first = encoded.condition[:, :, :1].expand(len(latents), -1, -1, -1, -1)
        known = (latents[:, :, :1] - first) / time.clamp(min=MIN_TIME).view(-1, 1, 1, 1, 1)
        out = self._predict(torch.cat([first, latents[:, :, 1:]], 2), time, encoded)
        return torch.cat([known, out[:, :, 1:]], 2)


class Hunyuan15Family(HunyuanFamily):
    """HunyuanVideo-1.5: the same input with 32 latent channels, 65 in all; other encoders."""

    def _predict(self, model_input: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """The transformer's answer; its class wants the time in the weights' number format, so bfloat16 rounds it to 4 in 1000."""
        self.to_device()
        batch, dtype = len(model_input), self.parts.dtype
        rows = unpack_text(encoded.prompt_embeds, self.config.text_embed_dim, self.config.text_embed_2_dim)
        text, glyphs = (each.to(model_input.device) for each in rows)
        assert encoded.image_embeds is not None

        def real(tokens: torch.Tensor) -> torch.Tensor:
            return torch.ones(batch, tokens.shape[1], device=model_input.device, dtype=dtype)

        out: torch.Tensor = self.transformer(
            hidden_states=model_input.to(dtype),
            timestep=(time.expand(batch) * 1000).to(dtype),
            encoder_hidden_states=text.expand(batch, -1, -1),
            encoder_attention_mask=real(text),
            encoder_hidden_states_2=glyphs.expand(batch, -1, -1),
            encoder_attention_mask_2=real(glyphs),
            image_embeds=encoded.image_embeds.expand(batch, -1, -1),
            return_dict=False,
        )[0]
        return out.float()
