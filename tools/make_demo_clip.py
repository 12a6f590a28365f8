"""Cut the clip that `make demo` edits: `python tools/make_demo_clip.py box.mp4`.

`box.mp4` is part of OpenCV's documentation; NOTICE names the source. `examples/edit_frames.py` then draws the edited frames.
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import cv2
import numpy as np

CLIP = Path(__file__).parents[1] / "examples" / "clip" / "source.mp4"
FRAMES = range(98, 163, 2)
"""The frames in which the box turns and comes nearer, every second one."""

ROWS, SIZE, RATE = 400, (384, 240), 15
"""Rows of the source that are kept from the top; columns and rows of the clip, and its frames a second."""

ENCODING = {"crf": "8", "preset": "slow", "threads": "1"}


def read_frames(path: Path) -> list[np.ndarray]:
    """Frames `[H, W, 3]` uint8 in RGB. Raises `SystemExit` where the file ends before them."""
    capture, frames = cv2.VideoCapture(str(path)), []
    for number in range(FRAMES.stop):
        known, frame = capture.read()
        if not known:
            raise SystemExit(f"{path}: ends at frame {number}; give OpenCV's box.mp4, which has 456")
        if number in FRAMES:
            frames.append(np.ascontiguousarray(cv2.resize(frame[:ROWS], SIZE, interpolation=cv2.INTER_AREA)[..., ::-1]))
    return frames


def main() -> None:
    """Write `source.mp4`, marked as BT.601 in the usual range."""
    CLIP.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(CLIP), "w", container_options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream("libx264", rate=RATE, options=ENCODING)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = 5, 1
        for frame in read_frames(Path(sys.argv[1])):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame).reformat(format="yuv420p", dst_colorspace=5, dst_color_range=1)))
        output.mux(stream.encode(None))


if __name__ == "__main__":
    main()
