"""HunyuanVideo's autoencoders, text and image encoders.

The first version uses LLaVA and CLIP; version 1.5 uses Qwen2.5-VL, ByT5 and SigLIP. Embeddings are cut to their real length: padding is
masked in every attention, so the result is the same (diffusers `pipeline_hunyuan_video_image2video.py`,
`pipeline_hunyuan_video1_5_image2video.py`) at lower cost.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

from lora_edit.errors import ModelError
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.models.runtime.lazy_module import LazyModule
from lora_edit.video.ranges import to_frames

TILE_SIZE, SMALL_TILE_SIZE = 256, 128
"""Pixels per side of a tile: upstream's, and one for devices with less memory. Tiles overlap by a quarter."""

PROMPT_ASPECTS = (
    "1. The main content and theme of the video.",
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.",
    "4. background environment, light, style and atmosphere.",
    "5. camera angles, movements, and transitions used in the video",
)
"""Instructions before the prompt in both versions' language models. The checkpoints depend on the exact text."""

LLAVA_PREFIX = (
    "<|start_header_id|>system<|end_header_id|>\n\n<image>\nDescribe the video by detailing the following aspects according to the "
    "reference image: "
)
LLAVA_SEPARATOR = ":<|eot_id|>\n\n<|start_header_id|>user<|end_header_id|>\n\n"
LLAVA_SUFFIX = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
LLAVA_CROP_START, IMAGE_POSITION, NUM_IMAGE_TOKENS = 103, 5, 576
"""Tokens before the prompt; the index of the image among them; the number of tokens of an image."""
ASSISTANT_HEADER_TOKENS = 4
"""Tokens of `<|eot_id|><|start_header_id|>assistant<|end_header_id|>`, which are removed behind the prompt."""
CLIP_MAX_LENGTH = 77
QWEN_PREFIX = "You are a helpful assistant. Describe the video by detailing the following aspects:"
QWEN_CROP_START = 108
GLYPH_MAX_LENGTH = 256
HIDDEN_STATE_INDEX = -3
"""Index of the hidden state that both versions use: the last two layers are skipped."""
QUOTE_PATTERN = re.compile(r'"(.*?)"|“(.*?)”')

NEGATIVE_IMAGE_EMBED_INTERLEAVE = 2
"""Every second token of an image is kept; diffusers uses this for the black image of a negative prompt in all models."""


class HunyuanAutoencoder:
    """diffusers' autoencoders of HunyuanVideo and HunyuanVideo-1.5: the posterior's mode, scaled.

    Large frames are processed in overlapping tiles, as upstream. The first version also splits clips of more than 16 frames in time, which
    changes latents, in training and inference alike, and when decoding.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.set_tiling(False)
        self.z_dim: int = vae.config.latent_channels
        self.scale: float = vae.config.scaling_factor

    def set_tiling(self, tiled: bool) -> None:
        """Process frames in tiles of a quarter of the usual area, or in the usual ones. Large frames are never processed whole."""
        size = SMALL_TILE_SIZE if tiled else TILE_SIZE
        if hasattr(self.vae, "tile_overlap_factor"):
            cells = size // self.vae.spatial_compression_ratio
            self.vae.enable_tiling(size, size, tile_latent_min_height=cells, tile_latent_min_width=cells)
        else:
            stride = 3 * size // 4
            self.vae.enable_tiling(size, size, tile_sample_stride_height=stride, tile_sample_stride_width=stride)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode pixels `[B, 3, T, H, W]` to scaled latents."""
        mode: torch.Tensor = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return mode.float() * self.scale

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode scaled latents to pixels `[B, 3, T, H, W]`, clamped to [-1, 1]: all frames, where upstream drops the first latent's."""
        pixels: torch.Tensor = self.vae.decode((latents.float() / self.scale).to(self.vae.dtype), return_dict=False)[0]
        return pixels.float().clamp(-1, 1)


def pack_text(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Pack two text encoders' rows `[1, L, D]` and `[1, M, E]` to `[1, L + M, max(D, E) + 1]`; the last channel is 1 in the second's rows.

    Training and sampling handle a prompt as one tensor; `unpack_text` separates the two again.
    """
    width = max(first.shape[2], second.shape[2])
    first_rows = F.pad(first, (0, width + 1 - first.shape[2]))
    second_rows = torch.cat([F.pad(second, (0, width - second.shape[2])), torch.ones_like(second[..., :1])], 2)
    return torch.cat([first_rows, second_rows.to(first_rows)], 1)


def unpack_text(packed: torch.Tensor, first_width: int, second_width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Separate the rows of both text encoders, at their own widths."""
    is_second = packed[0, :, -1] > 0.5
    return packed[:, ~is_second, :first_width], packed[:, is_second, :second_width]


def to_pil_image(image: torch.Tensor) -> Image.Image:
    """Convert `[3, H, W]` in [-1, 1] to the input of the encoders' own processors."""
    return Image.fromarray(to_frames(image[:, None].float().cpu())[0].numpy())


def build_llava_prompt(prompt: str) -> str:
    """Build LLaVA's input text for a prompt (diffusers `pipeline_hunyuan_video_image2video.py`)."""
    return f"{LLAVA_PREFIX}{''.join(PROMPT_ASPECTS)}{LLAVA_SEPARATOR}{prompt}{LLAVA_SUFFIX}"


def build_qwen_system_message() -> str:
    """Build Qwen's system message before the prompt (diffusers `pipeline_hunyuan_video1_5_image2video.py`)."""
    return QWEN_PREFIX + "".join(" " * 9 + aspect for aspect in PROMPT_ASPECTS) + "."


class LlavaPromptEncoder:
    """Prompt and image -> HunyuanVideo-I2V's packed text: LLaVA's tokens `[1, L, 4096]` and CLIP's pooled text `[1, 1, 768]`.

    The image is part of the prompt; its tokens come first, one in `image_embed_interleave` of them. Without an image (a negative prompt) a
    black one is used. Each pair is encoded once, and the encoders are on the device only for that.
    """

    def __init__(
        self,
        encoder: LazyModule,
        tokenizer: Callable[..., Any],
        clip_encoder: LazyModule,
        clip_tokenizer: Callable[..., Any],
        processor: Callable[..., Any],
        image_embed_interleave: int,
        max_length: int,
        device_manager: DeviceManager,
    ) -> None:
        self.encoder, self.tokenizer, self.processor = encoder, tokenizer, processor
        self.clip_encoder, self.clip_tokenizer = clip_encoder, clip_tokenizer
        self.image_embed_interleave, self.max_length, self.device_manager = image_embed_interleave, max_length, device_manager
        self.cache = device_manager.create_encoding_cache(encoder, clip_encoder)
        self._pooled: dict[str, torch.Tensor] = {}

    def __call__(self, prompt: str, image: torch.Tensor | None) -> torch.Tensor:
        """Return the packed embeddings on the device manager's device. Raises `ModelError` for a tokenizer of another model."""

        def encode() -> torch.Tensor:
            pooled = self._encode_pooled(prompt)
            return pack_text(self._encode(prompt, image), pooled)

        return self.cache(encode, prompt, image, f"{self.image_embed_interleave} {self.max_length}")

    @torch.no_grad()
    def _encode(self, prompt: str, image: torch.Tensor | None) -> torch.Tensor:
        ids, answer_start = self._tokenize(prompt)
        picture = Image.new("RGB", (64, 64)) if image is None else to_pil_image(image)
        pixels = self.processor(images=picture, return_tensors="pt").pixel_values
        encoder, device = self.device_manager.load(self.encoder), self.device_manager.device
        hidden: torch.Tensor = encoder(
            input_ids=ids[None].to(device),
            attention_mask=torch.ones_like(ids)[None].to(device),
            pixel_values=pixels.to(device, encoder.dtype),
            output_hidden_states=True,
            logits_to_keep=1,
        ).hidden_states[HIDDEN_STATE_INDEX]
        offset = NUM_IMAGE_TOKENS - 1
        interleave = NEGATIVE_IMAGE_EMBED_INTERLEAVE if image is None else self.image_embed_interleave
        image_rows = hidden[:, IMAGE_POSITION : IMAGE_POSITION + NUM_IMAGE_TOKENS : interleave]
        prompt_rows = hidden[:, LLAVA_CROP_START + offset : answer_start - ASSISTANT_HEADER_TOKENS + offset]
        return torch.cat([image_rows, prompt_rows, hidden[:, answer_start + offset :]], 1)

    def _tokenize(self, prompt: str) -> tuple[torch.Tensor, int]:
        """Return token ids with those of the image, and the index where the answer would begin, counted with one token for the image."""
        text = build_llava_prompt(prompt)
        tokens = self.tokenizer([text], max_length=self.max_length + LLAVA_CROP_START, truncation=True, return_tensors="pt").input_ids[0]
        image_token: int = self.encoder.config.image_token_index
        if (tokens == image_token).nonzero().flatten().tolist() != [IMAGE_POSITION]:
            raise ModelError(
                f"the tokenizer does not put the picture at place {IMAGE_POSITION} of the prompt; give HunyuanVideo-I2V's tokenizer folder"
            )
        ends = (tokens == self.tokenizer.convert_tokens_to_ids("<|end_header_id|>")).nonzero().flatten()  # type: ignore[attr-defined]
        # A prompt that is too long ends before the answer's header; its last tokens are removed instead, as in diffusers.
        answer_start = int(ends[2]) + 1 if len(ends) > 2 else len(tokens)
        image_tokens = torch.full((NUM_IMAGE_TOKENS,), image_token)
        return torch.cat([tokens[:IMAGE_POSITION], image_tokens, tokens[IMAGE_POSITION + 1 :]]), answer_start

    @torch.no_grad()
    def _encode_pooled(self, prompt: str) -> torch.Tensor:
        if prompt not in self._pooled:
            tokens = self.clip_tokenizer([prompt], padding="max_length", max_length=CLIP_MAX_LENGTH, truncation=True, return_tensors="pt")
            clip = self.device_manager.load(self.clip_encoder)
            self._pooled[prompt] = clip(tokens.input_ids.to(self.device_manager.device)).pooler_output[:, None]
        return self._pooled[prompt]


class QwenGlyphPromptEncoder:
    """Prompt -> HunyuanVideo-1.5's packed text: Qwen's tokens `[1, L, 3584]`, and ByT5's of quoted text `[1, M, 1472]`."""

    def __init__(
        self,
        encoder: LazyModule,
        tokenizer: Any,
        glyph_encoder: LazyModule,
        glyph_tokenizer: Callable[..., Any],
        max_length: int,
        device_manager: DeviceManager,
    ) -> None:
        self.encoder, self.tokenizer, self.glyph_encoder, self.glyph_tokenizer = encoder, tokenizer, glyph_encoder, glyph_tokenizer
        self.max_length, self.device_manager = max_length, device_manager
        self.cache = device_manager.create_encoding_cache(encoder, glyph_encoder)

    def __call__(self, prompt: str, image: torch.Tensor | None) -> torch.Tensor:
        """Return the packed embeddings on the device manager's device; `SiglipImageEncoder` encodes the image."""

        def encode() -> torch.Tensor:
            glyphs = self._encode_glyphs(prompt)
            return pack_text(self._encode_prompt(prompt), glyphs)

        return self.cache(encode, prompt, str(self.max_length))

    @torch.no_grad()
    def _encode_prompt(self, prompt: str) -> torch.Tensor:
        messages = [{"role": "system", "content": build_qwen_system_message()}, {"role": "user", "content": prompt or " "}]
        tokens = self.tokenizer.apply_chat_template(
            [messages],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            max_length=self.max_length + QWEN_CROP_START,
            truncation=True,
            return_tensors="pt",
        )
        encoder = self.device_manager.load(self.encoder)
        ids, mask = (tokens[key].to(self.device_manager.device) for key in ("input_ids", "attention_mask"))
        hidden: torch.Tensor = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[HIDDEN_STATE_INDEX]
        return hidden[:, QWEN_CROP_START:]

    @torch.no_grad()
    def _encode_glyphs(self, prompt: str) -> torch.Tensor:
        text = extract_glyph_text(prompt)
        if not text:
            return torch.zeros(1, 0, self.glyph_encoder.config.d_model, device=self.device_manager.device)
        tokens = self.glyph_tokenizer(text, max_length=GLYPH_MAX_LENGTH, truncation=True, add_special_tokens=True, return_tensors="pt")
        encoder = self.device_manager.load(self.glyph_encoder)
        ids, mask = tokens.input_ids.to(self.device_manager.device), tokens.attention_mask.to(self.device_manager.device)
        hidden: torch.Tensor = encoder(input_ids=ids, attention_mask=mask.float())[0]
        return hidden


def extract_glyph_text(prompt: str) -> str:
    """Build ByT5's input from the quotations of a prompt, each text once; empty without quotations."""
    quoted = dict.fromkeys(straight or curly for straight, curly in QUOTE_PATTERN.findall(prompt))
    return "".join(f'Text "{text}". ' for text in quoted)


class SiglipImageEncoder:
    """Image `[3, H, W]` in [-1, 1] -> SigLIP's tokens `[1, 729, 1152]`. Each image is encoded once."""

    def __init__(self, encoder: LazyModule, processor: Callable[..., Any], device_manager: DeviceManager) -> None:
        self.encoder, self.processor, self.device_manager = encoder, processor, device_manager
        self.cache = device_manager.create_encoding_cache(encoder)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Return the last layer's tokens on the device manager's device."""
        return self.cache(lambda: self._encode(image), image)

    @torch.no_grad()
    def _encode(self, image: torch.Tensor) -> torch.Tensor:
        pixels = self.processor(images=to_pil_image(image), do_resize=True, do_convert_rgb=True, return_tensors="pt").pixel_values
        encoder = self.device_manager.load(self.encoder)
        tokens: torch.Tensor = encoder(pixels.to(self.device_manager.device, encoder.dtype)).last_hidden_state
        return tokens
