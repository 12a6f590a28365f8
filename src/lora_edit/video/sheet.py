"""Contact sheets and side-by-side clips for visual comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from lora_edit.atomic_files import write_bytes
from lora_edit.errors import VideoError
from lora_edit.types import Size, mask_bounds
from lora_edit.video.png_frames import encode_png
from lora_edit.video.resize import resize_frames

_LABEL_HEIGHT = 24
_GAP = 4
_BACKGROUND = 255


def build_contact_sheet(rows: Sequence[torch.Tensor], labels: Sequence[str], columns: int = 8, cell_height: int = 160) -> torch.Tensor:
    """Build a contact sheet `[H, W, 3]` uint8 with evenly spaced frames of each clip in a labelled row.

    Each of `rows` is `[T, H, W, 3]` uint8. First and last frame are always included; a clip with fewer frames fills fewer cells.
    """
    assert len(rows) == len(labels) and rows and columns >= 1
    strips = [_build_strip(frames, columns, cell_height) for frames in rows]
    width = max(strip.shape[1] for strip in strips)
    parts = [
        part for strip, label in zip(strips, labels, strict=True) for part in (_draw_caption(label, width), _pad_to_width(strip, width))
    ]
    return torch.from_numpy(np.concatenate(parts))


def stack_sheets(sheets: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stack sheets `[H, W, 3]` uint8 vertically and pad the narrower ones."""
    width = max(sheet.shape[1] for sheet in sheets)
    return torch.from_numpy(np.concatenate([_pad_to_width(sheet.numpy(), width) for sheet in sheets]))


def select_evenly_spaced(count: int, columns: int) -> list[int]:
    """Select at most `columns` evenly spaced indices of `count` frames, including first and last."""
    return np.linspace(0, count - 1, min(columns, count)).round().astype(int).tolist()


def extract_around_region(frames: torch.Tensor, region: torch.Tensor, numbers: Sequence[int], margin: float = 0.3) -> torch.Tensor:
    """Extract crops `[n, h, w, 3]` around the region `[T, H, W]` bool from the frames `numbers` of `frames` `[T, H, W, 3]`.

    All crops have one size and follow the region; where it is empty, the previous crop's position is used.
    """
    height, width = region.shape[1:]
    boxes = {number: bounds for number in numbers if (bounds := mask_bounds(region[number])) is not None}
    if not boxes:
        return frames[list(numbers)]
    crop_height = min(height, round(max(bottom - top for _, top, _, bottom in boxes.values()) * (1 + margin)) + 2)
    crop_width = min(width, round(max(right - left for left, _, right, _ in boxes.values()) * (1 + margin)) + 2)
    crops, box = [], next(iter(boxes.values()))
    for number in numbers:
        box = boxes.get(number, box)
        left = min(max((box[0] + box[2] - crop_width) // 2, 0), width - crop_width)
        top = min(max((box[1] + box[3] - crop_height) // 2, 0), height - crop_height)
        crops.append(frames[number, top : top + crop_height, left : left + crop_width])
    return torch.stack(crops)


def join_side_by_side(left: torch.Tensor, right: torch.Tensor, max_width: int | None = None) -> torch.Tensor:
    """Join two clips `[T, H, W, 3]` uint8 side by side, `right` resized to the height of `left`.

    Where that is wider than `max_width`, they are stacked vertically, at half size if needed. Raises `VideoError` when their lengths
    differ.
    """
    if len(left) != len(right):
        raise VideoError(f"clips of {len(left)} and {len(right)} frames cannot be joined side by side; give clips of equal length")
    height, width = left.shape[1], max(1, round(right.shape[2] * left.shape[1] / right.shape[1]))
    right = resize_frames(right, Size(height, width))
    if max_width is None or left.shape[2] + width <= max_width:
        return torch.cat([left, right], dim=2)
    if 2 * height > max_width:
        half = Size(height // 2, left.shape[2] // 2)
        left, right = resize_frames(left, half), resize_frames(right, half)
    return torch.cat([left, right], dim=1)


def save_image(path: Path, image: torch.Tensor, sign: Callable[[bytes, str], bytes] | None = None) -> None:
    """Write an image `[H, W, 3]` uint8 as a PNG file and replace an older one. Raises `VideoError` when that fails.

    `sign` receives the encoded image and the file's name, and returns the bytes to write.
    """
    if path.suffix.lower() != ".png":
        raise VideoError(f"{path}: pictures are written as PNG; give a name that ends in .png")
    try:
        encoded = encode_png(image.contiguous().cpu().numpy())
        write_bytes(path, sign(encoded, path.name) if sign else encoded)
    except OSError as error:
        raise VideoError(f"{path}: cannot be written ({error.strerror}); choose a writable folder with free space") from error


def _build_strip(frames: torch.Tensor, columns: int, cell_height: int) -> np.ndarray:
    indices = select_evenly_spaced(len(frames), columns)
    count = len(indices)
    width = max(1, round(frames.shape[2] * cell_height / frames.shape[1]))
    cells = resize_frames(frames[indices], Size(cell_height, width)).cpu().numpy()
    strip = np.full((cell_height + _GAP, count * (width + _GAP) - _GAP, 3), _BACKGROUND, dtype=np.uint8)
    for index, cell in enumerate(cells):
        left = index * (width + _GAP)
        strip[:cell_height, left : left + width] = cell
    return strip


def _pad_to_width(strip: np.ndarray, width: int) -> np.ndarray:
    return np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=_BACKGROUND)


def _draw_caption(label: str, width: int) -> np.ndarray:
    caption = np.full((_LABEL_HEIGHT, width, 3), _BACKGROUND, dtype=np.uint8)
    text = label.encode("ascii", "replace").decode("ascii")  # OpenCV's built-in font supports ASCII only
    return np.asarray(cv2.putText(caption, text, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA))
