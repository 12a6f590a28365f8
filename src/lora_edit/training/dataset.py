"""The training dataset: encoded samples of one clip, by stage, and what identifies a training."""

from __future__ import annotations

import json
from importlib.metadata import version

import numpy as np
import torch

from lora_edit.captions import SOURCE, build_prompt, build_training_prompts, get_reference_name
from lora_edit.conditioning.baselines import APPEARANCE_BUILDERS, MOTION_BUILDERS
from lora_edit.conditioning.method import build_appearance_after_first_sample
from lora_edit.conditioning.recolour import draw_colour_map, draw_texture, estimate_changed_region, recolour_sample
from lora_edit.conditioning.sample import Sample
from lora_edit.conditioning.windows import Window, plan_training_windows, select_window_hint
from lora_edit.config import EditSettings
from lora_edit.inputs import Clip
from lora_edit.models.family import EncodedSample, Family
from lora_edit.prepared_clip import PreparedClip
from lora_edit.seeds import create_generator
from lora_edit.training.loop import Stage
from lora_edit.video.flow import chain_flow_to_first
from lora_edit.video.ranges import to_frames


def list_training_key_parts(settings: EditSettings, clip: Clip) -> tuple[str, ...]:
    """List the settings and prompts that determine the LoRA; part of its cache key."""
    parts = (settings.training.reset_runtime_fields(), settings.lora, settings.method, settings.masks.snap, settings.compositing)
    return (*(repr(part) for part in parts), *build_training_prompts(settings, clip).values(), str(settings.seed))


def build_lora_metadata(settings: EditSettings, clip: Clip, family: Family, key: str) -> dict[str, str]:
    """Build the metadata of a LoRA file. Equal trainings give equal metadata."""
    lora = settings.lora
    sections = ("method", "training", "lora", "masks")
    recipe = {section: getattr(settings, section).model_dump(mode="json", exclude={"init"}) for section in sections}
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


def build_training_stages(family: Family, prepared_clip: PreparedClip, settings: EditSettings) -> list[Stage]:
    """Build the motion stage on the masked source and, with edited later frames, the appearance stage (paper 3.3.1 and 3.3.2).

    Stages without steps are left out.
    """
    training = settings.training
    motion, recoloured = encode_motion_samples(family, prepared_clip, settings)
    share = training.recolour if recoloured else 0.0
    weights = [(1 - share) / len(motion)] * len(motion) + [share / max(1, len(recoloured))] * len(recoloured)
    stages = [Stage("motion", [*motion, *recoloured], weights, training.motion_steps)]
    appearance = encode_appearance_samples(family, prepared_clip, settings)
    if appearance and training.appearance_steps:
        motion_share = training.motion_share
        stages.append(
            Stage(
                "appearance",
                [*appearance, *motion, *recoloured],
                [(1 - motion_share) / len(appearance)] * len(appearance) + [weight * motion_share for weight in weights],
                training.appearance_steps,
                training.appearance_shift,
            )
        )
    return [stage for stage in stages if stage.steps]


def encode_motion_samples(
    family: Family, prepared_clip: PreparedClip, settings: EditSettings
) -> tuple[list[EncodedSample], list[EncodedSample]]:
    """Encode the clip's training windows; returns plain samples and recoloured copies (ours; none when `training.recolour` is 0)."""
    build, group, canvas = MOTION_BUILDERS[settings.method.conditioning], family.geometry.temporal_compression, prepared_clip.canvas
    longest = settings.training.window or family.geometry.max_frames
    windows = plan_training_windows(canvas.source.shape[1], longest, group)
    clips = [canvas.select_window(window.frames, group) for window in windows]
    masks = [_exclude_last_frame(mask, window) if family.last_frame else mask for (_, mask), window in zip(clips, windows, strict=True)]
    prompt = build_prompt(SOURCE, settings, canvas.captions)
    hints = [select_window_hint(prepared_clip.hints.training_hint, window) for window in windows]
    samples = [build(source, mask, prompt, hint) for (source, _), mask, hint in zip(clips, masks, hints, strict=True)]
    plain = [family.encode_sample(sample) for sample in samples]
    if not settings.training.recolour:
        return plain, []
    generator = create_generator(settings.seed, "recolour")
    correspondence = torch.from_numpy(np.stack(list(chain_flow_to_first(to_frames(canvas.source)))))
    region = estimate_changed_region(canvas.source[:, 0], canvas.first_frame, correspondence)
    recoloured: list[EncodedSample] = []
    for number in range(max(settings.training.recolour_variants, len(samples))):
        index = number % len(samples)
        frames = torch.tensor(windows[index].frames)
        colours, texture = draw_colour_map(generator), None
        if float(torch.rand(1, generator=generator)) < settings.training.retexture:
            texture = draw_texture(generator, correspondence[frames])
        sample = recolour_sample(samples[index], region[frames] * clips[index][1], colours, texture)
        recoloured.append(family.encode_sample(sample))
    return plain, recoloured


def _exclude_last_frame(edit_mask: torch.Tensor, window: Window) -> torch.Tensor:
    """Clear the mask `[T, H, W]` in the window's last frame and its padding copies, which first-and-last-frame models receive whole."""
    is_last = torch.tensor([frame == window.frames[-1] for frame in window.frames])
    return edit_mask & ~is_last[:, None, None]


def encode_appearance_samples(family: Family, prepared_clip: PreparedClip, settings: EditSettings) -> list[EncodedSample]:
    """Encode one sample per edited later frame: a single frame (paper 3.3.2), or the first and this frame with
    `method.appearance_mask = after-first` (ours).
    """
    canvas, group, schedule = prepared_clip.canvas, family.geometry.temporal_compression, settings.method.appearance_mask

    def build_sample(number: int, image: torch.Tensor) -> Sample:
        prompt = build_prompt(get_reference_name(number), settings, canvas.captions)
        if schedule != "after-first":
            return APPEARANCE_BUILDERS[schedule](canvas.source[:, number], image, canvas.edit_mask[number], prompt)
        source, mask = canvas.select_window((0, *[number] * group), group)
        hint = prepared_clip.hints.build_reference_hint(number)
        repeated_hint = hint and hint.select_frames(torch.tensor([0, *[1] * group]))
        return build_appearance_after_first_sample(source, canvas.first_frame, image, mask, prompt, repeated_hint)

    return [family.encode_sample(build_sample(number, image)) for number, image in sorted(canvas.references.items())]
