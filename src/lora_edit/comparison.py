"""What a result is compared with: the clip that VACE makes of the same edit, without any training (the paper's table 2)."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lora_edit.captions import caption_of
from lora_edit.config import EditSettings, resolve
from lora_edit.devices import compute_dtype, pick_device
from lora_edit.errors import VideoError
from lora_edit.inputs import Clip
from lora_edit.masks.check import fit_first_frame
from lora_edit.memory import with_less_memory
from lora_edit.models.catalog.facts import ModelFacts
from lora_edit.models.catalog.vace import check_vace, published
from lora_edit.models.vace import load_vace
from lora_edit.reporting import Reporter
from lora_edit.samples import draw_clip, finish, prepare
from lora_edit.types import EditMask, Video
from lora_edit.video.read import read_video
from lora_edit.video.write import write_video


@dataclass(frozen=True)
class Rival:
    """A VACE that was found, and where its clip is going to lie."""

    facts: ModelFacts
    source: str
    output: Path


def find_rival(called: str, result: Path) -> Rival:
    """The VACE of a name, folder or repository, checked without its weights, and a free place beside `result` for its clip.

    Lossless frames for a result in a folder, an .mp4 like that of `edit` for any other. Raises `ModelError` for what is no whole VACE,
    `VideoError` for a clip that is there already and a folder that cannot be written to.
    """
    facts, source = check_vace(called)
    result = Path(os.path.abspath(result))
    output = result.with_name(f"{result.name}-vace") if result.is_dir() else result.with_name(f"{result.stem}-vace.mp4")
    if output.exists():
        raise VideoError(f"{output}: exists already; measure it with `lora-edit evaluate {output}`, or move it for --vace to make it anew")
    if not os.access(output.parent, os.W_OK):
        raise VideoError(f"{output}: VACE's clip goes here, and the folder cannot be written to; copy the result to one that can")
    return Rival(facts, source, output)


def edit_of(source: Video, mask: EditMask, first_frame: torch.Tensor) -> Clip:
    """What VACE is handed: the clip, the region as it is, and the edited first frame `[H, W, 3]` uint8, brought to the clip's size.

    Raises `MaskError` when the picture is of another shape.
    """
    picture, note = fit_first_frame(first_frame, source.size)
    return Clip(source, mask, picture, {}, {}, (note,) if note else ())


def make_rival(rival: Rival, clip: Clip, prompt: str, reporter: Reporter) -> Video:
    """Draw VACE's clip with its published settings, return the source's pixels to it as `edit` does, write it, and read it back.

    Without a prompt it is asked in the captioner's words for the edited first frame, where that is on this machine. Raises `ModelError`.
    """
    settings = _settings(rival.facts, prompt)
    asked = prompt or caption_of(clip.first_frame, settings, reporter)
    said = f"is asked for: {asked}" if asked else "is asked without a prompt, which weakens it; --prompt TEXT gives one"
    reporter.note(f"{rival.facts.name} {said}")
    frames = _draw(rival, clip, settings.model_copy(update={"prompt": asked}), reporter)
    write_video(rival.output, replace(clip.video, frames=frames), like=clip.video)
    return read_video(rival.output)


def _settings(facts: ModelFacts, prompt: str) -> EditSettings:
    """Those of `edit`, VACE's published sampling, and no trigger word, as nothing was taught."""
    given = {"source": "source", "first_frame": "first_frame"}
    return resolve({"input": given, "model": facts.name, "prompt": prompt, "trigger": ""}, published())


def _draw(rival: Rival, clip: Clip, settings: EditSettings, reporter: Reporter) -> torch.Tensor:
    device = pick_device()
    family = load_vace(rival.facts, rival.source, device, compute_dtype(device))
    prepared = prepare(family, clip, settings)

    def on_step(done: int, total: int, doing: str) -> None:
        reporter.step("VACE", done, total, doing)

    def draw(how: EditSettings) -> torch.Tensor:
        return draw_clip(family, prepared, how, how.seed, on_step, reporter.note)

    pixels = with_less_memory(family, settings, draw, reporter.note)
    return torch.stack(list(finish(clip, prepared, pixels, settings)))
