"""Generation of a clip in windows: each is denoised and decoded in turn, and is given the last frames of the one before (appendix C)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import torch

from lora_edit.canvas import Canvas, paste_into_source
from lora_edit.captions import FIRST_FRAME, build_prompt
from lora_edit.conditioning.baselines import INFERENCE_BUILDERS
from lora_edit.conditioning.sample import Sample
from lora_edit.conditioning.windows import Window, plan_inference_windows, select_window_hint
from lora_edit.config import EditSettings
from lora_edit.errors import NonFiniteError
from lora_edit.generation.denoise import NON_FINITE_REMEDY, denoise
from lora_edit.inputs import Clip
from lora_edit.models.family import Family
from lora_edit.models.runtime.acceleration import NATIVE_ATTENTION, accelerate_sampling
from lora_edit.models.runtime.offload_plan import decode_in_memory
from lora_edit.prepared_clip import PreparedClip
from lora_edit.seeds import create_generator

OnStep = Callable[[int, int, str], None]
"""Called after each step with the number of steps done, their total, and the name of the next operation where it is not a sampling step."""

TRAINING_PREVIEW_STEPS = 8
"""Sampling steps of a preview during training."""


def generate_clip(
    family: Family,
    prepared_clip: PreparedClip,
    settings: EditSettings,
    seed: int,
    on_step: OnStep,
    on_note: Callable[[str], None],
) -> torch.Tensor:
    """Run `generate_windows` with the accelerations of the settings.

    When another attention backend gives non-finite values, the clip is sampled again with torch's own and `on_note` receives a remark.
    """
    generation = settings.generation

    def generate(attention: str) -> torch.Tensor:
        with accelerate_sampling(family, attention_backend=attention, cache_threshold=generation.cache, compile_blocks=generation.compile):
            return generate_windows(family, prepared_clip, settings, seed, on_step, on_note=on_note)

    try:
        return generate(generation.attention)
    except NonFiniteError as error:
        if generation.attention == NATIVE_ATTENTION:
            raise
        on_note(f"attention {generation.attention!r}: {error}; sampling again with {NATIVE_ATTENTION!r}")
        return generate(NATIVE_ATTENTION)


def sample_training_preview(
    family: Family, clip: Clip, prepared_clip: PreparedClip, settings: EditSettings, count: int = 4
) -> torch.Tensor:
    """Sample a preview with the partly trained LoRA: frames of the clip's first window in a few steps, without restored detail.

    Returns `[count, H, W, 3]` uint8.
    """
    generation = settings.generation.model_copy(
        update={"steps": min(settings.generation.steps, TRAINING_PREVIEW_STEPS), "guidance_scale": 1.0}
    )
    preview_settings = settings.model_copy(update={"generation": generation})
    first = _plan_inference_windows(family, prepared_clip.canvas, preview_settings)[0].frames
    pixels = generate_windows(family, prepared_clip, preview_settings, settings.seed, lambda *_: None, first_window_only=True)
    selected = sorted({first[round(index * (len(first) - 1) / max(1, count - 1))] for index in range(count)})
    frames = enumerate(paste_into_source(clip, prepared_clip.canvas, pixels, settings.compositing))
    return torch.stack([frame for number, frame in islice(frames, selected[-1] + 1) if number in selected])


def _plan_inference_windows(family: Family, canvas: Canvas, settings: EditSettings) -> list[Window]:
    longest = settings.generation.window or family.geometry.max_frames
    return plan_inference_windows(canvas.source.shape[1], longest, settings.generation.overlap, family.geometry.temporal_compression)


@torch.no_grad()
def generate_windows(
    family: Family,
    prepared_clip: PreparedClip,
    settings: EditSettings,
    seed: int,
    on_step: OnStep,
    first_window_only: bool = False,
    on_note: Callable[[str], None] = lambda text: None,
) -> torch.Tensor:
    """Generate the clip at the model's size, `[3, T, h, w]` in [-1, 1], window by window.

    Each window after the first receives the last frames of the window before as given. With `first_window_only`, later frames are the
    source's. `on_note` receives a remark when memory runs out in decoding. Raises `NonFiniteError`.
    """
    generation, group, canvas = settings.generation, family.geometry.temporal_compression, prepared_clip.canvas
    windows = _plan_inference_windows(family, canvas, settings)[: 1 if first_window_only else None]
    output = canvas.source.clone()
    output[:, 0] = canvas.first_frame
    window_steps = generation.steps + 1  # decoding is the last one
    for number, window in enumerate(windows):
        encoded = family.encode_sample(_build_inference_sample(prepared_clip, window, output, settings, group))
        negative = None
        if generation.guidance_scale != 1:
            negative = replace(encoded, prompt_embeds=family.encode_prompt(generation.negative_prompt))

        def on_denoise(done: int, _: int, before: int = number * window_steps) -> None:
            on_step(before + done, len(windows) * window_steps, "decoding" if done == generation.steps else "")

        noise = create_generator(seed, "generate", number)
        latents = denoise(family, encoded, generation, noise, negative=negative, on_step=on_denoise)
        pixels = decode_in_memory(family, latents, on_note)
        if not bool(torch.isfinite(pixels).all()):
            raise NonFiniteError(f"the decoded frames of window {number + 1} of {len(windows)} are not finite; {NON_FINITE_REMEDY}")
        on_step((number + 1) * window_steps, len(windows) * window_steps, "")
        for index, frame in enumerate(window.frames):
            if frame and (index > window.num_overlap_frames or number == 0):
                output[:, frame] = pixels[:, index]
    return output


def _build_inference_sample(
    prepared_clip: PreparedClip, window: Window, output: torch.Tensor, settings: EditSettings, temporal_compression: int
) -> Sample:
    canvas = prepared_clip.canvas
    source, mask = canvas.select_window(window.frames, temporal_compression)
    given = {index: output[:, frame] for index, frame in enumerate(window.frames[: window.num_overlap_frames + 1]) if index}
    anchors = {index: canvas.anchors[frame] for index, frame in enumerate(window.frames) if frame in canvas.anchors}
    prompt = build_prompt(FIRST_FRAME, settings, canvas.captions)
    hint = select_window_hint(prepared_clip.hints.generation_hint, window)
    return INFERENCE_BUILDERS[settings.method.conditioning](source, canvas.first_frame, mask, prompt, {**anchors, **given}, hint)
