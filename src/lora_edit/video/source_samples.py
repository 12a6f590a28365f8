"""The source file's own YUV samples, where a result shows the source.

RGB frames lose a little on the way to video: colours are averaged and values rounded, 49 dB on a real clip in 4:2:0. Where the
result's pixel is the source's, the sample that the source file holds is written instead, so that nothing but the encoder touches it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np
from av import VideoFrame
from av.error import FFmpegError

from lora_edit.errors import VideoError
from lora_edit.types import Video
from lora_edit.video.chroma_siting import detect_chroma_siting, turn_chroma_siting
from lora_edit.video.colors import SITING_LEFT, frame_to_array, is_hdr
from lora_edit.video.decode import Orientation, open_video, read_orientation, turn_upright

_PLANAR = re.compile(r"yuv[aj]?(420|422|444)p(?:(\d+)le)?")
_PLANAR_EQUIVALENTS = {
    "nv12": "yuv420p",
    "nv21": "yuv420p",
    "nv16": "yuv422p",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "yvyu422": "yuv422p",
}
_CHROMA_SUBSAMPLING = {"420": (2, 2), "422": (1, 2), "444": (1, 1)}
"""Rows and columns of pixels that share one colour."""

DEFAULT_PIX_FMT = "yuv420p"
"""What every player shows."""

EXACT_RGB_PIX_FMT = "yuv444p10le"
"""Holds every 8-bit RGB value, so that sources which H.264 has no layout for keep theirs."""

Planes = list[np.ndarray]  # Y, Cb and Cr, each [H, W]


@dataclass(frozen=True)
class SourceSamples:
    """A clip's file, opened beside its decoded frames; `frames` are the file's from the clip's first on, none where the samples of such
    a file cannot be written. `pix_fmt` is the format in which a result keeps the source's pixels, `siting` where its shared colour
    samples lie."""

    video: Video
    pix_fmt: str
    frames: Iterator[VideoFrame]
    stored_format: str
    siting: str = SITING_LEFT

    def merge_source_samples(self, output_frame: VideoFrame, image: np.ndarray, index: int) -> VideoFrame:
        """`made` (in `pix_fmt`, of the RGB `picture` `[H, W, 3]` uint8, frame number `index` of the clip) with the file's samples wherever
        picture, clip and file agree. Asked for in order, once per frame."""
        try:
            stored = next(self.frames, None)
        except FFmpegError:
            stored = None
        if stored is None or stored.format.name != self.stored_format:
            return output_frame
        turn = read_orientation(stored)
        shown = turn_upright(frame_to_array(stored)[..., :3], turn)
        source = self.video.frames[index].numpy()
        if shown.shape != image.shape:
            return output_frame
        # The file may have changed since it was read: what it shows now has to be the clip's, too.
        same = (image == source).all(-1) & (shown == source).all(-1)
        mixed = [
            np.where(_reduce_to_plane(same, plane.shape), own, plane)
            for own, plane in zip(_read_stored_planes(stored, turn), _read_planes(output_frame), strict=True)
        ]
        return _build_frame(output_frame, mixed)


@contextmanager
def open_source_samples(source_clip: Video | None) -> Iterator[SourceSamples | None]:
    """The stored samples of a clip's own file; None where it is gone, no video, or of high dynamic range."""
    with ExitStack() as stack:
        found = None
        if source_clip is not None and source_clip.source is not None and source_clip.source.is_file():
            with suppress(VideoError, FFmpegError):
                found = _open_samples(stack, source_clip, source_clip.source)
        yield found


def find_matching_pix_fmt(frame: VideoFrame) -> str:
    """In which pixel format a result keeps the pixels of a file with such frames."""
    if is_hdr(frame):
        return DEFAULT_PIX_FMT
    name = _PLANAR_EQUIVALENTS.get(frame.format.name, frame.format.name)
    layout = _PLANAR.fullmatch(name)
    if layout is None:
        return EXACT_RGB_PIX_FMT
    high, wide = _CHROMA_SUBSAMPLING[layout[1]]
    fits = frame.height % high == 0 and frame.width % wide == 0
    if layout[1] == "422":  # where its colour lies H.264 states for 4:2:0 only
        fits = fits and detect_chroma_siting(frame) == SITING_LEFT and read_orientation(frame)[0] == 1
    if layout[1] == "420":  # and there only at the left and in the middle, so not for mirrored and upside-down pictures
        fits = fits and turn_chroma_siting(detect_chroma_siting(frame), read_orientation(frame)) is not None
    return f"yuv{layout[1]}p" if fits else EXACT_RGB_PIX_FMT


def _open_samples(stack: ExitStack, video: Video, path: Path) -> SourceSamples | None:
    container, stream = stack.enter_context(open_video(path))
    frames = islice(container.decode(stream), video.start_frame, None)
    first = next(frames, None)
    if first is None or is_hdr(first):
        return None
    pix_fmt = find_matching_pix_fmt(first)
    if pix_fmt == EXACT_RGB_PIX_FMT:
        return SourceSamples(video, pix_fmt, iter(()), first.format.name)
    siting = SITING_LEFT if pix_fmt == "yuv444p" else turn_chroma_siting(detect_chroma_siting(first), read_orientation(first))
    return SourceSamples(video, pix_fmt, chain([first], frames), first.format.name, siting or SITING_LEFT)


def _read_stored_planes(frame: VideoFrame, matrix: Orientation) -> Planes:
    """The file's samples in 8 bits, upright."""
    repacked = _PLANAR_EQUIVALENTS.get(frame.format.name)
    planes = _read_planes(frame if repacked is None else frame.reformat(format=repacked))
    return [turn_upright(plane, matrix) for plane in planes]


def _read_planes(frame: VideoFrame) -> Planes:
    """Luma and colour samples, rounded to 8 bits."""
    depth = frame.format.components[0].bits
    kind = np.dtype(np.uint8 if depth == 8 else "<u2")
    planes = []
    for plane in frame.planes[:3]:
        rows = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)[:, : plane.width]
        step = 1 << (depth - 8)
        planes.append(rows if depth == 8 else np.minimum((rows.astype(np.uint32) + step // 2) // step, 255).astype(np.uint8))
    return planes


def _reduce_to_plane(matches: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """For every sample of a plane of `shape`, whether all of its pixels in `same` `[H, W]` are set."""
    high, wide = matches.shape[0] // shape[0], matches.shape[1] // shape[1]
    return np.asarray(matches.reshape(shape[0], high, shape[1], wide).all((1, 3)))


def _build_frame(template: VideoFrame, planes: Planes) -> VideoFrame:
    """A frame of the format and tags of `like` with other samples."""
    frame = VideoFrame(template.width, template.height, template.format.name)
    for plane, samples in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : plane.width] = samples
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = template.colorspace, template.color_range
    frame.color_primaries, frame.color_trc = template.color_primaries, template.color_trc
    return frame
