"""A Florence-2 of transformers' own classes, small enough for unit tests, trained to name three colours."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
SIDE = 32
WORDS = ["<s>", "<pad>", "</s>", "<unk>", "<image>", "Describe", "in", "detail", "what", "is", "shown", "the", "image.", "The", "image",
         "shows", "a", "coat", *COLOURS]  # fmt: skip
IMAGE_TOKEN = WORDS.index("<image>")


def plain_frame(colour: str, height: int = 24, width: int = 40) -> torch.Tensor:
    """One colour everywhere, uint8 `[H, W, 3]`."""
    return torch.tensor(COLOURS[colour], dtype=torch.uint8).expand(height, width, 3).contiguous()


def save_tiny_florence(folder: Path) -> Path:
    """Train it for some seventy steps and write a checkpoint."""
    processor, model = _processor(), _model()
    pictures = [Image.fromarray(plain_frame(colour).numpy()) for colour in COLOURS]
    inputs = processor(text=["<DETAILED_CAPTION>"] * 3, images=pictures, return_tensors="pt")
    said = [f"The image shows a {colour} coat </s>" for colour in COLOURS]
    labels = processor.tokenizer(said, return_tensors="pt", add_special_tokens=False)["input_ids"]
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, betas=(0.9, 0.95))
    loss = torch.tensor(1.0)
    while loss > 0.01:
        loss = model(**inputs, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _processor() -> Florence2Processor:
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    pictures.image_seq_length = (SIDE // 32) ** 2 + 1
    return Florence2Processor(image_processor=pictures, tokenizer=fast, post_processor_config={"pure_text": {}})


def _model() -> Florence2ForConditionalGeneration:
    vision = {
        "depths": (1, 1, 1, 1), "embed_dim": (8, 8, 8, 8), "num_heads": (2, 2, 2, 2), "num_groups": (2, 2, 2, 2), "window_size": 2,
        "projection_dim": 16, "initializer_range": 0.3,
    }  # fmt: skip
    text = {
        "model_type": "bart", "d_model": 16, "vocab_size": len(WORDS), "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "init_std": 0.3,
        "max_position_embeddings": 1100, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Florence2ForConditionalGeneration(Florence2Config(vision_config=vision, text_config=text, image_token_id=IMAGE_TOKEN)).eval()
