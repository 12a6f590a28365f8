"""HunyuanVideo's text and picture encoders: LLaVA and CLIP for the first version, Qwen2.5-VL, ByT5 and SigLIP for 1.5.

Embeddings are cut to their real length: padding is masked in every attention, so the result is the same (diffusers
`pipeline_hunyuan_video_image2video.py`, `pipeline_hunyuan_video1_5_image2video.py`) and attention has less to do.
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
from lora_edit.models.runtime.encoding_cache import EncodingCache
from lora_edit.models.runtime.lazy_module import LazyModule
from lora_edit.video.ranges import to_frames

PROMPT_ASPECTS = (
    "1. The main content and theme of the video.",
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.",
    "4. background environment, light, style and atmosphere.",
    "5. camera angles, movements, and transitions used in the video",
)
"""What both versions ask of their language model before the prompt; a fact of the checkpoints, to be kept to the letter."""

LLAVA_PREFIX = (
    "<|start_header_id|>system<|end_header_id|>\n\n<image>\nDescribe the video by detailing the following aspects according to the "
    "reference image: "
)
LLAVA_SEPARATOR = ":<|eot_id|>\n\n<|start_header_id|>user<|end_header_id|>\n\n"
LLAVA_SUFFIX = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
LLAVA_CROP_START, IMAGE_POSITION, NUM_IMAGE_TOKENS = 103, 5, 576
"""Tokens before the prompt; the picture's place among them; the tokens that it becomes."""
ASSISTANT_HEADER_TOKENS = 4
"""`<|eot_id|><|start_header_id|>assistant<|end_header_id|>`, which are cut out behind the prompt."""
CLIP_MAX_LENGTH = 77
QWEN_PREFIX = "You are a helpful assistant. Describe the video by detailing the following aspects:"
QWEN_CROP_START = 108
GLYPH_MAX_LENGTH = 256
HIDDEN_STATE_INDEX = -3
"""Index of the hidden state that both versions take: the last two layers are skipped."""
QUOTE_PATTERN = re.compile(r'"(.*?)"|“(.*?)”')

NEGATIVE_IMAGE_EMBED_INTERLEAVE = 2
"""Of a picture's tokens each second one is kept; diffusers keeps to that for the black picture of a negative prompt in all models."""


def pack_text(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Two text encoders' rows `[1, L, D]` and `[1, M, E]` -> `[1, L + M, max(D, E) + 1]`: the last channel is 1 in the second's rows.

    The loops know a prompt as one tensor; `unpack_text` gives the two back as they were.
    """
    wide = max(first.shape[2], second.shape[2])
    rows = F.pad(first, (0, wide + 1 - first.shape[2]))
    others = torch.cat([F.pad(second, (0, wide - second.shape[2])), torch.ones_like(second[..., :1])], 2)
    return torch.cat([rows, others.to(rows)], 1)


def unpack_text(packed: torch.Tensor, first_width: int, second_width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows of both text encoders, at their own widths."""
    of_second = packed[0, :, -1] > 0.5
    return packed[:, ~of_second, :first_width], packed[:, of_second, :second_width]


def to_pil_image(image: torch.Tensor) -> Image.Image:
    """`[3, H, W]` in [-1, 1] as the encoders' own processors take it."""
    return Image.fromarray(to_frames(image[:, None].float().cpu())[0].numpy())


def build_llava_prompt(prompt: str) -> str:
    """The prompt as LLaVA is given it (diffusers `pipeline_hunyuan_video_image2video.py`)."""
    return f"{LLAVA_PREFIX}{''.join(PROMPT_ASPECTS)}{LLAVA_SEPARATOR}{prompt}{LLAVA_SUFFIX}"


def build_qwen_system_message() -> str:
    """What Qwen is told before the prompt (diffusers `pipeline_hunyuan_video1_5_image2video.py`)."""
    return QWEN_PREFIX + "".join(" " * 9 + aspect for aspect in PROMPT_ASPECTS) + "."


class LlavaPromptEncoder:
    """Prompt and picture -> what HunyuanVideo-I2V reads, packed: LLaVA's tokens `[1, L, 4096]` and CLIP's pooled text `[1, 1, 768]`.

    The picture stands inside the prompt; its tokens come first, every `every`th of them. Without a picture (a negative prompt) a black one
    is shown. Each pair is encoded once; the encoders are on the device only for that.
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
        self.encoder, self.tokenizer, self.clip_encoder, self.clip_tokenizer, self.processor = (
            encoder,
            tokenizer,
            clip_encoder,
            clip_tokenizer,
            processor,
        )
        self.image_embed_interleave, self.max_length, self.device_manager = image_embed_interleave, max_length, device_manager
        self.cache = EncodingCache(device_manager.device, encoder, clip_encoder)
        self._pooled: dict[str, torch.Tensor] = {}

    def __call__(self, prompt: str, image: torch.Tensor | None) -> torch.Tensor:
        """The packed embeddings, on the bench's device. Raises `ModelError` for a tokenizer of another model."""

        def read() -> torch.Tensor:
            pooled = self._encode_pooled(prompt)
            return pack_text(self._encode(prompt, image), pooled)

        return self.cache(read, prompt, image, f"{self.image_embed_interleave} {self.max_length}")

    @torch.no_grad()
    def _encode(self, prompt: str, image: torch.Tensor | None) -> torch.Tensor:
        ids, answer = self._tokenize(prompt)
        shown = Image.new("RGB", (64, 64)) if image is None else to_pil_image(image)
        pixels = self.processor(images=shown, return_tensors="pt").pixel_values
        encoder, device = self.device_manager.load(self.encoder), self.device_manager.device
        hidden: torch.Tensor = encoder(
            input_ids=ids[None].to(device),
            attention_mask=torch.ones_like(ids)[None].to(device),
            pixel_values=pixels.to(device, encoder.dtype),
            output_hidden_states=True,
            logits_to_keep=1,
        ).hidden_states[HIDDEN_STATE_INDEX]
        moved = NUM_IMAGE_TOKENS - 1
        seen = hidden[
            :,
            IMAGE_POSITION : IMAGE_POSITION + NUM_IMAGE_TOKENS : NEGATIVE_IMAGE_EMBED_INTERLEAVE
            if image is None
            else self.image_embed_interleave,
        ]
        return torch.cat(
            [seen, hidden[:, LLAVA_CROP_START + moved : answer - ASSISTANT_HEADER_TOKENS + moved], hidden[:, answer + moved :]], 1
        )

    def _tokenize(self, prompt: str) -> tuple[torch.Tensor, int]:
        """Token numbers with room for the picture, and where the answer would begin, counted without that room."""
        text = build_llava_prompt(prompt)
        tokens = self.tokenizer([text], max_length=self.max_length + LLAVA_CROP_START, truncation=True, return_tensors="pt").input_ids[0]
        number: int = self.encoder.config.image_token_index
        if (tokens == number).nonzero().flatten().tolist() != [IMAGE_POSITION]:
            raise ModelError(
                f"the tokenizer does not put the picture at place {IMAGE_POSITION} of the prompt; give HunyuanVideo-I2V's tokenizer folder"
            )
        ends = (tokens == self.tokenizer.convert_tokens_to_ids("<|end_header_id|>")).nonzero().flatten()  # type: ignore[attr-defined]
        # A prompt that is too long ends before the answer's header; then its last tokens are cut instead, as in diffusers.
        answer = int(ends[2]) + 1 if len(ends) > 2 else len(tokens)
        room = torch.full((NUM_IMAGE_TOKENS,), number)
        return torch.cat([tokens[:IMAGE_POSITION], room, tokens[IMAGE_POSITION + 1 :]]), answer

    @torch.no_grad()
    def _encode_pooled(self, prompt: str) -> torch.Tensor:
        if prompt not in self._pooled:
            tokens = self.clip_tokenizer([prompt], padding="max_length", max_length=CLIP_MAX_LENGTH, truncation=True, return_tensors="pt")
            clip = self.device_manager.load(self.clip_encoder)
            self._pooled[prompt] = clip(tokens.input_ids.to(self.device_manager.device)).pooler_output[:, None]
        return self._pooled[prompt]


class QwenGlyphPromptEncoder:
    """Prompt -> what HunyuanVideo-1.5 reads, packed: Qwen's tokens `[1, L, 3584]`, and ByT5's of quoted text `[1, M, 1472]`."""

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
        self.cache = EncodingCache(device_manager.device, encoder, glyph_encoder)

    def __call__(self, prompt: str, image: torch.Tensor | None) -> torch.Tensor:
        """The packed embeddings, on the bench's device; the picture is read elsewhere (`SiglipPicture`)."""

        def read() -> torch.Tensor:
            glyphs = self._encode_glyphs(prompt)
            return pack_text(self._encode_prompt(prompt), glyphs)

        return self.cache(read, prompt, str(self.max_length))

    @torch.no_grad()
    def _encode_prompt(self, prompt: str) -> torch.Tensor:
        talk = [{"role": "system", "content": build_qwen_system_message()}, {"role": "user", "content": prompt or " "}]
        tokens = self.tokenizer.apply_chat_template(
            [talk],
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
    """What a prompt quotes, each text once, as ByT5 is given it; empty when it quotes nothing."""
    quoted = dict.fromkeys(straight or curly for straight, curly in QUOTE_PATTERN.findall(prompt))
    return "".join(f'Text "{text}". ' for text in quoted)


class SiglipImageEncoder:
    """Picture `[3, H, W]` in [-1, 1] -> SigLIP's tokens `[1, 729, 1152]`. Each picture is encoded once."""

    def __init__(self, encoder: LazyModule, processor: Callable[..., Any], device_manager: DeviceManager) -> None:
        self.encoder, self.processor, self.device_manager = encoder, processor, device_manager
        self.cache = EncodingCache(device_manager.device, encoder)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """The last layer's tokens, on the bench's device."""
        return self.cache(lambda: self._encode(image), image)

    @torch.no_grad()
    def _encode(self, image: torch.Tensor) -> torch.Tensor:
        pixels = self.processor(images=to_pil_image(image), do_resize=True, do_convert_rgb=True, return_tensors="pt").pixel_values
        encoder = self.device_manager.load(self.encoder)
        tokens: torch.Tensor = encoder(pixels.to(self.device_manager.device, encoder.dtype)).last_hidden_state
        return tokens
