"""The picture editors' pipelines with their real classes and random weights, small enough for unit tests, as folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import torch
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)  # fmt: skip
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

SPECIAL = ["<pad>", "<unk>", "</s>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
WORDS = [*SPECIAL, "a", "red", "coat", "make", "it"]


def tiny_tokenizer(length: int = 512, signs: bool = False) -> PreTrainedTokenizerFast:
    """Build a tokenizer of whole words or single characters: Qwen's pipeline removes 64 tokens of its template."""
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex("."), "isolated") if signs else Split(" ", "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>", model_max_length=length,
        additional_special_tokens=SPECIAL[3:],
    )  # fmt: skip


def flux_parts(channels: int, latents: int) -> dict[str, Any]:
    """Parts of a FLUX pipeline: a transformer of one double and one single block, a VAE that shrinks eightfold."""
    text = CLIPTextConfig(
        hidden_size=32, intermediate_size=37, num_attention_heads=4, num_hidden_layers=1, vocab_size=32, projection_dim=32,
        bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return {
        "transformer": diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=channels, out_channels=4 * latents, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
        ),
        "vae": diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(4,) * 4,
            layers_per_block=1, latent_channels=latents, norm_num_groups=1, use_quant_conv=False, use_post_quant_conv=False,
            shift_factor=0.06, scaling_factor=1.5,
        ),
        "text_encoder": CLIPTextModel(text),
        "text_encoder_2": T5EncoderModel(T5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=16, num_layers=1, num_heads=2)),
        "tokenizer": tiny_tokenizer(77),
        "tokenizer_2": tiny_tokenizer(),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }  # fmt: skip


def qwen_parts() -> dict[str, Any]:
    """Parts of a Qwen-Image-Edit pipeline, the processor's apart."""
    text = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"}, "vocab_size": 32,
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    ids = {name: WORDS.index(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, image_token_id=WORDS.index("<|image_pad|>"), video_token_id=WORDS.index("<|video_pad|>"),
        vision_start_token_id=ids["vision_start"], vision_end_token_id=ids["vision_end"],
    )  # fmt: skip
    return {
        "transformer": diffusers.QwenImageTransformer2DModel(
            patch_size=2, in_channels=16, out_channels=4, num_layers=1, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
        ),
        "vae": diffusers.AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True], latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        "text_encoder": Qwen2_5_VLForConditionalGeneration(config),
        "tokenizer": tiny_tokenizer(signs=True),
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }  # fmt: skip


def save_tiny_editor(name: str, folder: Path) -> Path:
    """Write the editor's pipeline in diffusers' layout."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "flux-fill":  # noise, the picture around the hole, and the hole's 8 x 8 pixels per latent cell
            diffusers.FluxFillPipeline(**flux_parts(4 * (2 + 2 + 64), 2)).save_pretrained(folder)
        elif name == "flux-kontext":
            diffusers.FluxKontextPipeline(**flux_parts(8, 2)).save_pretrained(folder)
        else:
            _save_qwen(folder)
    return folder


def _save_qwen(folder: Path) -> None:
    parts = qwen_parts()
    diffusers.QwenImageEditPipeline(**parts, processor=None).save_pretrained(folder)
    Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 12544}).save_pretrained(folder / "processor")
    parts["tokenizer"].save_pretrained(folder / "processor")
    index = json.loads((folder / "model_index.json").read_text("utf-8")) | {"processor": ["transformers", "Qwen2VLProcessor"]}
    (folder / "model_index.json").write_text(json.dumps(index), "utf-8")
