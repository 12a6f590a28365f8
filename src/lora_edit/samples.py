"""From a canvas to what the loops take: encoded training samples by stage, and the windows of the generated clip."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice

import numpy as np
import torch

from lora_edit.canvas import Canvas, build_canvas, composite_clip, paste_into_source
from lora_edit.captions import FIRST_FRAME, SOURCE, build_prompt, build_training_prompts, get_reference_name
from lora_edit.compositing.crop import crop_frames
from lora_edit.conditioning.baselines import APPEARANCE_BUILDERS, INFERENCE_BUILDERS, MOTION_BUILDERS
from lora_edit.conditioning.method import build_appearance_after_first_sample
from lora_edit.conditioning.recolour import draw_colour_map, draw_texture, estimate_changed_region, recolour_sample
from lora_edit.conditioning.sample import Hint, Sample
from lora_edit.conditioning.windows import Window, plan_inference_windows, plan_training_windows
from lora_edit.config import EditSettings
from lora_edit.errors import NonFiniteError
from lora_edit.generation.denoise import denoise
from lora_edit.hints import Hints
from lora_edit.inputs import Clip
from lora_edit.models.families.embedded.record import TINY
from lora_edit.models.family import EncodedSample, Family
from lora_edit.models.runtime.acceleration import NATIVE_ATTENTION, accelerate_sampling
from lora_edit.reporting import Reporter
from lora_edit.seeds import create_generator
from lora_edit.training.loop import Stage
from lora_edit.video.flow import chain_flow_to_first
from lora_edit.video.ranges import to_frames

OnStep = Callable[[int, int, str], None]
"""Told of each step done, of how many, and what the next one is where it is no sampling step."""

TRAINING_PREVIEW_STEPS = 8
"""Sampling steps of a look at unfinished training."""


def list_training_key_parts(settings: EditSettings, clip: Clip) -> tuple[str, ...]:
    """Every setting that decides the LoRA, and its prompts, for its cache key."""
    parts = (settings.training.reset_runtime_fields(), settings.lora, settings.method, settings.masks.snap, settings.compositing)
    return (*(repr(part) for part in parts), *build_training_prompts(settings, clip).values(), str(settings.seed))


def build_lora_metadata(settings: EditSettings, clip: Clip, family: Family, key: str) -> dict[str, str]:
    """What a LoRA file says about its making; the same training gives the same words."""
    lora = settings.lora
    recipe = {room: getattr(settings, room).model_dump(mode="json") for room in ("method", "training", "lora", "masks")}
    prompts = build_training_prompts(settings, clip)
    facts: dict[str, object] = {
        "software": f"lora-edit {version('lora-edit')}",
        "base_model": family.name,
        "base_fingerprint": family.fingerprint(),
        "method": settings.method.conditioning,
        "settings": json.dumps(recipe, sort_keys=True),
        "prompt": prompts.pop(SOURCE),
        "seed": settings.seed,
        "rank": lora.rank,
        "alpha": f"{lora.alpha or lora.rank:g}",
        "training_key": key,
        **{f"{name}_prompt": prompt for name, prompt in prompts.items()},
        **{f"{name}_hash": value for name, value in clip.compute_input_hashes().items()},
    }
    return {name: str(value) for name, value in facts.items()}


@dataclass(frozen=True)
class PreparedClip:
    """The clip at the model's size, and what is predicted of it."""

    canvas: Canvas
    hints: Hints


def prepare_clip(family: Family, clip: Clip, settings: EditSettings, reporter: Reporter | None = None) -> PreparedClip:
    """The clip at the model's size."""
    canvas = build_canvas(clip, family.geometry, settings.compositing, settings.masks.snap)
    return PreparedClip(canvas, Hints(clip, canvas, settings.method.hint, settings.method.hint_confidence, reporter))


def build_training_stages(family: Family, prepared_clip: PreparedClip, settings: EditSettings) -> list[Stage]:
    """Motion learning on the masked source, then appearance learning on the edited later frames, if there are any."""
    training = settings.training
    plain, varied = encode_motion_samples(family, prepared_clip, settings)
    share = training.recolour if varied else 0.0
    weights = [(1 - share) / len(plain)] * len(plain) + [share / max(1, len(varied))] * len(varied)
    stages = [Stage("motion", [*plain, *varied], weights, training.motion_steps)]
    looks = encode_appearance_samples(family, prepared_clip, settings)
    if looks and training.appearance_steps:
        keep = training.motion_share
        stages.append(
            Stage(
                "appearance",
                [*looks, *plain, *varied],
                [(1 - keep) / len(looks)] * len(looks) + [w * keep for w in weights],
                training.appearance_steps,
                training.appearance_shift,
            )
        )
    return [stage for stage in stages if stage.steps]


def encode_motion_samples(
    family: Family, prepared_clip: PreparedClip, settings: EditSettings
) -> tuple[list[EncodedSample], list[EncodedSample]]:
    """The clip's training windows as they are, and recoloured copies of them."""
    build, group, canvas = MOTION_BUILDERS[settings.method.conditioning], family.geometry.temporal_compression, prepared_clip.canvas
    longest = settings.training.window or family.geometry.max_frames
    windows = plan_training_windows(canvas.source.shape[1], longest, group)
    clips = [canvas.select_window(window.frames, group) for window in windows]
    masks = [_exclude_last_frame(mask, window) if family.last_frame else mask for (_, mask), window in zip(clips, windows, strict=True)]
    text = build_prompt(SOURCE, settings, canvas.captions)
    hints = [_select_window_hint(prepared_clip.hints.training_hint, window) for window in windows]
    samples = [build(source, mask, text, hint) for (source, _), mask, hint in zip(clips, masks, hints, strict=True)]
    plain = [family.encode_sample(sample) for sample in samples]
    if not settings.training.recolour:
        return plain, []
    generator = create_generator(settings.seed, "recolour")
    places = torch.from_numpy(np.stack(list(chain_flow_to_first(to_frames(canvas.source)))))
    region = estimate_changed_region(canvas.source[:, 0], canvas.first_frame, places)
    varied: list[EncodedSample] = []
    for number in range(max(settings.training.recolour_variants, len(samples))):
        chosen = number % len(samples)
        frames = torch.tensor(windows[chosen].frames)
        colours, texture = draw_colour_map(generator), None
        if float(torch.rand(1, generator=generator)) < settings.training.retexture:
            texture = draw_texture(generator, places[frames])
        varied.append(family.encode_sample(recolour_sample(samples[chosen], region[frames] * clips[chosen][1], colours, texture)))
    return plain, varied


def _exclude_last_frame(edit_mask: torch.Tensor, window: Window) -> torch.Tensor:
    """`[T, H, W]` bool without the window's last frame and the copies that pad it, which a model that is shown both ends is given whole."""
    ends = torch.tensor([frame == window.frames[-1] for frame in window.frames])
    return edit_mask & ~ends[:, None, None]


def encode_appearance_samples(family: Family, prepared_clip: PreparedClip, settings: EditSettings) -> list[EncodedSample]:
    """One sample for each edited later frame: a single frame (paper 3.3.2), or two latent frames (`appearance_after_first`)."""
    canvas, group, how = prepared_clip.canvas, family.geometry.temporal_compression, settings.method.appearance_mask

    def sample(number: int, picture: torch.Tensor) -> Sample:
        text = build_prompt(get_reference_name(number), settings, canvas.captions)
        if how != "after-first":
            return APPEARANCE_BUILDERS[how](canvas.source[:, number], picture, canvas.edit_mask[number], text)
        source, mask = canvas.select_window((0, *[number] * group), group)
        hint = prepared_clip.hints.build_reference_hint(number)
        still = hint and hint.select_frames(torch.tensor([0, *[1] * group]))
        return build_appearance_after_first_sample(source, canvas.first_frame, picture, mask, text, still)

    return [family.encode_sample(sample(number, picture)) for number, picture in sorted(canvas.references.items())]


def _select_window_hint(hint: Hint | None, window: Window) -> Hint | None:
    return hint and hint.select_frames(torch.tensor(window.frames))


def _build_inference_sample(
    prepared_clip: PreparedClip, window: Window, output: torch.Tensor, settings: EditSettings, temporal_compression: int
) -> Sample:
    canvas = prepared_clip.canvas
    source, mask = canvas.select_window(window.frames, temporal_compression)
    given = {place: output[:, frame] for place, frame in enumerate(window.frames[: window.num_overlap_frames + 1]) if place}
    given |= {place: canvas.anchors[frame] for place, frame in enumerate(window.frames) if frame in canvas.anchors and place not in given}
    text = build_prompt(FIRST_FRAME, settings, canvas.captions)
    hint = _select_window_hint(prepared_clip.hints.generation_hint, window)
    return INFERENCE_BUILDERS[settings.method.conditioning](source, canvas.first_frame, mask, text, given, hint)


def generate_clip(
    family: Family,
    prepared_clip: PreparedClip,
    settings: EditSettings,
    seed: int,
    on_step: OnStep,
    on_note: Callable[[str], None],
) -> torch.Tensor:
    """`generate_windows` with what the settings switch on to be faster; torch's own attention takes over where another one fails."""
    how = settings.generation

    def draw(attention: str) -> torch.Tensor:
        with accelerate_sampling(family, attention_backend=attention, cache_threshold=how.cache, compile_blocks=how.compile):
            return generate_windows(family, prepared_clip, settings, seed, on_step)

    try:
        return draw(how.attention)
    except NonFiniteError as error:
        if how.attention == NATIVE_ATTENTION:
            raise
        on_note(f"attention {how.attention!r}: {error}; sampling again with {NATIVE_ATTENTION!r}")
        return draw(NATIVE_ATTENTION)


def sample_training_preview(
    family: Family, clip: Clip, prepared_clip: PreparedClip, settings: EditSettings, count: int = 4
) -> torch.Tensor:
    """What the LoRA draws by now, `[count, H, W, 3]` uint8: frames of the clip's first window, in a few steps, without fine detail."""
    quick = settings.generation.model_copy(update={"steps": min(settings.generation.steps, TRAINING_PREVIEW_STEPS), "guidance_scale": 1.0})
    some = settings.model_copy(update={"generation": quick})
    first = _plan_inference_windows(family, prepared_clip.canvas, some)[0].frames
    pixels = generate_windows(family, prepared_clip, some, settings.seed, lambda *_: None, first_window_only=True)
    chosen = sorted({first[round(place * (len(first) - 1) / max(1, count - 1))] for place in range(count)})
    shown = enumerate(paste_into_source(clip, prepared_clip.canvas, pixels, settings.compositing))
    return torch.stack([frame for number, frame in islice(shown, chosen[-1] + 1) if number in chosen])


def composite_output(
    clip: Clip, prepared_clip: PreparedClip, pixels: torch.Tensor, settings: EditSettings, reporter: Reporter | None = None
) -> Iterator[torch.Tensor]:
    """The result's frames `[H, W, 3]` uint8 from the model's output `[3, T, h, w]`: composited, with detail where that is on."""
    predicted = prepared_clip.hints.prediction if settings.compositing.detail else None
    for number, frame in enumerate(paste_into_source(clip, prepared_clip.canvas, pixels, settings.compositing, predicted)):
        if reporter:
            reporter.step("composite", number + 1, clip.video.num_frames)
        yield frame


def predict_preview_frames(clip: Clip, settings: EditSettings, reporter: Reporter) -> torch.Tensor:
    """The explained edit before any model is chosen, `[T, H, W, 3]` uint8: composited as an edit's result is."""
    canvas = build_canvas(clip, TINY.geometry, settings.compositing, align_to_tokens=False)
    predicted = paste_prediction(clip, PreparedClip(canvas, Hints(clip, canvas, "explained", reporter=reporter)))
    return torch.stack(list(composite_clip(clip, predicted, settings.compositing)))


def paste_prediction(clip: Clip, prepared_clip: PreparedClip) -> torch.Tensor:
    """The explained edit alone, in the source, `[T, H, W, 3]` uint8: without compositing."""
    frames = clip.video.frames.clone()
    crop_frames(frames, prepared_clip.canvas.crop).copy_(prepared_clip.hints.prediction.frames)
    return frames


def _plan_inference_windows(family: Family, canvas: Canvas, settings: EditSettings) -> list[Window]:
    longest = settings.generation.window or family.geometry.max_frames
    return plan_inference_windows(canvas.source.shape[1], longest, settings.generation.overlap, family.geometry.temporal_compression)


@torch.no_grad()
def generate_windows(
    family: Family, prepared_clip: PreparedClip, settings: EditSettings, seed: int, on_step: OnStep, first_window_only: bool = False
) -> torch.Tensor:
    """The generated clip at the model's size, `[3, T, h, w]` in [-1, 1]; long clips window by window, each shown the frames before it.

    With `only_first` the source stands behind the first window.
    """
    generation, group, canvas = settings.generation, family.geometry.temporal_compression, prepared_clip.canvas
    windows = _plan_inference_windows(family, canvas, settings)[: 1 if first_window_only else None]
    made = canvas.source.clone()
    made[:, 0] = canvas.first_frame
    each = generation.steps + 1  # decoding is the last one
    for number, window in enumerate(windows):
        encoded = family.encode_sample(_build_inference_sample(prepared_clip, window, made, settings, group))
        negative = None
        if generation.guidance_scale != 1:
            negative = replace(encoded, prompt_embeds=family.encode_prompt(generation.negative_prompt))

        def on_denoise(done: int, _: int, before: int = number * each) -> None:
            on_step(before + done, len(windows) * each, "decoding" if done == generation.steps else "")

        noise = create_generator(seed, "generate", number)
        pixels = family.decode(denoise(family, encoded, generation, noise, negative=negative, on_step=on_denoise))
        on_step((number + 1) * each, len(windows) * each, "")
        for place, frame in enumerate(window.frames):
            if frame and (place > window.num_overlap_frames or number == 0):
                made[:, frame] = pixels[:, place]
    return made
