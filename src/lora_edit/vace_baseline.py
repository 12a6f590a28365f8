"""What a result is compared with: the clip that VACE makes of the same edit, without any training (the paper's table 2)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lora_edit.captions import caption_image
from lora_edit.config import EditSettings, resolve_settings
from lora_edit.devices import pick_compute_dtype, pick_device
from lora_edit.errors import VideoError
from lora_edit.inputs import Clip
from lora_edit.masks.change_detection import fit_first_frame
from lora_edit.models.families.vace.loading import load_vace
from lora_edit.models.families.vace.record import check_vace, list_published_overrides
from lora_edit.models.record import ModelRecord
from lora_edit.oom_fallback import retry_with_less_memory
from lora_edit.reporting import Reporter
from lora_edit.samples import composite_output, generate_clip, prepare_clip
from lora_edit.types import EditMask, Video
from lora_edit.video.read import read_video
from lora_edit.video.write import write_video


@dataclass(frozen=True)
class VaceBaseline:
    """A VACE that was found, and where its clip is going to lie."""

    facts: ModelRecord
    source: str
    output: Path


def find_vace_baseline(name: str, result: Path) -> VaceBaseline:
    """The VACE of a name, folder or repository, checked without its weights, and a free place beside `result` for its clip.

    Lossless frames for a result in a folder, an .mp4 like that of `edit` for any other. Raises `ModelError` for what is no whole VACE,
    `VideoError` for a clip that is there already and a folder that cannot be written to.
    """
    facts, source = check_vace(name)
    result = Path(os.path.abspath(result))
    output = result.with_name(f"{result.name}-vace") if result.is_dir() else result.with_name(f"{result.stem}-vace.mp4")
    if output.exists():
        raise VideoError(f"{output}: exists already; measure it with `lora-edit evaluate {output}`, or move it for --vace to make it anew")
    if not os.access(output.parent, os.W_OK):
        raise VideoError(f"{output}: VACE's clip goes here, and the folder cannot be written to; copy the result to one that can")
    return VaceBaseline(facts, source, output)


def build_vace_clip(source: Video, mask: EditMask, first_frame: torch.Tensor) -> Clip:
    """What VACE is handed: the clip, the region as it is, and the edited first frame `[H, W, 3]` uint8, brought to the clip's size.

    Raises `MaskError` when the picture is of another shape.
    """
    picture, note = fit_first_frame(first_frame, source.size)
    return Clip(source, mask, picture, {}, {}, (note,) if note else ())


def generate_vace_baseline(baseline: VaceBaseline, clip: Clip, prompt: str, reporter: Reporter) -> Video:
    """Draw VACE's clip with its published settings, return the source's pixels to it as `edit` does, write it, and read it back.

    Without a prompt it is asked in the captioner's words for the edited first frame, where that is on this machine. Raises `ModelError`.
    """
    settings = _build_settings(baseline.facts, prompt)
    asked = prompt or caption_image(clip.first_frame, settings, reporter)
    said = f"is asked for: {asked}" if asked else "is asked without a prompt, which weakens it; --prompt TEXT gives one"
    reporter.note(f"{baseline.facts.name} {said}")
    frames = _generate_frames(baseline, clip, settings.model_copy(update={"prompt": asked}), reporter)
    write_video(baseline.output, replace(clip.video, frames=frames), source_clip=clip.video)
    return read_video(baseline.output)


def _build_settings(facts: ModelRecord, prompt: str) -> EditSettings:
    """Those of `edit`, VACE's published sampling, and no trigger word, as nothing was taught."""
    given = {"source": "source", "first_frame": "first_frame"}
    return resolve_settings({"input": given, "model": facts.name, "prompt": prompt, "trigger": ""}, list_published_overrides())


def _generate_frames(baseline: VaceBaseline, clip: Clip, settings: EditSettings, reporter: Reporter) -> torch.Tensor:
    device = pick_device()
    family = load_vace(baseline.facts, baseline.source, device, pick_compute_dtype(device))
    prepared = prepare_clip(family, clip, settings)

    def on_step(done: int, total: int, doing: str) -> None:
        reporter.step("VACE", done, total, doing)

    def draw(how: EditSettings) -> torch.Tensor:
        return generate_clip(family, prepared, how, how.seed, on_step, reporter.note)

    pixels = retry_with_less_memory(family, settings, draw, reporter.note)
    return torch.stack(list(composite_output(clip, prepared, pixels, settings)))
