"""The embedded model: a 3.2-million-parameter Wan transformer and a linear block codec, trained from scratch by this project.

It does the whole job on two CPU cores, at low resolution. Where pixels are withheld it is given frame 0 carried along by the
region's box. It has no text or image encoder: prompts are ignored. How it was made: `tools/pretrain/README.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from diffusers import WanTransformer3DModel
from safetensors.torch import load_file

from lora_edit.models.families.embedded.autoencoder import LappedCodec
from lora_edit.models.families.registry import TINY
from lora_edit.models.families.wan.family import WanFamily, WanParts
from lora_edit.models.record import ModelFacts

WEIGHTS_FOLDER = Path(__file__).parent / "weights" / "tiny"
PREDICTION_STD_FILE = "prediction_std.safetensors"
GEOMETRY = TINY.geometry


class SingleTokenAttnProcessor:
    """Cross-attention to a single token, as its softmax is 1: the same result as diffusers' `WanAttnProcessor` for less work."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: None = None,
        rotary_emb: None = None,
    ) -> torch.Tensor:
        """`[B, N, D]` hidden states and `[B, 1, D]` text to `[B, N, D]`."""
        assert encoder_hidden_states.shape[1] == 1 and attention_mask is None and rotary_emb is None
        return cast(torch.Tensor, attn.to_out[0](attn.to_v(encoder_hidden_states))).expand(hidden_states.shape)


def set_single_token_attention(transformer: WanTransformer3DModel) -> WanTransformer3DModel:
    """Give every block's text attention the shortcut that a single text token allows."""
    for block in transformer.blocks:
        block.attn2.set_processor(SingleTokenAttnProcessor())
    return transformer


def load_embedded(facts: ModelFacts, source: str, device: torch.device, dtype: torch.dtype) -> WanFamily:
    """The catalogue's loader: the weights lie in the package, or in a folder of the same layout."""
    return load_tiny(device, dtype, Path(source) if source else WEIGHTS_FOLDER)


def load_tiny(device: torch.device, dtype: torch.dtype, folder: Path = WEIGHTS_FOLDER) -> WanFamily:
    """The embedded model, frozen. It computes in float32 on every device: it is too small for anything else to pay."""
    transformer = WanTransformer3DModel.from_pretrained(folder / "transformer", dtype=torch.float32).to(device).eval()
    codec = LappedCodec.from_pretrained(folder / "vae", dtype=torch.float32).to(device).eval()
    set_single_token_attention(transformer).requires_grad_(False)
    codec.requires_grad_(False)
    text_dim = transformer.config.text_dim
    return WanFamily(
        WanParts(
            name="tiny",
            geometry=GEOMETRY,
            transformer=transformer,
            autoencoder=codec,
            embed_prompt=lambda prompt: torch.zeros(1, 1, text_dim),
            embed_image=None,
            device=device,
            dtype=torch.float32,
            hint_std=load_file(folder / PREDICTION_STD_FILE)["std"].to(device),
        )
    )
