"""Reading and writing of mask files. Masks are stored losslessly only: a lossy codec moves their edges."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lora_edit.atomic_files import replace_folder
from lora_edit.errors import MaskError, VideoError
from lora_edit.types import BoolArray, EditMask, Size

THRESHOLD = 128
"""Luma from which a pixel is white."""

MID_GREY = (40, 215)
MID_GREY_SHARE = 0.02
"""Range of luma that counts as grey, and the share of such pixels above which a mask counts as grey."""


def read_mask(path: Path, num_frames: int, size: Size, start: int = 0, source_frames: int | None = None) -> EditMask:
    """Read an edit mask (white = edit) from a video, a folder of images in frame order, or one still image for all frames.

    A mask of exactly `num_frames` frames is used as it is. A longer one is taken to cover the whole source, which has `source_frames`
    frames where that is known, and its frames `start` to `start + num_frames - 1` are used. Raises `MaskError` when the mask is
    missing, empty or does not fit the clip.
    """
    frames, notes = _read_frames(path)
    mask_size = Size(frames.shape[1], frames.shape[2])
    if mask_size != size:
        raise MaskError(f"{path}: the mask is {mask_size} but the source is {size}; export the mask at the source's size")
    if source_frames not in (None, num_frames, len(frames)) and len(frames) not in (1, num_frames):
        notes = (
            *notes,
            f"the mask has {len(frames)} frames, the range {num_frames} and the source {source_frames}; "
            f"the mask's frames from {start} on were used",
        )
    frames = _select_frame_range(path, frames, num_frames, start, is_whole_source=source_frames == num_frames)
    luma = torch.stack([_compute_luma(frame) for frame in frames])
    white = luma >= THRESHOLD
    if len(white) == 1 and num_frames > 1:
        white = white.expand(num_frames, -1, -1).clone()
    return EditMask(white, (*notes, *_check_grey_pixels(luma), *_check_content(path, white, int(luma.max()))))


def _read_frames(path: Path) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Read frames `[T, H, W, 3]` uint8 with transparent pixels as black, and a note where transparency alone defines the mask."""
    # Imported here so that decoding loads only when a mask file is read.
    from lora_edit.video.read import read_video

    if not path.exists():
        raise MaskError(f"{path}: no such mask; give a video, a folder of images or one image (white = edit)")
    video = read_video(path)
    if video.alpha is None:
        return video.frames, ()
    opaque = video.alpha >= THRESHOLD
    luma = torch.stack([_compute_luma(frame) for frame in video.frames])[opaque]
    grey_share = float(((luma >= MID_GREY[0]) & (luma <= MID_GREY[1])).float().mean()) if len(luma) else 0.0
    if grey_share > MID_GREY_SHARE:  # a cut-out: the object itself on a transparent background
        note = "the mask is a picture with transparent parts; its opaque pixels are edited, whatever their colours"
        return video.alpha[..., None].expand(-1, -1, -1, 3), (note,)
    return (video.frames.int() * video.alpha[..., None].int() // 255).to(torch.uint8), ()


def _select_frame_range(path: Path, frames: torch.Tensor, num_frames: int, start: int, is_whole_source: bool) -> torch.Tensor:
    if len(frames) in (1, num_frames):
        return frames
    if not is_whole_source and len(frames) >= start + num_frames:
        return frames[start : start + num_frames]
    begin = f" from source frame {start}" if start else ""
    raise MaskError(
        f"{path}: the mask has {len(frames)} frames but the clip has {num_frames}{begin}; "
        "give one mask frame per frame of the clip or of the whole source, or one still image"
    )


def _compute_luma(frame: torch.Tensor) -> torch.Tensor:
    """Compute luma `[H, W]` uint8 of a uint8 frame `[H, W, 3]` (BT.601 weights in 1/256, which sum to 256)."""
    red, green, blue = frame.to(torch.int32).unbind(-1)
    return ((77 * red + 150 * green + 29 * blue) >> 8).to(torch.uint8)


def _check_grey_pixels(luma: torch.Tensor) -> tuple[str, ...]:
    share = float(((luma >= MID_GREY[0]) & (luma <= MID_GREY[1])).float().mean())
    if share <= MID_GREY_SHARE:
        return ()
    return (f"{share:.0%} of the mask's pixels are grey; they were cut at half brightness; save the mask as black-and-white PNG",)


def _check_content(path: Path, edit_mask: torch.Tensor, brightest: int) -> tuple[str, ...]:
    """Return notes on the mask's coverage; `brightest` is its highest luma. Raises `MaskError` for an empty mask."""
    covered = edit_mask.flatten(1).any(1)
    if not covered.any() and brightest > 0:
        raise MaskError(
            f"{path}: the mask's brightest pixel is {brightest} of 255, but white (255) marks the pixels to edit; "
            "save labels such as 0 and 1, or a palette of objects, as black and white"
        )
    if not covered.any():
        raise MaskError(
            f"{path}: the mask has no white pixel; white marks the pixels to edit, so invert the mask if it uses black for them"
        )
    if edit_mask.all():
        return ("whole-frame edit: nothing but the first frame is preserved",)
    covered_frames = torch.nonzero(covered).flatten().tolist()
    inner_gaps = [frame for frame in range(covered_frames[0], covered_frames[-1]) if not covered[frame]]
    outer_gaps = [*range(covered_frames[0]), *range(covered_frames[-1] + 1, len(covered))]
    notes = []
    if inner_gaps:
        notes.append(f"the mask is empty in frames {format_ranges(inner_gaps)}; with --mask-shape box the region is bridged across them")
    if outer_gaps:
        notes.append(
            f"the mask is empty in frames {format_ranges(outer_gaps)}; the source is kept there, even if the object is still in sight"
        )
    return tuple(notes)


def format_ranges(numbers: Sequence[int]) -> str:
    """Format numbers as ranges: `3-5, 8` for 3, 4, 5, 8."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [f"{first}" if first == last else f"{first}-{last}" for first, last in runs[:6]]
    return ", ".join(texts) + (", ..." if len(runs) > 6 else "")


def save_mask(folder: Path, mask: EditMask) -> None:
    """Write one 1-bit PNG per frame, named `00000.png` and up. They replace the frames of an earlier mask, all at once.

    Raises `MaskError` when the folder holds other files, and `OSError` where writing fails, as on a full disk.
    """
    names = [f"{index:05d}.png" for index in range(mask.num_frames)]
    if folder.is_dir() and (others := set(folder.iterdir()) - set(_list_frame_files(folder))):
        raise MaskError(f"{folder}: holds files that are not mask frames, such as {min(others).name}; choose an empty or new folder")
    with replace_folder(folder) as partial:
        for name, frame in zip(names, mask.frames, strict=True):
            Image.fromarray(frame.numpy()).save(partial / name)


def load_mask(folder: Path) -> EditMask:
    """Load the mask that `save_mask` wrote (its frames, not its notes). Raises `MaskError` when it is missing or damaged."""
    files = _list_frame_files(folder)
    if not files or [int(file.stem) for file in files] != list(range(len(files))):
        raise MaskError(f"{folder}: no complete mask (00000.png and on); make the mask again")
    try:
        frames = [_read_frame(file) for file in files]
    except VideoError as error:
        raise MaskError(f"{folder}: a mask frame cannot be read ({error}); make the mask again") from error
    if len({frame.shape for frame in frames}) > 1:
        raise MaskError(f"{folder}: mask frames of different sizes; make the mask again")
    return EditMask(torch.from_numpy(np.stack(frames)))


def _read_frame(file: Path) -> BoolArray:
    from lora_edit.video.images import open_image

    with open_image(file) as image:
        return np.array(image.convert("1"))


def _list_frame_files(folder: Path) -> list[Path]:
    return sorted((file for file in folder.glob("*.png") if file.stem.isdecimal()), key=lambda file: int(file.stem))
