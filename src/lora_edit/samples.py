"""From a canvas to what the loops take: encoded training samples by stage, and the windows of the generated clip."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import islice

import numpy as np
import torch

from lora_edit.canvas import Canvas, composite_clip, make_canvas, return_to_source
from lora_edit.captions import FIRST_FRAME, SOURCE, prompt_for, reference, training_prompts
from lora_edit.compositing.region import crop_frames
from lora_edit.conditioning.baselines import APPEARANCE, INFERENCE, MOTION
from lora_edit.conditioning.method import appearance_after_first
from lora_edit.conditioning.recolour import changed_region, draw_colour_map, draw_texture, recolour
from lora_edit.conditioning.sample import Hint, Sample
from lora_edit.conditioning.windows import Window, inference_windows, training_windows
from lora_edit.config import EditSettings
from lora_edit.errors import NotFinite
from lora_edit.generation.denoise import denoise
from lora_edit.hints import Hints
from lora_edit.inputs import Clip
from lora_edit.models.catalog.known import TINY
from lora_edit.models.family import EncodedSample, Family
from lora_edit.models.speed import NATIVE, faster
from lora_edit.reporting import Reporter
from lora_edit.seeds import named_generator
from lora_edit.training.loop import Stage
from lora_edit.video.flow import places_in_first
from lora_edit.video.ranges import to_frames

OnStep = Callable[[int, int, str], None]
"""Told of each step done, of how many, and what the next one is where it is no sampling step."""

LOOK_STEPS = 8
"""Sampling steps of a look at unfinished training."""


def training_facts(settings: EditSettings, clip: Clip) -> tuple[str, ...]:
    """Every setting that decides the LoRA, and its prompts, for its cache key."""
    parts = (settings.training.recipe(), settings.lora, settings.method, settings.masks.snap, settings.compositing)
    return (*(repr(part) for part in parts), *training_prompts(settings, clip).values(), str(settings.seed))


def lora_metadata(settings: EditSettings, clip: Clip, family: Family, key: str) -> dict[str, str]:
    """What a LoRA file says about its making; the same training gives the same words."""
    lora = settings.lora
    recipe = {room: getattr(settings, room).model_dump(mode="json") for room in ("method", "training", "lora", "masks")}
    prompts = training_prompts(settings, clip)
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
        **{f"{name}_hash": value for name, value in clip.hashes().items()},
    }
    return {name: str(value) for name, value in facts.items()}


@dataclass(frozen=True)
class PreparedClip:
    """The clip at the model's size, and what is predicted of it."""

    canvas: Canvas
    hints: Hints


def prepare(family: Family, clip: Clip, settings: EditSettings, reporter: Reporter | None = None) -> PreparedClip:
    """The clip at the model's size."""
    canvas = make_canvas(clip, family.geometry, settings.compositing, settings.masks.snap)
    return PreparedClip(canvas, Hints(clip, canvas, settings.method.hint, settings.method.hint_confidence, reporter))


def training_stages(family: Family, prepared: PreparedClip, settings: EditSettings) -> list[Stage]:
    """Motion learning on the masked source, then appearance learning on the edited later frames, if there are any."""
    training = settings.training
    plain, varied = motion_samples(family, prepared, settings)
    share = training.recolour if varied else 0.0
    weights = [(1 - share) / len(plain)] * len(plain) + [share / max(1, len(varied))] * len(varied)
    stages = [Stage("motion", [*plain, *varied], weights, training.motion_steps)]
    looks = appearance_samples(family, prepared, settings)
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


def motion_samples(family: Family, prepared: PreparedClip, settings: EditSettings) -> tuple[list[EncodedSample], list[EncodedSample]]:
    """The clip's training windows as they are, and recoloured copies of them."""
    build, group, canvas = MOTION[settings.method.conditioning], family.geometry.group, prepared.canvas
    longest = settings.training.window or family.geometry.max_frames
    windows = training_windows(canvas.source.shape[1], longest, group)
    clips = [canvas.window(window.frames, group) for window in windows]
    masks = [_end_given(mask, window) if family.last_frame else mask for (_, mask), window in zip(clips, windows, strict=True)]
    text = prompt_for(SOURCE, settings, canvas.captions)
    hints = [_window_hint(prepared.hints.source, window) for window in windows]
    samples = [build(source, mask, text, hint) for (source, _), mask, hint in zip(clips, masks, hints, strict=True)]
    plain = [family.encode_sample(sample) for sample in samples]
    if not settings.training.recolour:
        return plain, []
    generator = named_generator(settings.seed, "recolour")
    places = torch.from_numpy(np.stack(list(places_in_first(to_frames(canvas.source)))))
    region = changed_region(canvas.source[:, 0], canvas.first_frame, places)
    varied: list[EncodedSample] = []
    for number in range(max(settings.training.recolour_variants, len(samples))):
        chosen = number % len(samples)
        frames = torch.tensor(windows[chosen].frames)
        colours, texture = draw_colour_map(generator), None
        if float(torch.rand(1, generator=generator)) < settings.training.retexture:
            texture = draw_texture(generator, places[frames])
        varied.append(family.encode_sample(recolour(samples[chosen], region[frames] * clips[chosen][1], colours, texture)))
    return plain, varied


def _end_given(edit_mask: torch.Tensor, window: Window) -> torch.Tensor:
    """`[T, H, W]` bool without the window's last frame and the copies that pad it, which a model that is shown both ends is given whole."""
    ends = torch.tensor([frame == window.frames[-1] for frame in window.frames])
    return edit_mask & ~ends[:, None, None]


def appearance_samples(family: Family, prepared: PreparedClip, settings: EditSettings) -> list[EncodedSample]:
    """One sample for each edited later frame: a single frame (paper 3.3.2), or two latent frames (`appearance_after_first`)."""
    canvas, group, how = prepared.canvas, family.geometry.group, settings.method.appearance_mask

    def sample(number: int, picture: torch.Tensor) -> Sample:
        text = prompt_for(reference(number), settings, canvas.captions)
        if how != "after-first":
            return APPEARANCE[how](canvas.source[:, number], picture, canvas.edit_mask[number], text)
        source, mask = canvas.window((0, *[number] * group), group)
        hint = prepared.hints.reference(number)
        still = hint and hint.at(torch.tensor([0, *[1] * group]))
        return appearance_after_first(source, canvas.first_frame, picture, mask, text, still)

    return [family.encode_sample(sample(number, picture)) for number, picture in sorted(canvas.references.items())]


def _window_hint(hint: Hint | None, window: Window) -> Hint | None:
    return hint and hint.at(torch.tensor(window.frames))


def _inference_sample(prepared: PreparedClip, window: Window, made: torch.Tensor, settings: EditSettings, group: int) -> Sample:
    canvas = prepared.canvas
    source, mask = canvas.window(window.frames, group)
    given = {place: made[:, frame] for place, frame in enumerate(window.frames[: window.known + 1]) if place}
    given |= {place: canvas.anchors[frame] for place, frame in enumerate(window.frames) if frame in canvas.anchors and place not in given}
    text = prompt_for(FIRST_FRAME, settings, canvas.captions)
    hint = _window_hint(prepared.hints.edited, window)
    return INFERENCE[settings.method.conditioning](source, canvas.first_frame, mask, text, given, hint)


def draw_clip(
    family: Family,
    prepared: PreparedClip,
    settings: EditSettings,
    seed: int,
    on_step: OnStep,
    note: Callable[[str], None],
) -> torch.Tensor:
    """`generate_windows` with what the settings switch on to be faster; torch's own attention takes over where another one fails."""
    how = settings.generation

    def draw(attention: str) -> torch.Tensor:
        with faster(family, attention=attention, cache=how.cache, compiled=how.compile):
            return generate_windows(family, prepared, settings, seed, on_step)

    try:
        return draw(how.attention)
    except NotFinite as error:
        if how.attention == NATIVE:
            raise
        note(f"attention {how.attention!r}: {error}; sampling again with {NATIVE!r}")
        return draw(NATIVE)


def draw_look(family: Family, clip: Clip, prepared: PreparedClip, settings: EditSettings, count: int = 4) -> torch.Tensor:
    """What the LoRA draws by now, `[count, H, W, 3]` uint8: frames of the clip's first window, in a few steps, without fine detail."""
    quick = settings.generation.model_copy(update={"steps": min(settings.generation.steps, LOOK_STEPS), "guidance_scale": 1.0})
    some = settings.model_copy(update={"generation": quick})
    first = _inference_windows(family, prepared.canvas, some)[0].frames
    pixels = generate_windows(family, prepared, some, settings.seed, lambda *_: None, only_first=True)
    chosen = sorted({first[round(place * (len(first) - 1) / max(1, count - 1))] for place in range(count)})
    shown = enumerate(return_to_source(clip, prepared.canvas, pixels, settings.compositing))
    return torch.stack([frame for number, frame in islice(shown, chosen[-1] + 1) if number in chosen])


def finish(
    clip: Clip, prepared: PreparedClip, generated: torch.Tensor, settings: EditSettings, reporter: Reporter | None = None
) -> Iterator[torch.Tensor]:
    """The result's frames `[H, W, 3]` uint8 from the model's output `[3, T, h, w]`: composited, with detail where that is on."""
    predicted = prepared.hints.predicted if settings.compositing.detail else None
    for number, frame in enumerate(return_to_source(clip, prepared.canvas, generated, settings.compositing, predicted)):
        if reporter:
            reporter.step("composite", number + 1, clip.video.num_frames)
        yield frame


def preview_frames(clip: Clip, settings: EditSettings, reporter: Reporter) -> torch.Tensor:
    """The explained edit before any model is chosen, `[T, H, W, 3]` uint8: composited as an edit's result is."""
    canvas = make_canvas(clip, TINY.geometry, settings.compositing, snapped=False)
    predicted = predicted_clip(clip, PreparedClip(canvas, Hints(clip, canvas, "explained", reporter=reporter)))
    return torch.stack(list(composite_clip(clip, predicted, settings.compositing)))


def predicted_clip(clip: Clip, prepared: PreparedClip) -> torch.Tensor:
    """The explained edit alone, in the source, `[T, H, W, 3]` uint8: without compositing."""
    frames = clip.video.frames.clone()
    crop_frames(frames, prepared.canvas.crop).copy_(prepared.hints.predicted.frames)
    return frames


def _inference_windows(family: Family, canvas: Canvas, settings: EditSettings) -> list[Window]:
    longest = settings.generation.window or family.geometry.max_frames
    return inference_windows(canvas.source.shape[1], longest, settings.generation.overlap, family.geometry.group)


@torch.no_grad()
def generate_windows(
    family: Family, prepared: PreparedClip, settings: EditSettings, seed: int, on_step: OnStep, only_first: bool = False
) -> torch.Tensor:
    """The generated clip at the model's size, `[3, T, h, w]` in [-1, 1]; long clips window by window, each shown the frames before it.

    With `only_first` the source stands behind the first window.
    """
    generation, group, canvas = settings.generation, family.geometry.group, prepared.canvas
    windows = _inference_windows(family, canvas, settings)[: 1 if only_first else None]
    made = canvas.source.clone()
    made[:, 0] = canvas.first_frame
    each = generation.steps + 1  # decoding is the last one
    for number, window in enumerate(windows):
        encoded = family.encode_sample(_inference_sample(prepared, window, made, settings, group))
        negative = None
        if generation.guidance_scale != 1:
            negative = replace(encoded, prompt_embeds=family.encode_prompt(generation.negative_prompt))

        def on_denoise(done: int, _: int, before: int = number * each) -> None:
            on_step(before + done, len(windows) * each, "decoding" if done == generation.steps else "")

        noise = named_generator(seed, "generate", number)
        pixels = family.decode(denoise(family, encoded, generation, noise, negative=negative, on_step=on_denoise))
        on_step((number + 1) * each, len(windows) * each, "")
        for place, frame in enumerate(window.frames):
            if frame and (place > window.known or number == 0):
                made[:, frame] = pixels[:, place]
    return made
