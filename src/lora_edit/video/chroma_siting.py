"""Chroma siting: the position of the chroma samples of 4:2:0 and 4:2:2 relative to the pixels.

swscale places colours by the decoder's siting, so samples copied to a file of another siting appear shifted by half a pixel. PyAV does not
expose the siting, so it is detected by trying all of them.
"""

from __future__ import annotations

import numpy as np
from av import VideoFrame

from lora_edit.video.colors import frame_to_array
from lora_edit.video.libav import run_filters

# By FFmpeg's names: (horizontal, vertical) position of a chroma sample among its pixels; -1 is the first pixel, 0 the middle.
_SAMPLE_OFFSETS = {"left": (-1, 0), "center": (0, 0), "topleft": (-1, -1), "top": (0, -1), "bottomleft": (-1, 1), "bottom": (0, 1)}
CHROMA_SITING_CODES = {"left": 0, "center": 1, "topleft": 2, "top": 3, "bottomleft": 4, "bottom": 5}
"""Values of H.264's `chroma_sample_loc_type`."""


def detect_chroma_siting(frame: VideoFrame) -> str | None:
    """Detect the siting by which `frame_to_array` reads a decoded frame; None where H.264 has no code for it."""
    image = frame_to_array(frame)
    for name in _SAMPLE_OFFSETS:
        if np.array_equal(frame_to_array(set_chroma_siting(frame, name)), image):
            return name
    return None


def set_chroma_siting(frame: VideoFrame, siting: str) -> VideoFrame:
    """Tag the frame with another siting; its samples stay the same."""
    return run_filters(frame, [("setparams", f"chroma_location={siting}")])


def turn_chroma_siting(siting: str | None, matrix: tuple[int, int, int, int]) -> str | None:
    """Compute the siting after the image is turned by the display matrix `matrix`; None where H.264 has no code for it."""
    if siting is None:
        return None
    a, b, c, d = matrix
    horizontal, vertical = _SAMPLE_OFFSETS[siting]
    offset = (a * horizontal + c * vertical, b * horizontal + d * vertical)
    return next((name for name, known_offset in _SAMPLE_OFFSETS.items() if known_offset == offset), None)
