"""Editing the first frame with an image editor: read the frame losslessly, edit it, and composite the result at the size of the clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from lora_edit.config import KeyBox
from lora_edit.errors import InputError, MaskError, VideoError
from lora_edit.loras.header import read_header
from lora_edit.models.image_editors.registry import EDITORS, ImageEditor, find_editor
from lora_edit.provenance.certificate import load_credentials
from lora_edit.provenance.claim import EditClaim, claim_file
from lora_edit.provenance.content_hash import hash_file, hash_text
from lora_edit.provenance.settings import ProvenanceSettings
from lora_edit.provenance.signing import ResultSigner
from lora_edit.video.paths import protect_inputs

if TYPE_CHECKING:
    import torch

    from lora_edit.reporting import Reporter
    from lora_edit.types import EditMask, Video


@dataclass(frozen=True)
class FrameEdit:
    """Request to edit frame `start` of `source` by `instruction`, inside `mask` or `boxes` if these are given.

    `reference` is an image of what to put into the mask; `loras` are files and their strengths. With `sign`, the image carries a manifest.
    """

    source: Path
    instruction: str
    output: Path
    model: str
    mask: Path | None = None
    boxes: Sequence[KeyBox] = ()
    start: int = 0
    loras: Sequence[tuple[Path, float]] = ()
    seed: int = 0
    overwrite: bool = False
    reference: Path | None = None
    sign: bool = True


def check_frame_edit(request: FrameEdit) -> tuple[ImageEditor, Path]:
    """Check everything that needs neither the frame nor the model, without loading a heavy library.

    Returns the editor and the folder of its checkpoint. Raises subclasses of `InputError`.
    """
    _check_paths(request)
    editor, folder = find_editor(request.model)
    if editor.inpaints and not (request.mask or request.boxes):
        raise MaskError(f"{editor.name} paints where a mask is white; give --box X,Y,W,H or --mask IMAGE, or choose another --model")
    if request.reference and editor.reference_arguments is None:
        names = " or ".join(each.name for each in EDITORS if each.reference_arguments)
        raise InputError(f"{editor.name} takes no reference image; leave out --reference, or choose --model {names}")
    for file, _ in request.loras:
        read_header(file)
    return editor, folder


def edit_first_frame(request: FrameEdit, reporter: Reporter) -> Path:
    """Write the edited frame as PNG at the size of the clip. Returns its path.

    Outside of a mask all pixels are those of the source. All checks precede loading the editor. Raises subclasses of `InputError`.
    """
    from lora_edit.devices import pick_compute_dtype, pick_device
    from lora_edit.models.image_editors.pipeline import edit_image, load_editor
    from lora_edit.seeds import create_generator
    from lora_edit.video.read import read_image, read_video
    from lora_edit.video.settings import VideoSettings
    from lora_edit.video.sheet import save_image

    editor, folder = check_frame_edit(request)
    credentials = load_credentials(ProvenanceSettings()) if request.sign else None
    reference = read_image(request.reference) if request.reference else None
    video = read_video(request.source, VideoSettings(start=request.start, frames=1))
    region = _read_region(request, video)
    for note in (f"{editor.name} ({editor.repo}): {editor.license}", *(region.notes if region else ())):
        reporter.note(note)
    if request.reference and not request.loras:
        reporter.note(
            f"{editor.name} alone was not trained with reference images; the subject LoRA of ACE++ was (--lora; docs/first-frame.md)"
        )
    source, edit_mask = video.frames[0], None if region is None else region.frames[0]
    device = pick_device()
    pipeline = load_editor(editor, folder, request.loras, device, pick_compute_dtype(device))
    output = edit_image(
        pipeline,
        editor,
        source,
        request.instruction,
        edit_mask,
        create_generator(request.seed, "edit-frame"),
        lambda done, total: reporter.step("edit-frame", done, total),
        reference,
    )
    edited, notes = composite_edited_frame(source, output, edit_mask)
    for note in notes:
        reporter.note(note)
    signer = ResultSigner(_build_claim(request, editor, edited, region), credentials) if credentials else None
    save_image(request.output, edited, signer.sign_png if signer else None)
    return request.output


def _build_claim(request: FrameEdit, editor: ImageEditor, edited: torch.Tensor, region: EditMask | None) -> EditClaim:
    """Build the claim of an edited frame `[H, W, 3]`; without a `region` the whole of it is edited."""
    from lora_edit.result_claim import describe_region
    from lora_edit.types import EditMask

    files = [claim_file("source", request.source)]
    if request.reference:
        files.append(claim_file("reference image", request.reference, name="reference image"))
    return EditClaim(
        version=version("lora-edit"),
        files=tuple(each for each in files if each is not None),
        region=describe_region(region or EditMask(edited.new_ones((1, *edited.shape[:2])).bool())),
        model={"name": editor.name, "license": editor.license},
        settings_sha256=hash_text(repr((editor.name, request.start, request.seed))),
        seed=request.seed,
        prompt_sha256=hash_text(request.instruction),
        loras=tuple({"role": "other", "sha256": hash_file(file), "strength": strength} for file, strength in request.loras),
        first_source_frame=request.start,
        keeps_outside=region is not None,
    )


def composite_edited_frame(
    source: torch.Tensor, output: torch.Tensor, edit_mask: torch.Tensor | None
) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Resize the editor's `output` `[h, w, 3]` to `source` `[H, W, 3]` and composite both, all uint8. Returns the frame and notes.

    With an `edit_mask` `[H, W]` bool, colours are matched to the source outside of the mask, and the source's pixels replace the output
    there. The notes describe what the editor changed outside of the mask.
    """
    from lora_edit.compositing.blend import composite_frame
    from lora_edit.compositing.color import match_colour
    from lora_edit.compositing.settings import CompositingSettings
    from lora_edit.masks.change_detection import check_first_frame
    from lora_edit.masks.shapes import feather_frame
    from lora_edit.types import Size
    from lora_edit.video.resize import resize_frames

    edited = resize_frames(output[None], Size(source.shape[0], source.shape[1]))
    if edit_mask is None:
        return edited[0], ("the editor's output replaces the whole frame; give --box or --mask to keep the source around the edit",)
    edited = match_colour(edited, source[None], ~edit_mask[None])
    notes = check_first_frame(source, edited[0], edit_mask)
    radius = round(CompositingSettings().feather * min(source.shape[:2]))
    return composite_frame(source, edited[0], feather_frame(edit_mask, radius)), notes


def _check_paths(request: FrameEdit) -> None:
    if not request.instruction.strip():
        raise InputError('--instruction is empty; describe the change, for instance --instruction "make the coat red"')
    if request.mask and request.boxes:
        raise MaskError("both --mask and --box are given; give one of them")
    if request.output.suffix.lower() != ".png":
        raise VideoError(f"{request.output}: the frame is written losslessly; end the name in .png")
    if request.output.exists() and (not request.output.is_file() or not request.overwrite):
        raise VideoError(f"{request.output}: exists; give another --output, or --overwrite to replace an image")
    protect_inputs(request.output, [path for path in (request.source, request.mask, request.reference) if path is not None])


def _read_region(request: FrameEdit, video: Video) -> EditMask | None:
    """Read the mask or draw the boxes. Returns None without either."""
    from lora_edit.masks.boxes import KeyframeBox, mask_from_boxes
    from lora_edit.masks.files import read_mask
    from lora_edit.types import Box

    if request.mask is not None:
        return read_mask(request.mask, 1, video.size, request.start)
    boxes = [KeyframeBox(Box(each.x, each.y, each.width, each.height), each.frame, each.object) for each in request.boxes]
    return mask_from_boxes(boxes, 1, video.size) if boxes else None
