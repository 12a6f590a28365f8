"""Division of long clips into windows of at most the model's frame count.

Every window starts with frame 0 of the clip, the edited first frame, so that the appearance does not drift in long clips. The autoencoder
encodes the first frame separately, which makes the jump from frame 0 to later frames cheap.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lora_edit.conditioning.sample import Hint


@dataclass(frozen=True)
class Window:
    """Source frame numbers `frames` of one window, padded by repeating the last.

    The `num_overlap_frames` frames after the first are given from an earlier window.
    """

    frames: tuple[int, ...]
    num_overlap_frames: int = 0


def round_up_frame_count(count: int, group: int = 4) -> int:
    """Round a frame count up to the next valid one, `group * k + 1`."""
    return -(-(count - 1) // group) * group + 1


def _pad_frames(frames: list[int], group: int) -> tuple[int, ...]:
    return tuple(frames + [frames[-1]] * (round_up_frame_count(len(frames), group) - len(frames)))


def plan_inference_windows(num_frames: int, max_frames: int, overlap: int, group: int = 4) -> list[Window]:
    """Plan windows that cover the clip in order; each after the first repeats `overlap` frames that an earlier window generates."""
    if num_frames <= max_frames:
        return [Window(_pad_frames(list(range(num_frames)), group))]
    windows, num_done = [Window(tuple(range(max_frames)))], max_frames
    overlap = min(overlap, max_frames - 1 - group)
    while num_done < num_frames:
        start = num_done - overlap
        frames = [0, *range(start, min(num_frames, start + max_frames - 1))]
        windows.append(Window(_pad_frames(frames, group), overlap))
        num_done = frames[-1] + 1
    return windows


def plan_training_windows(num_frames: int, max_frames: int, group: int = 4) -> list[Window]:
    """Plan overlapping windows over the clip, half a window apart (appendix C); the last one ends with the clip."""
    if num_frames <= max_frames:
        return [Window(_pad_frames(list(range(num_frames)), group))]
    step = max(1, (max_frames - 1) // 2)
    starts = [*range(1, num_frames - max_frames + 1, step), num_frames - max_frames + 1]
    return [Window((0, *range(start, start + max_frames - 1))) for start in sorted(set(starts))]


def select_window_hint(hint: Hint | None, window: Window) -> Hint | None:
    """Select a window's frames from a hint of the whole clip."""
    return hint and hint.select_frames(torch.tensor(window.frames))
