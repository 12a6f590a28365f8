"""Run one edit in memory on a scene with truth, and score it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import torch

from lora_edit.canvas import return_to_source
from lora_edit.conditioning.method import motion
from lora_edit.config import EditSettings, resolve
from lora_edit.evaluation.psnr import psnr
from lora_edit.inputs import Clip
from lora_edit.masks.shapes import shape_mask
from lora_edit.models.family import Family
from lora_edit.samples import generate_windows, place, training_stages
from lora_edit.studies.scenes import TrueEdit
from lora_edit.training.loop import fit
from lora_edit.training.lora import add_lora, lora_parameters, remove_lora
from lora_edit.types import Video


def clip_of(edit: TrueEdit, settings: EditSettings, references: Sequence[int] = ()) -> Clip:
    """The scene as a person would hand it over: source, edited first frame, loose box, and true edited frames as references."""
    count = len(edit.source)
    video = Video(edit.source, Fraction(8), tuple(i / 8 for i in range(count)))
    region = shape_mask(edit.mask, settings.masks.shape, settings.masks.expand, settings.masks.smooth)
    return Clip(video, region, edit.truth[0], {n: edit.truth[n] for n in references}, {})


def settings_for(seed: int, *assignments: str) -> EditSettings:
    """The embedded model's settings for a scene (its input exists in memory only)."""
    tables = {"input": {"source": "scene", "first_frame": "scene"}, "seed": seed}
    return resolve(tables, ("compositing.crop=false", *assignments))


def train_in_memory(family: Family, clip: Clip, settings: EditSettings) -> None:
    """Fit a fresh LoRA; zero steps leave the base model as it is."""
    canvas = place(family, clip, settings)
    parameters = add_lora(family, settings.lora, settings.seed)
    fit(family, parameters, training_stages(family, canvas, settings), settings.training, settings.seed, None, "", lambda *_: None)


def learn_appearance(family: Family, clip: Clip, settings: EditSettings) -> None:
    """Go on with the appearance stage on the adapter as it is; `clip` has the references."""
    last = training_stages(family, place(family, clip, settings), settings)[-1:]
    fit(family, lora_parameters(family), last, settings.training, settings.seed + 1, None, "", lambda *_: None)


def generate_in_memory(family: Family, clip: Clip, settings: EditSettings) -> torch.Tensor:
    """The edited clip `[T, H, W, 3]` with the adapter as it is."""
    canvas = place(family, clip, settings)
    pixels = generate_windows(family, canvas, settings, settings.seed, lambda *_: None)
    return torch.stack(list(return_to_source(clip, canvas, pixels, settings.compositing)))


def through_codec(family: Family, clip: Clip, edit: TrueEdit, settings: EditSettings) -> torch.Tensor:
    """The true edit through the model's codec: what a perfect model would reach."""
    true_clip = replace(clip, video=replace(clip.video, frames=edit.truth))
    canvas = place(family, true_clip, settings)
    encoded = family.encode_sample(motion(canvas.source, torch.zeros_like(canvas.edit_mask)))
    assert encoded.target is not None
    remove_lora(family)
    return torch.stack(list(return_to_source(clip, canvas, family.decode(encoded.target), settings.compositing)))


def region_psnr(result: torch.Tensor, edit: TrueEdit) -> float:
    """PSNR against the truth where the object is, in all frames after the first (which is given)."""
    return psnr(result[1:], edit.truth[1:], edit.mask.frames[1:])
