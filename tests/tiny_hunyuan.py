"""Checkpoints of the catalogue's HunyuanVideo models with their real classes and random weights, small enough for tests, as folders."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from lora_edit.config import EditSettings, resolve_settings
from lora_edit.models.families.hunyuan.encoders import NUM_IMAGE_TOKENS, build_llava_prompt, build_qwen_system_message
from lora_edit.models.families.hunyuan.loading import HunyuanComponents
from lora_edit.models.families.hunyuan.record import HUNYUAN_LOADER
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.record import ModelRecord
from lora_edit.types import Video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video

HUNYUANS = {record.name: record for record in KNOWN_MODELS if record.loader == HUNYUAN_LOADER}
WIDTH, POOLED, GLYPHS = 16, 8, 12
PATCH = 2
FRAMES, HEIGHT, LONG = 7, 64, 96
PICTURE = PATCH * int(NUM_IMAGE_TOKENS**0.5)
"""Side of LLaVA's image: as many patches as in the real model."""
PIECES = r"<\|?\w+\|?>|\n\n|\n|ships|ing|ful| ?(?:relation|follow|detail|help)| ?\w+| ?[^\w\s]| +(?= )|\s"
"""Splits the templates into 102 and 108 tokens, as the real tokenizers do (with the beginning's token, 103)."""
LLAVA_PIECES = PIECES.replace("ships|ing|ful| ?(?:relation|follow|detail|help)|", "aviors| ?beh|")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<image>", "<|im_start|>", "<|im_end|>"]
WORDS = [
    "\n",
    "\n\n",
    "a",
    " red",
    " green",
    " coat",
    "red",
    "green",
    "assistant",
    "user",
    "p3rs0n",
    " a",
    " blue",
    " says",
    ' "',
    "no",
    '"',
    "HI",
]


def tiny_config(record: ModelRecord) -> dict[str, Any]:
    """Return the record's configuration with small widths and depths; values that distinguish models stay."""
    config = record.read_transformer_config()
    small = {
        "num_attention_heads": 2, "attention_head_dim": 12, "num_layers": 2, "num_refiner_layers": 1, "mlp_ratio": 2.0,
        "rope_axes_dim": [4, 4, 4], "text_embed_dim": WIDTH, "pooled_projection_dim": POOLED, "num_single_layers": 1,
        "text_embed_2_dim": GLYPHS, "image_embed_dim": WIDTH,
    }  # fmt: skip
    return config | {key: value for key, value in small.items() if key in config}


def tiny_transformer(record: ModelRecord) -> Any:
    """Build the family's own class; parameters that start at zero are filled, so that they have an effect."""
    config = tiny_config(record)
    transformer = getattr(diffusers, config.pop("_class_name"))(**config)
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    return transformer.eval().requires_grad_(False)


def tiny_tokenizer(text: str, pieces: str, begin: bool, end: bool) -> PreTrainedTokenizerFast:
    """Build a tokenizer of the pieces of `text` and a few words."""
    found = dict.fromkeys([*SPECIAL, "<pad>", "<unk>", "<begin>", "<end>", *re.findall(pieces, text), *WORDS])
    tokenizer = Tokenizer(WordLevel({piece: number for number, piece in enumerate(found)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Split(Regex(pieces), "isolated")
    frame = f"{'<begin> ' if begin else ''}$A{' <end>' if end else ''}"
    ends = [(token, list(found).index(token)) for token in ("<begin>", "<end>")]
    tokenizer.post_processor = TemplateProcessing(single=frame, special_tokens=ends)
    out = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", additional_special_tokens=SPECIAL, padding_side="right"
    )
    out.chat_template = CHAT
    return out


def _llava(tokenizer: PreTrainedTokenizerFast) -> Any:
    vision = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=PICTURE, patch_size=PATCH
    )
    text = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    number = tokenizer.convert_tokens_to_ids("<image>")
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=number, pad_token_id=tokenizer.pad_token_id)
    return transformers.LlavaForConditionalGeneration(config)


def _first_version(record: ModelRecord) -> HunyuanComponents:
    words, clip_words = tiny_tokenizer(build_llava_prompt(""), LLAVA_PIECES, True, False), tiny_tokenizer("", LLAVA_PIECES, True, True)
    clip = transformers.CLIPTextConfig(
        vocab_size=len(clip_words), hidden_size=POOLED, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        eos_token_id=clip_words.convert_tokens_to_ids("<end>"),
    )  # fmt: skip
    return HunyuanComponents(
        transformer=tiny_transformer(record),
        vae=diffusers.AutoencoderKLHunyuanVideo(block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2).eval(),
        text_encoder=_llava(words).eval(),
        tokenizer=words,
        text_encoder_2=transformers.CLIPTextModel(clip).eval(),
        tokenizer_2=clip_words,
        processor=transformers.CLIPImageProcessorPil(size={"shortest_edge": PICTURE}, crop_size=PICTURE),
    )


def _version_15(record: ModelRecord) -> HunyuanComponents:
    words = tiny_tokenizer(f"system{build_qwen_system_message()}", PIECES, False, False)
    qwen = transformers.Qwen2_5_VLTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    glyphs = transformers.T5Config(vocab_size=384, d_model=GLYPHS, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    siglip = transformers.SiglipVisionConfig(
        hidden_size=WIDTH, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8
    )
    return HunyuanComponents(
        transformer=tiny_transformer(record),
        vae=diffusers.AutoencoderKLHunyuanVideo15(block_out_channels=(8, 16, 32, 64, 64), layers_per_block=1).eval(),
        text_encoder=transformers.Qwen2_5_VLTextModel(qwen).eval(),
        tokenizer=words,
        text_encoder_2=transformers.T5EncoderModel(glyphs).eval(),
        tokenizer_2=transformers.ByT5Tokenizer(),
        processor=transformers.SiglipImageProcessorPil(size={"height": 32, "width": 32}),
        image_encoder=transformers.SiglipVisionModel(siglip).eval(),
    )


def tiny_components(record: ModelRecord, seed: int = 0) -> HunyuanComponents:
    """Build every part of one model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _version_15(record) if record.image_encoder else _first_version(record)


def save_tiny(record: ModelRecord, folder: Path) -> ModelRecord:
    """Write the parts in diffusers' layout; returns a record that the folder matches, for clips of at most nine small frames."""
    parts: Any = tiny_components(record)
    for name in ("transformer", "vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "image_encoder"):
        if getattr(parts, name) is not None:
            getattr(parts, name).save_pretrained(folder / name)
    parts.processor.save_pretrained(folder / ("feature_extractor" if record.image_encoder else "image_processor"))
    wanted = folder / "wanted.json"
    wanted.write_text(json.dumps(tiny_config(record)), "utf-8")
    return replace(record, config=str(wanted), geometry=replace(record.geometry, max_frames=9, native_area=64 * 96))


QUICK = (
    "compositing.crop=false",
    "training.motion_steps=3",
    "training.appearance_steps=1",
    "training.batch_size=1",
    "training.learning_rate=1e-2",
    "lora.rank=2",
    "generation.steps=2",
    "video.codec=ffv1",
)


def edit_settings(folder: Path, model: str, *changes: str, frames: int = FRAMES, anchor: bool = False) -> EditSettings:
    """Build settings with frames of noise, a box, a red first frame, and a reference."""
    generator = torch.Generator().manual_seed(1)
    clip = torch.randint(0, 256, (frames, HEIGHT // 8, LONG // 8, 3), generator=generator, dtype=torch.uint8)
    clip = clip.repeat_interleave(8, 1).repeat_interleave(8, 2)
    write_video(folder / "source.mkv", Video(clip, Fraction(8), tuple(i / 8 for i in range(frames))), "ffv1", overwrite=True)
    later = min(3, frames - 1)
    for number in {0, later}:
        picture = clip[number].clone()
        picture[24:36, 40:56] = torch.tensor([200, 30, 30], dtype=torch.uint8)
        save_image(folder / f"{number}.png", picture)
    given: dict[str, Any] = {"source": str(folder / "source.mkv"), "first_frame": str(folder / "0.png")}
    given["boxes"] = [{"x": 40, "y": 24, "width": 16, "height": 12}]
    if later:
        given["anchors" if anchor else "references"] = [{"frame": later, "image": str(folder / f"{later}.png")}]
    return resolve_settings({"input": given, "model": model, "prompt": "a red coat"}, (*QUICK, *changes))
