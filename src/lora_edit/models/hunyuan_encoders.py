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
from lora_edit.models.encodings import Known
from lora_edit.models.later import Later
from lora_edit.models.workbench import Workbench
from lora_edit.video.ranges import to_frames

ASPECTS = (
    "1. The main content and theme of the video.",
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects.",
    "4. background environment, light, style and atmosphere.",
    "5. camera angles, movements, and transitions used in the video",
)
"""What both versions ask of their language model before the prompt; a fact of the checkpoints, to be kept to the letter."""

LLAVA_BEFORE = (
    "<|start_header_id|>system<|end_header_id|>\n\n<image>\nDescribe the video by detailing the following aspects according to the "
    "reference image: "
)
LLAVA_BETWEEN = ":<|eot_id|>\n\n<|start_header_id|>user<|end_header_id|>\n\n"
LLAVA_BEHIND = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
LLAVA_CROP, PICTURE_AT, PICTURE_TOKENS = 103, 5, 576
"""Tokens before the prompt; the picture's place among them; the tokens that it becomes."""
ANSWER_TOKENS = 4
"""`<|eot_id|><|start_header_id|>assistant<|end_header_id|>`, which are cut out behind the prompt."""
CLIP_LENGTH = 77
QWEN_BEFORE = "You are a helpful assistant. Describe the video by detailing the following aspects:"
QWEN_CROP = 108
GLYPH_LENGTH = 256
BEFORE_LAST = -3
"""Index of the hidden state that both versions take: the last two layers are skipped."""
QUOTED = re.compile(r'"(.*?)"|“(.*?)”')

PROMPT_ALONE_EVERY = 2
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


def picture(image: torch.Tensor) -> Image.Image:
    """`[3, H, W]` in [-1, 1] as the encoders' own processors take it."""
    return Image.fromarray(to_frames(image[:, None].float().cpu())[0].numpy())


def llava_text(prompt: str) -> str:
    """The prompt as LLaVA is given it (diffusers `pipeline_hunyuan_video_image2video.py`)."""
    return f"{LLAVA_BEFORE}{''.join(ASPECTS)}{LLAVA_BETWEEN}{prompt}{LLAVA_BEHIND}"


def qwen_message() -> str:
    """What Qwen is told before the prompt (diffusers `pipeline_hunyuan_video1_5_image2video.py`)."""
    return QWEN_BEFORE + "".join(" " * 9 + aspect for aspect in ASPECTS) + "."


class LlavaPrompt:
    """Prompt and picture -> what HunyuanVideo-I2V reads, packed: LLaVA's tokens `[1, L, 4096]` and CLIP's pooled text `[1, 1, 768]`.

    The picture stands inside the prompt; its tokens come first, every `every`th of them. Without a picture (a negative prompt) a black one
    is shown. Each pair is encoded once; the encoders are on the device only for that.
    """

    def __init__(
        self,
        encoder: Later,
        tokenizer: Callable[..., Any],
        clip: Later,
        clip_tokenizer: Callable[..., Any],
        processor: Callable[..., Any],
        every: int,
        length: int,
        bench: Workbench,
    ) -> None:
        self.encoder, self.tokenizer, self.clip, self.clip_tokenizer, self.processor = encoder, tokenizer, clip, clip_tokenizer, processor
        self.every, self.length, self.bench = every, length, bench
        self.known = Known(bench.device, encoder, clip)
        self._pooled: dict[str, torch.Tensor] = {}

    def __call__(self, prompt: str, image: torch.Tensor | None) -> torch.Tensor:
        """The packed embeddings, on the bench's device. Raises `ModelError` for a tokenizer of another model."""

        def read() -> torch.Tensor:
            pooled = self._pool(prompt)
            return pack_text(self._read(prompt, image), pooled)

        return self.known(read, prompt, image, f"{self.every} {self.length}")

    @torch.no_grad()
    def _read(self, prompt: str, image: torch.Tensor | None) -> torch.Tensor:
        ids, answer = self._tokens(prompt)
        shown = Image.new("RGB", (64, 64)) if image is None else picture(image)
        pixels = self.processor(images=shown, return_tensors="pt").pixel_values
        encoder, device = self.bench.take(self.encoder), self.bench.device
        hidden: torch.Tensor = encoder(
            input_ids=ids[None].to(device),
            attention_mask=torch.ones_like(ids)[None].to(device),
            pixel_values=pixels.to(device, encoder.dtype),
            output_hidden_states=True,
            logits_to_keep=1,
        ).hidden_states[BEFORE_LAST]
        moved = PICTURE_TOKENS - 1
        seen = hidden[:, PICTURE_AT : PICTURE_AT + PICTURE_TOKENS : PROMPT_ALONE_EVERY if image is None else self.every]
        return torch.cat([seen, hidden[:, LLAVA_CROP + moved : answer - ANSWER_TOKENS + moved], hidden[:, answer + moved :]], 1)

    def _tokens(self, prompt: str) -> tuple[torch.Tensor, int]:
        """Token numbers with room for the picture, and where the answer would begin, counted without that room."""
        text = llava_text(prompt)
        tokens = self.tokenizer([text], max_length=self.length + LLAVA_CROP, truncation=True, return_tensors="pt").input_ids[0]
        number: int = self.encoder.config.image_token_index
        if (tokens == number).nonzero().flatten().tolist() != [PICTURE_AT]:
            raise ModelError(
                f"the tokenizer does not put the picture at place {PICTURE_AT} of the prompt; give HunyuanVideo-I2V's tokenizer folder"
            )
        ends = (tokens == self.tokenizer.convert_tokens_to_ids("<|end_header_id|>")).nonzero().flatten()  # type: ignore[attr-defined]
        # A prompt that is too long ends before the answer's header; then its last tokens are cut instead, as in diffusers.
        answer = int(ends[2]) + 1 if len(ends) > 2 else len(tokens)
        room = torch.full((PICTURE_TOKENS,), number)
        return torch.cat([tokens[:PICTURE_AT], room, tokens[PICTURE_AT + 1 :]]), answer

    @torch.no_grad()
    def _pool(self, prompt: str) -> torch.Tensor:
        if prompt not in self._pooled:
            tokens = self.clip_tokenizer([prompt], padding="max_length", max_length=CLIP_LENGTH, truncation=True, return_tensors="pt")
            clip = self.bench.take(self.clip)
            self._pooled[prompt] = clip(tokens.input_ids.to(self.bench.device)).pooler_output[:, None]
        return self._pooled[prompt]


class QwenGlyphPrompt:
    """Prompt -> what HunyuanVideo-1.5 reads, packed: Qwen's tokens `[1, L, 3584]`, and ByT5's of quoted text `[1, M, 1472]`."""

    def __init__(
        self, encoder: Later, tokenizer: Any, glyph_encoder: Later, glyph_tokenizer: Callable[..., Any], length: int, bench: Workbench
    ) -> None:
        self.encoder, self.tokenizer, self.glyph_encoder, self.glyph_tokenizer = encoder, tokenizer, glyph_encoder, glyph_tokenizer
        self.length, self.bench = length, bench
        self.known = Known(bench.device, encoder, glyph_encoder)

    def __call__(self, prompt: str, image: torch.Tensor | None) -> torch.Tensor:
        """The packed embeddings, on the bench's device; the picture is read elsewhere (`SiglipPicture`)."""

        def read() -> torch.Tensor:
            glyphs = self._spell(prompt)
            return pack_text(self._read(prompt), glyphs)

        return self.known(read, prompt, str(self.length))

    @torch.no_grad()
    def _read(self, prompt: str) -> torch.Tensor:
        talk = [{"role": "system", "content": qwen_message()}, {"role": "user", "content": prompt or " "}]
        tokens = self.tokenizer.apply_chat_template(
            [talk],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            max_length=self.length + QWEN_CROP,
            truncation=True,
            return_tensors="pt",
        )
        encoder = self.bench.take(self.encoder)
        ids, mask = (tokens[key].to(self.bench.device) for key in ("input_ids", "attention_mask"))
        hidden: torch.Tensor = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[BEFORE_LAST]
        return hidden[:, QWEN_CROP:]

    @torch.no_grad()
    def _spell(self, prompt: str) -> torch.Tensor:
        text = glyph_text(prompt)
        if not text:
            return torch.zeros(1, 0, self.glyph_encoder.config.d_model, device=self.bench.device)
        tokens = self.glyph_tokenizer(text, max_length=GLYPH_LENGTH, truncation=True, add_special_tokens=True, return_tensors="pt")
        encoder = self.bench.take(self.glyph_encoder)
        ids, mask = tokens.input_ids.to(self.bench.device), tokens.attention_mask.to(self.bench.device)
        hidden: torch.Tensor = encoder(input_ids=ids, attention_mask=mask.float())[0]
        return hidden


def glyph_text(prompt: str) -> str:
    """What a prompt quotes, each text once, as ByT5 is given it; empty when it quotes nothing."""
    quoted = dict.fromkeys(straight or curly for straight, curly in QUOTED.findall(prompt))
    return "".join(f'Text "{text}". ' for text in quoted)


class SiglipPicture:
    """Picture `[3, H, W]` in [-1, 1] -> SigLIP's tokens `[1, 729, 1152]`. Each picture is encoded once."""

    def __init__(self, encoder: Later, processor: Callable[..., Any], bench: Workbench) -> None:
        self.encoder, self.processor, self.bench = encoder, processor, bench
        self.known = Known(bench.device, encoder)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """The last layer's tokens, on the bench's device."""
        return self.known(lambda: self._look(image), image)

    @torch.no_grad()
    def _look(self, image: torch.Tensor) -> torch.Tensor:
        pixels = self.processor(images=picture(image), do_resize=True, do_convert_rgb=True, return_tensors="pt").pixel_values
        encoder = self.bench.take(self.encoder)
        tokens: torch.Tensor = encoder(pixels.to(self.bench.device, encoder.dtype)).last_hidden_state
        return tokens
