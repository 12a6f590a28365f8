"""The source file's own YUV samples, where a result shows the source.

RGB frames lose a little on the way to 4:2:0 video: colours are averaged and values rounded, 49 dB on a real clip. Where the result's
pixel is the source's, the sample that the source file holds is written instead, so that nothing but the encoder touches it.
"""

from __future__ import annotations

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
from lora_edit.video.colors import Colours, colours_of, frame_to_array
from lora_edit.video.decode import open_video, orientation

_FORMATS = ("yuv420p", "yuvj420p")


@dataclass(frozen=True)
class SourceSamples:
    """A clip's file, opened beside its decoded frames: `colours` are how it stores colour, `frames` its frames from the clip's first on."""

    video: Video
    colours: Colours
    frames: Iterator[VideoFrame]

    def keep(self, made: VideoFrame, picture: np.ndarray, index: int) -> VideoFrame:
        """`made` (yuv420p, of the RGB `picture` `[H, W, 3]` uint8, frame number `index` of the clip) with the file's samples wherever
        picture, clip and file agree. Asked for in order, once per frame."""
        try:
            stored = next(self.frames, None)
        except FFmpegError:
            stored = None
        if stored is None or stored.format.name not in _FORMATS or (stored.height, stored.width) != picture.shape[:2]:
            return made
        source = self.video.frames[index].numpy()
        same = (picture == source).all(-1)
        # The file may have changed since it was read: what it shows now has to be the clip's, too.
        same &= (frame_to_array(stored) == source).all(-1)
        old, new = stored.to_ndarray(), made.to_ndarray()
        height, width = same.shape
        blocks = same.reshape(height // 2, 2, width // 2, 2).all((1, 3)).reshape(-1, width)
        out = np.where(np.concatenate([same, blocks, blocks]), old, new)
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(out), format="yuv420p")
        frame.colorspace, frame.color_range = made.colorspace, made.color_range
        frame.color_primaries, frame.color_trc = made.color_primaries, made.color_trc
        return frame


@contextmanager
def source_samples(like: Video | None) -> Iterator[SourceSamples | None]:
    """The stored samples of a clip's own file; None where it is gone, no video, turned, or not 8-bit 4:2:0 of even size."""
    with ExitStack() as stack:
        found = None
        if like is not None and like.source is not None and like.source.is_file():
            with suppress(VideoError, FFmpegError):
                found = _open(stack, like, like.source)
        yield found


def _open(stack: ExitStack, video: Video, path: Path) -> SourceSamples | None:
    container, stream = stack.enter_context(open_video(path))
    frames = islice(container.decode(stream), video.first, None)
    first = next(frames, None)
    if first is None or first.format.name not in _FORMATS or orientation(first) != (1, 0, 0, 1) or first.height % 2 or first.width % 2:
        return None
    return SourceSamples(video, colours_of(first), chain([first], frames))
