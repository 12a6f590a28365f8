"""Where the colour samples of 4:2:0 and 4:2:2 lie between the pixels.

Decoders tell swscale, and swscale places colours by it: samples that are copied to a file of another siting are shown half a pixel off.
PyAV does not say what the decoder told, so it is found by trying.
"""

from __future__ import annotations

import numpy as np
from av import VideoFrame

from lora_edit.video.colors import frame_to_array
from lora_edit.video.libav import run_filters

# FFmpeg's names: (horizontal, vertical) place of a sample among its pixels; -1 is the first one, 0 the middle.
_SAMPLE_OFFSETS = {"left": (-1, 0), "center": (0, 0), "topleft": (-1, -1), "top": (0, -1), "bottomleft": (-1, 1), "bottom": (0, 1)}
CHROMA_SITING_CODES = {"left": 0, "center": 1, "topleft": 2, "top": 3, "bottomleft": 4, "bottom": 5}
"""What `chroma_sample_loc_type` of H.264 says for each."""


def detect_chroma_siting(frame: VideoFrame) -> str | None:
    """The siting by which `frame_to_array` reads a decoded frame; None where it is none of those that H.264 can state."""
    shown = frame_to_array(frame)
    for name in _SAMPLE_OFFSETS:
        if np.array_equal(frame_to_array(set_chroma_siting(frame, name)), shown):
            return name
    return None


def set_chroma_siting(frame: VideoFrame, siting: str) -> VideoFrame:
    """The same samples, said to lie elsewhere."""
    return run_filters(frame, [("setparams", f"chroma_location={siting}")])


def turn_chroma_siting(siting: str | None, matrix: tuple[int, int, int, int]) -> str | None:
    """Where samples lie once the picture is turned by the display matrix `turn`; None where H.264 has no name for it."""
    if siting is None:
        return None
    a, b, c, d = matrix
    across, down = _SAMPLE_OFFSETS[siting]
    place = (a * across + c * down, b * across + d * down)
    return next((name for name, each in _SAMPLE_OFFSETS.items() if each == place), None)
