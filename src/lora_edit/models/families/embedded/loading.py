"""Loading the embedded model: a 3.2-million-parameter Wan transformer and a linear block codec, trained from scratch by this project.

It runs the whole method on two CPU cores, at low resolution. In withheld pixels it refines a predicted clip. It has no text or image
encoder: prompts are ignored. Its training: `tools/pretrain/README.md`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import WanTransformer3DModel
from safetensors import SafetensorError
from safetensors.torch import load_file

from lora_edit.errors import ModelError
from lora_edit.models.families.base import ExpertPair, TransformerFamily, build_family
from lora_edit.models.families.embedded.conditioning import EmbeddedFamily
from lora_edit.models.families.embedded.encoders import LappedCodec
from lora_edit.models.families.embedded.record import TINY
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager

WEIGHTS_FOLDER = Path(__file__).parent / "weights" / "tiny"
PREDICTION_STD_FILE = "prediction_std.safetensors"
GEOMETRY = TINY.geometry


class SingleTokenAttnProcessor:
    """Cross-attention to a single token, whose softmax is 1: the result of diffusers' `WanAttnProcessor` at lower cost."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: None = None,
        rotary_emb: None = None,
    ) -> torch.Tensor:
        """Attend from `[B, N, D]` hidden states to `[B, 1, D]` text; returns `[B, N, D]`."""
        assert encoder_hidden_states.shape[1] == 1 and attention_mask is None and rotary_emb is None
        return cast(torch.Tensor, attn.to_out[0](attn.to_v(encoder_hidden_states))).expand(hidden_states.shape)


_LOAD_ERRORS = (OSError, ValueError, TypeError, LookupError, RuntimeError, AttributeError, ArithmeticError, SafetensorError)
"""What diffusers and safetensors raise for configurations and files of other models, and for damaged ones."""


def set_single_token_attention(transformer: WanTransformer3DModel) -> WanTransformer3DModel:
    """Use `SingleTokenAttnProcessor` for the text attention of every block."""
    for block in transformer.blocks:
        block.attn2.set_processor(SingleTokenAttnProcessor())
    return transformer


def load_embedded(record: ModelRecord, source: str, device: torch.device, dtype: torch.dtype) -> TransformerFamily | ExpertPair:
    """Load the embedded model from the package, or from a folder in the same layout; the loader of its record."""
    return load_tiny(device, dtype, Path(source) if source else WEIGHTS_FOLDER)


def load_tiny(device: torch.device, dtype: torch.dtype, folder: Path = WEIGHTS_FOLDER) -> TransformerFamily | ExpertPair:
    """Load the embedded model, frozen. It computes in float32 on every device: it is too small to gain from another number format.

    It has no encoders to cache and is not checkpointed: both would cost more than they save. Raises `ModelError` when the folder is damaged
    or holds another model.
    """
    try:
        transformer = WanTransformer3DModel.from_pretrained(folder / "transformer", dtype=torch.float32).to(device)
        codec = LappedCodec.from_pretrained(folder / "vae", dtype=torch.float32).to(device).eval()
        hint_std = load_file(folder / PREDICTION_STD_FILE)["std"].to(device)
    except _LOAD_ERRORS as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"{folder}: holds no weights of the embedded model ({reason}); give --model tiny without a folder") from error
    codec.requires_grad_(False)
    text_dim = transformer.config.text_dim
    return build_family(
        partial(EmbeddedFamily, hint_std=hint_std),
        TINY,
        (set_single_token_attention(transformer),),
        autoencoder=codec,
        text_encoder=lambda prompt: torch.zeros(1, 1, text_dim),
        image_encoder=None,
        device_manager=DeviceManager(device),
        dtype=torch.float32,
        gradient_checkpointing=False,
    )
