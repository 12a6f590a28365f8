"""Conversion between YUV and RGB without a colour shift: the file's matrix and range, and swscale's exact arithmetic.

swscale's default arithmetic darkens 4:2:0 frames by more than one level of 255, which would change pixels outside the edit.
"""

from __future__ import annotations

import numpy as np
from av import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation

from lora_edit.types import ColourTags, Size
from lora_edit.video.hdr import HDR_TRANSFERS, to_sdr
from lora_edit.video.libav import run_filters

EXACT_INTERPOLATION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
_EXACT_FLAGS = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"  # the same for FFmpeg's scale filter
SITING_LEFT = "left"  # the default of H.264 files that state no chroma siting
SITING_CENTER = "center"  # swscale's default where the decoder states none, as for VP9
BT709 = 1  # ITU-T H.273 code point, shared by matrix, primaries and transfer
BT601 = 6
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
_FILTER_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}

BT709_TAGS = ColourTags(BT709, BT709, BT709, BT709, full=False)
"""Tags of BT.709, limited range."""


def read_colour_tags(frame: VideoFrame) -> ColourTags:
    """Read the tags with which the pixels of `frame_to_array` are stored: those of the file; BT.709 for tone-mapped and RGB files."""
    if is_hdr(frame):
        return BT709_TAGS
    primaries, transfer = int(frame.color_primaries), int(frame.color_trc)
    if is_rgb(frame):
        return ColourTags(BT709, _replace_unspecified(primaries), _replace_unspecified(transfer), BT709, full=False)
    return ColourTags(int(frame.colorspace), primaries, transfer, _get_matrix_code(frame), _is_full_range(frame))


def frame_to_array(frame: VideoFrame) -> np.ndarray:
    """Convert a decoded frame to `[H, W, 3]` uint8, or `[H, W, 4]` where its format has alpha. HDR is tone-mapped to BT.709."""
    if is_hdr(frame):
        return to_sdr(_reformat(frame, "rgb48le"), int(frame.color_trc), int(frame.color_primaries))
    return _reformat(frame, "rgba" if has_alpha(frame) else "rgb24")


def array_to_frame(array: np.ndarray, pix_fmt: str, tags: ColourTags = BT709_TAGS, siting: str = SITING_LEFT) -> VideoFrame:
    """Convert `[H, W, 3 or 4]` uint8 to a frame of `pix_fmt`.

    YUV is stored by `tags`, with subsampled chroma at `siting` (`chroma_siting.py`).
    """
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgba" if array.shape[-1] == 4 else "rgb24")
    if "yuv" not in pix_fmt:
        return frame.reformat(format=pix_fmt, interpolation=EXACT_INTERPOLATION)
    out_range = "full" if tags.full else "limited"
    options = (
        f"{_EXACT_FLAGS}:in_range=full:out_range={out_range}:out_color_matrix={_FILTER_MATRICES[tags.read_as]}:out_chroma_loc={siting}"
    )
    converted = run_filters(frame, [("scale", options), ("format", pix_fmt)])
    converted.color_range = ColorRange.JPEG if tags.full else ColorRange.MPEG
    converted.colorspace = tags.matrix
    converted.color_primaries, converted.color_trc = tags.primaries, tags.transfer
    return converted


def has_alpha(frame: VideoFrame) -> bool:
    """Whether the frame's pixel format has an alpha channel."""
    return frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components)


def is_rgb(frame: VideoFrame) -> bool:
    """Whether the frame is stored as RGB."""
    return frame.format.is_rgb or frame.format.name == "pal8"


def is_hdr(frame: VideoFrame) -> bool:
    """Whether the frame uses an HDR transfer function (PQ or HLG)."""
    return int(frame.color_trc) in HDR_TRANSFERS


def guess_matrix_code(size: Size) -> int:
    """Guess the matrix as players do where a file states none: the H.273 code of BT.709 for HD, of BT.601 for smaller sizes."""
    return BT709 if size.width >= 1280 or size.height > 576 else BT601


def has_known_matrix(frame: VideoFrame) -> bool:
    """Whether `frame_to_array` can convert the frame: RGB, or YUV with a supported matrix or none stated."""
    return is_rgb(frame) or int(frame.colorspace) in {*_MATRICES, UNSPECIFIED}


def _reformat(frame: VideoFrame, pix_fmt: str) -> np.ndarray:
    if is_rgb(frame):
        return frame.reformat(format=pix_fmt, interpolation=EXACT_INTERPOLATION).to_ndarray()
    converted = frame.reformat(
        format=pix_fmt,
        src_colorspace=_MATRICES[_get_matrix_code(frame)],
        src_color_range=ColorRange.JPEG if _is_full_range(frame) else ColorRange.MPEG,
        dst_color_range=ColorRange.JPEG,
        interpolation=EXACT_INTERPOLATION,
    )
    return converted.to_ndarray()


def _is_full_range(frame: VideoFrame) -> bool:
    return frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")


def _replace_unspecified(code: int) -> int:
    return BT709 if code in (0, UNSPECIFIED) else code


def _get_matrix_code(frame: VideoFrame) -> int:
    """H.273 code of the matrix with which the frame's samples are read."""
    if frame.colorspace in _MATRICES:
        return int(frame.colorspace)
    return guess_matrix_code(Size(frame.height, frame.width))
