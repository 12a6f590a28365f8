"""The embedded model: a 4.7-million-parameter Wan transformer and a linear block codec, trained from scratch by this project.

It does the whole job on two CPU cores, at low resolution. It has no text or image encoder: prompts are ignored. How it was made:
`tools/pretrain/README.md`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import WanTransformer3DModel

from lora_edit.models.block_codec import BlockCodec
from lora_edit.models.family import Geometry
from lora_edit.models.wan import WanFamily, WanParts

WEIGHTS = Path(__file__).parent / "weights" / "tiny"
GEOMETRY = Geometry(cell=8, group=4, token=8, max_frames=17, area=80 * 80)


def load_tiny(device: torch.device, dtype: torch.dtype, folder: Path = WEIGHTS) -> WanFamily:
    """The embedded model, frozen. It computes in float32 on every device: it is too small for anything else to pay."""
    transformer = WanTransformer3DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32).to(device).eval()
    codec = BlockCodec.from_pretrained(folder / "vae", torch_dtype=torch.float32).to(device).eval()
    transformer.requires_grad_(False)
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
        )
    )
