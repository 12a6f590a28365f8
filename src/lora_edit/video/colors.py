"""YUV <-> RGB without a shift: the right matrix, the right range, and swscale's exact arithmetic.

swscale's default arithmetic darkens 4:2:0 frames by more than a level of 255, which would break the promise of untouched pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation

EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
BT709 = 1  # ITU-T H.273 code point, shared by matrix, primaries and transfer
UNSPECIFIED = 2

# H.273 matrix code -> swscale's matrix.
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
    10: Colorspace.BT2020,
}


@dataclass(frozen=True)
class Colours:
    """How a YUV file stores colour: H.273 codes of matrix, primaries and transfer, the matrix that its samples are read with, and
    whether they use the full range."""

    matrix: int
    primaries: int
    transfer: int
    read_as: Colorspace
    full: bool


HD = Colours(BT709, BT709, BT709, Colorspace.ITU709, full=False)
"""BT.709, limited range."""


def colours_of(frame: VideoFrame) -> Colours:
    """How the file that a decoded YUV frame comes from stores colour."""
    return Colours(int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc), _matrix(frame), _is_full(frame))


def frame_to_array(frame: VideoFrame) -> np.ndarray:
    """A decoded frame as `[H, W, 3]` uint8, or `[H, W, 4]` where its format has alpha."""
    target = "rgba" if has_alpha(frame) else "rgb24"
    if frame.format.is_rgb or frame.format.name == "pal8":
        return frame.reformat(format=target, interpolation=EXACT).to_ndarray()
    converted = frame.reformat(
        format=target,
        src_colorspace=_matrix(frame),
        src_color_range=ColorRange.JPEG if _is_full(frame) else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=EXACT,
    )
    return converted.to_ndarray()


def array_to_frame(array: np.ndarray, pix_fmt: str, colours: Colours = HD) -> VideoFrame:
    """`[H, W, 3 or 4]` uint8 as a frame of `pix_fmt`; YUV is stored by `colours`."""
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgba" if array.shape[-1] == 4 else "rgb24")
    if "yuv" not in pix_fmt:
        return frame.reformat(format=pix_fmt, interpolation=EXACT)
    converted = frame.reformat(
        format=pix_fmt,
        dst_colorspace=colours.read_as,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG if colours.full else ColorRange.MPEG,
        interpolation=EXACT,
    )
    converted.colorspace = colours.matrix
    converted.color_primaries, converted.color_trc = colours.primaries, colours.transfer
    return converted


def has_alpha(frame: VideoFrame) -> bool:
    """Whether the frame's pixel format carries transparency."""
    return frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)


def _is_full(frame: VideoFrame) -> bool:
    return frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def _matrix(frame: VideoFrame) -> Colorspace:
    if frame.colorspace in _MATRICES:
        return _MATRICES[frame.colorspace]
    # Untagged: players take BT.709 for HD and BT.601 for anything smaller.
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601
