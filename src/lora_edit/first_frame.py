"""The edited first frame, made by a picture editor: taken from the clip without loss, edited, and brought back to the clip's pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lora_edit.compositing.blend import composite_frame
from lora_edit.compositing.color import match_colour
from lora_edit.compositing.settings import CompositingSettings
from lora_edit.devices import pick_compute_dtype, pick_device
from lora_edit.errors import InputError, MaskError, VideoError
from lora_edit.loras.header import read_header
from lora_edit.masks.boxes import KeyframeBox, mask_from_boxes
from lora_edit.masks.change_detection import check_first_frame
from lora_edit.masks.files import read_mask
from lora_edit.masks.shapes import feather_frame
from lora_edit.models.image_editors.pipeline import edit_image, load_editor
from lora_edit.models.image_editors.registry import EDITORS, find_editor
from lora_edit.reporting import Reporter
from lora_edit.seeds import create_generator
from lora_edit.types import EditMask, Size, Video
from lora_edit.video.read import read_image, read_video
from lora_edit.video.resize import resize_frames
from lora_edit.video.settings import VideoSettings
from lora_edit.video.sheet import save_image


@dataclass(frozen=True)
class FrameEdit:
    """What a person asks for: frame `start` of `source`, edited as told, inside the mask or the boxes where these are given, with what
    a `reference` picture shows."""

    source: Path
    instruction: str
    output: Path
    model: str
    mask: Path | None = None
    boxes: Sequence[KeyframeBox] = ()
    start: int = 0
    loras: Sequence[tuple[Path, float]] = ()
    seed: int = 0
    overwrite: bool = False
    reference: Path | None = None


def edit_first_frame(request: FrameEdit, reporter: Reporter) -> Path:
    """Write the edited frame as PNG at the clip's size; returns its path.

    Outside a given mask every pixel is the source's. Everything is checked before the editor is read. Raises `InputError` kin.
    """
    _check_request(request)
    editor, folder = find_editor(request.model)
    if editor.inpaints and not (request.mask or request.boxes):
        raise MaskError(f"{editor.name} paints where a mask is white; give --box X,Y,W,H or --mask IMAGE, or choose another --model")
    if request.reference and editor.reference_arguments is None:
        able = " or ".join(each.name for each in EDITORS if each.reference_arguments)
        raise InputError(f"{editor.name} takes no reference picture; leave out --reference, or choose --model {able}")
    for file, _ in request.loras:
        read_header(file)
    reference = read_image(request.reference) if request.reference else None
    video = read_video(request.source, VideoSettings(start=request.start, frames=1))
    region = _read_region(request, video)
    for note in (f"{editor.name} ({editor.repo}): {editor.license}", *(region.notes if region else ())):
        reporter.note(note)
    if request.reference and not request.loras:
        reporter.note(f"{editor.name} alone was not taught what a reference is for; ACE++'s subject LoRA was (--lora; docs/first-frame.md)")
    source, hole = video.frames[0], None if region is None else region.frames[0]
    device = pick_device()
    pipeline = load_editor(editor, folder, request.loras, device, pick_compute_dtype(device))
    made = edit_image(
        pipeline,
        editor,
        source,
        request.instruction,
        hole,
        create_generator(request.seed, "edit-frame"),
        lambda done, total: reporter.step("edit-frame", done, total),
        reference,
    )
    edited, notes = composite_edited_frame(source, made, hole)
    for note in notes:
        reporter.note(note)
    save_image(request.output, edited)
    return request.output


def composite_edited_frame(
    source: torch.Tensor, output: torch.Tensor, edit_mask: torch.Tensor | None
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """The editor's picture `[h, w, 3]` at the size of `source` `[H, W, 3]`, all uint8, and remarks on what it changed.

    With a `hole` `[H, W]` bool, colours are matched where the answer is known, and outside the hole the source's pixels return.
    """
    edited = resize_frames(output[None], Size(source.shape[0], source.shape[1]))
    if edit_mask is None:
        return edited[0], ("the whole picture is the editor's; give --box or --mask to keep the source's pixels around the edit",)
    edited = match_colour(edited, source[None], ~edit_mask[None])
    notes = check_first_frame(source, edited[0], edit_mask)
    radius = round(CompositingSettings().feather * min(source.shape[:2]))
    return composite_frame(source, edited[0], feather_frame(edit_mask, radius)), notes


def _check_request(request: FrameEdit) -> None:
    if not request.instruction.strip():
        raise InputError('--instruction is empty; say what to change, for instance --instruction "make the coat red"')
    if request.mask and request.boxes:
        raise MaskError("both --mask and --box are given; give one of them")
    if request.output.suffix.lower() != ".png":
        raise VideoError(f"{request.output}: the frame is written without loss; end the name in .png")
    if request.output.exists() and (not request.output.is_file() or not request.overwrite):
        raise VideoError(f"{request.output}: exists; give another --output, or --overwrite to replace a picture")
    for path in (request.source, request.mask, request.reference):
        if path is not None and path.exists() and request.output.exists() and request.output.samefile(path):
            raise VideoError(f"{request.output}: is part of the input; choose another --output")


def _read_region(request: FrameEdit, video: Video) -> EditMask | None:
    if request.mask is not None:
        return read_mask(request.mask, 1, video.size, request.start)
    return mask_from_boxes(list(request.boxes), 1, video.size) if request.boxes else None
