"""Condition layout of HunyuanVideo image-to-video: [noise | V_cond latents | one mask channel].

A variant of the first version replaces frame 0 only. No published code conditions these models on a mask in space. This layout is the
default condition (HunyuanVideo-I2V `hyvideo/diffusion/flow/transport.py`) with more cells given: latents are zero where a cell is not
given, as upstream's are after frame 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lora_edit.conditioning.sample import Sample
from lora_edit.models.families.base import FamilyParts, TransformerFamily, build_meta_tensors
from lora_edit.models.families.condition_packing import pack_mask
from lora_edit.models.families.hunyuan.encoders import GLYPH_MAX_LENGTH, pack_text, unpack_text
from lora_edit.models.families.hunyuan.token_selection import select_all_tokens
from lora_edit.models.family import Autoencoder, EncodedSample, LatentShape
from lora_edit.models.record import ModelRecord

_DOUBLE, _SINGLE = r"transformer_blocks\.\d+\.", r"single_transformer_blocks\.\d+\."
_JOINT = r"attn\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out)"
HUNYUAN_TARGETS = {
    "attention+ffn": rf"{_DOUBLE}({_JOINT}|ff(_context)?\.net\.(0\.proj|2))|{_SINGLE}(attn\.to_[qkv]|proj_mlp|proj_out)",
    "attention": rf"{_DOUBLE}{_JOINT}|{_SINGLE}attn\.to_[qkv]",
    "query+key": rf"{_DOUBLE}attn\.(to_q|to_k|add_q_proj|add_k_proj)|{_SINGLE}attn\.to_[qk]",
}
"""Layers of a LoRA by `lora.targets`. Image and text tokens attend to each other in all blocks, so both sides are adapted. A single block's
`proj_out` joins the outputs of attention and MLP, and counts as part of the MLP. HunyuanVideo-1.5 has no single blocks. Modulation layers
are not adapted, unlike in HunyuanVideo-I2V `train_image2video_lora.py`."""

EMBEDDED_GUIDANCE = 6.0
"""Guidance input of models distilled from guidance (HunyuanVideo-I2V `hyvideo/config.py`)."""

TEXT_DIM_KEY, POOLED_DIM_KEY = "text_embed_dim", "pooled_projection_dim"
"""Keys of the transformer's configuration: widths of the text embeddings and of the pooled embedding."""

SIGLIP_IMAGE_TOKENS = 729
"""Tokens of one image by HunyuanVideo-1.5's SigLIP."""

MIN_TIME = 1e-5
"""Smallest divisor of a difference of latents."""


def encode_condition(autoencoder: Autoencoder, pixels: torch.Tensor) -> torch.Tensor:
    """Encode pixels `[B, 3, T, H, W]` to latents with frame 0 encoded alone, as in the models' input.

    Encoded within a clip, frame 0 has other latents: the first version's autoencoder normalises over time.
    """
    latents = autoencoder.encode(pixels)
    return latents if pixels.shape[2] == 1 else torch.cat([autoencoder.encode(pixels[:, :, :1]), latents[:, :, 1:]], 2)


class HunyuanFamily(TransformerFamily):
    """`Family` of HunyuanVideo-I2V with 33 input channels (`latent_concat`)."""

    lora_targets = HUNYUAN_TARGETS

    def __init__(self, parts: FamilyParts) -> None:
        super().__init__(parts)
        self.config: Any = parts.transformer.config

    def encode_prompt(self, prompt: str) -> torch.Tensor:
        """Encode a negative prompt to packed embeddings; where the prompt holds the image, it is a black one."""
        return self.parts.text_encoder(prompt, None).to(self.parts.dtype)

    @torch.no_grad()
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode V_cond where all of a cell is given (zero elsewhere), the mask, and the current first frame for the encoders."""
        self._check_size(sample)
        autoencoder, device = self.parts.autoencoder, self.device
        # One encoder after the other, because they take turns on the device.
        prompt_embeds = self.parts.text_encoder(sample.prompt, sample.image).to(self.parts.dtype)
        image_embeds = None if self.parts.image_encoder is None else self.parts.image_encoder(sample.image).to(self.parts.dtype)
        given = self._pack_given_cells(sample.m_cond)
        return EncodedSample(
            condition=torch.cat([encode_condition(autoencoder, sample.v_cond[None].to(device)) * given, given], 1),
            hole=1 - given,
            prompt_embeds=prompt_embeds,
            target=None if sample.v_target is None else autoencoder.encode(sample.v_target[None].to(device)),
            image_embeds=image_embeds,
            blend_latents=None if sample.v_blend is None else encode_condition(autoencoder, sample.v_blend[None].to(device)),
            blend_mask=None if sample.m_blend is None else self._pack_given_cells(sample.m_blend),
        )

    def _pack_given_cells(self, m_cond: torch.Tensor) -> torch.Tensor:
        """Pack a mask to `[1, 1, F, h, w]`: 1 where all frames and pixels of a cell are given."""
        packed = pack_mask(m_cond[None].to(self.device), self.geometry.spatial_compression, self.geometry.temporal_compression)
        return packed.amin(1, keepdim=True)

    def _check_size(self, sample: Sample) -> None:
        """Assert whole tokens and latent frames; the autoencoders accept other sizes, and drop or mix the remainder."""
        frames, height, width = sample.v_cond.shape[1:]
        token, group = self.geometry.token_size, self.geometry.temporal_compression
        assert (frames - 1) % group == 0, f"{frames} frames are not {group} * k + 1"
        assert height % token == 0 and width % token == 0, f"{width}x{height} is not a multiple of {token}"

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Predict the velocity (noise - data) `[B, z, F, h, w]` in float32."""
        condition = encoded.condition.expand(len(latents), -1, -1, -1, -1)
        return self._predict(torch.cat([latents, condition], 1), time, encoded)

    def _predict(self, model_input: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Call the transformer, which takes `1000 * time`."""
        self.to_device()
        batch, dtype = len(model_input), self.parts.dtype
        rows = unpack_text(encoded.prompt_embeds, self.config.text_embed_dim, self.config.pooled_projection_dim)
        text, pooled = (each.to(model_input.device) for each in rows)
        guidance = None
        if self.config.guidance_embeds:
            guidance = torch.full((batch,), 1000 * EMBEDDED_GUIDANCE, device=model_input.device, dtype=dtype)
        output: torch.Tensor = self.transformer(
            hidden_states=model_input.to(dtype),
            timestep=time.expand(batch) * 1000,
            encoder_hidden_states=text.expand(batch, -1, -1),
            encoder_attention_mask=torch.ones(batch, text.shape[1], device=model_input.device, dtype=dtype),
            pooled_projections=pooled[:, 0].expand(batch, -1),
            guidance=guidance,
            return_dict=False,
        )[0]
        return output.float()


class HunyuanFirstFrameFamily(HunyuanFamily):
    """`Family` of HunyuanVideo-I2V with 16 input channels (`token_replace`): latent frame 0 of the input is the clean first frame.

    The blocks treat the first frame's tokens apart, as one run of tokens, so no mask in space can be expressed: this model serves the naive
    LoRA alone.
    """

    @torch.no_grad()
    def encode_sample(self, sample: Sample) -> EncodedSample:
        """Encode frame 0's latents as condition, zero behind; the target begins with the same latents, so nothing is learned there."""
        assert sample.num_frames > 1 and bool((sample.m_cond[:, 0] > 0.5).all()), "frame 0 has to be given, and others to be generated"
        encoded = super().encode_sample(sample)
        first = encoded.condition[:, : self.z_dim].clone()
        first[:, :, 1:] = 0
        hole = torch.ones_like(encoded.hole)
        hole[:, :, 0] = 0
        target = encoded.target
        if target is not None:
            target = torch.cat([first[:, :, :1], target[:, :, 1:]], 2)
        return replace(encoded, condition=first, hole=hole, target=target)

    def predict_velocity(self, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Predict behind latent frame 0; there, return the velocity that leads straight to the clean latents.

        With c clean, (x - c) / t takes Euler's steps from any x to c at t = 0, so the loop needs no case for it. For x = (1 - t) c + t
        noise it is noise - c, the target velocity, so the loss there is zero. The model's input is c itself at all times.
        """
        first = encoded.condition[:, :, :1].expand(len(latents), -1, -1, -1, -1)
        first_velocity = (latents[:, :, :1] - first) / time.clamp(min=MIN_TIME).view(-1, 1, 1, 1, 1)
        output = self._predict(torch.cat([first, latents[:, :, 1:]], 2), time, encoded)
        return torch.cat([first_velocity, output[:, :, 1:]], 2)


class Hunyuan15Family(HunyuanFamily):
    """`Family` of HunyuanVideo-1.5: the same input with 32 latent channels, 65 in all; other encoders."""

    def _predict(self, model_input: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        """Call the transformer. Its class takes the time in the weights' number format, so bfloat16 rounds it to 4 in 1000."""
        self.to_device()
        batch, dtype = len(model_input), self.parts.dtype
        rows = unpack_text(encoded.prompt_embeds, self.config.text_embed_dim, self.config.text_embed_2_dim)
        text, glyphs = (each.to(model_input.device) for each in rows)
        assert encoded.image_embeds is not None

        def build_mask(tokens: torch.Tensor) -> torch.Tensor:
            return torch.ones(batch, tokens.shape[1], device=model_input.device, dtype=dtype)

        with select_all_tokens(model_input.device):
            output: torch.Tensor = self.transformer(
                hidden_states=model_input.to(dtype),
                timestep=(time.expand(batch) * 1000).to(dtype),
                encoder_hidden_states=text.expand(batch, -1, -1),
                encoder_attention_mask=build_mask(text),
                encoder_hidden_states_2=glyphs.expand(batch, -1, -1),
                encoder_attention_mask_2=build_mask(glyphs),
                image_embeds=encoded.image_embeds.expand(batch, -1, -1),
                return_dict=False,
            )[0]
        return output.float()


def build_meta_sample(record: ModelRecord, latent_shape: LatentShape, dtype: torch.dtype) -> EncodedSample:
    """Build a sample without values on torch's meta device.

    The packed text has values, because `unpack_text` reads from them which rows belong to which encoder.
    """
    config = record.read_transformer_config()
    z_dim = config["out_channels"]
    channels = z_dim if config.get("image_condition_type") == "token_replace" else config["in_channels"] - z_dim
    second = (GLYPH_MAX_LENGTH, "text_embed_2_dim") if record.image_encoder else (1, POOLED_DIM_KEY)
    widths = ((record.text_length, TEXT_DIM_KEY), second)
    image_embeds = None
    if record.image_encoder:
        image_embeds = torch.empty(1, SIGLIP_IMAGE_TOKENS, config["image_embed_dim"], dtype=dtype, device="meta")
    return EncodedSample(
        **build_meta_tensors({"condition": channels, "hole": 1, "target": z_dim}, latent_shape, dtype),
        prompt_embeds=pack_text(*(torch.zeros(1, length, config[width], dtype=dtype) for length, width in widths)),
        image_embeds=image_embeds,
    )
