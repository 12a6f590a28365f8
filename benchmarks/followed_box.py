"""Overlap of the tracked region of a box in a hand, from one rectangle in frame 0 to the last of 455 frames.

`PYTHONPATH=src python benchmarks/followed_box.py DATA` reads `box.mp4` (OpenCV's samples; `tools/pretrain/fetch_data.py` fetches it) and
prints, for six frames with outlines placed by hand, the overlap of

- the mask that `lora-edit mask --box X,Y,W,H:0 --segmenter embedded` writes with the true outline,
- the mask that `lora-edit mask --first-frame` writes for an edit that recolours the box (`masks/edit_region.py`) with the rectangle around
  the true outline, since it follows rectangles; and the same for an edit that fills the person's rectangle, background included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from segmenting import overlaps

from lora_edit.masks.files import load_mask
from lora_edit.types import mask_bounds
from lora_edit.video.read import read_video
from lora_edit.video.settings import VideoSettings
from lora_edit.video.sheet import save_image

COMMAND = [sys.executable, "-c", "from lora_edit.cli.main import main; main()"]

GIVEN = (290, 10, 310, 234)
"""The rectangle (left, top, width, height) that a person drags around the box in frame 0."""

OUTLINES = {
    0: ((376, 14), (595, 67), (574, 144), (562, 203), (541, 240), (298, 163), (293, 150), (293, 108), (297, 101), (352, 30)),
    91: ((336, 28), (557, 80), (545, 129), (505, 215), (489, 253), (246, 171), (243, 101), (322, 35)),
    160: ((246, 58), (484, 126), (478, 184), (383, 325), (371, 338), (350, 333), (124, 222), (112, 207), (103, 157), (232, 72)),
    260: ((292, 108), (518, 162), (484, 285), (478, 322), (464, 339), (211, 259), (207, 192), (275, 128)),
    345: ((322, 114), (549, 157), (544, 270), (523, 330), (259, 266), (253, 200), (256, 193), (306, 138)),
    454: ((330, 81), (533, 97), (562, 169), (558, 203), (546, 238), (301, 214), (298, 180), (300, 146), (322, 97)),
}
"""The box's outline by hand, to about two pixels: (x, y) in pixels of 640x480, by frame."""


def outlined(number: int) -> torch.Tensor:
    """Draw the true mask `[480, 640]` bool."""
    mask = np.zeros((480, 640), np.uint8)
    cv2.fillPoly(mask, [np.array(OUTLINES[number], np.int32)], 1)
    return torch.from_numpy(mask > 0)


def rectangle(mask: torch.Tensor) -> torch.Tensor:
    """Draw the upright rectangle around a mask `[H, W]`."""
    bounds = mask_bounds(mask)
    assert bounds is not None, "the mask is empty"
    left, top, right, bottom = bounds
    out = torch.zeros_like(mask)
    out[top:bottom, left:right] = True
    return out


def recoloured(frame: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Rotate the channels of a frame `[H, W, 3]` inside the mask."""
    return torch.where(mask[..., None], frame.roll(1, -1), frame)


def written(film: Path, folder: Path, *where: str) -> torch.Tensor:
    """Run the command and read the mask `[T, H, W]` that it writes."""
    subprocess.run([*COMMAND, "mask", str(film), *where, "--output", str(folder)], check=True, capture_output=True)
    return load_mask(folder).frames


def main() -> None:
    """Print one row per method, one column per frame."""
    film = Path(sys.argv[1]) / "box.mp4"
    first = read_video(film, VideoSettings(frames=1)).frames[0]
    given = torch.zeros(first.shape[:2], dtype=torch.bool)
    left, top, width, height = GIVEN
    given[top : top + height, left : left + width] = True
    true = torch.stack([outlined(number) for number in OUTLINES])
    boxes = torch.stack([rectangle(mask) for mask in true])
    print("| | " + " | ".join(f"frame {number}" for number in OUTLINES) + " |")
    print("|---" * (len(OUTLINES) + 1) + "|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways = {"one box, segmented": (("--box", ",".join(map(str, GIVEN)) + ":0", "--segmenter", "embedded"), true)}
        for number, (label, mask) in enumerate((("the edit recolours the box", true[0]), ("the edit fills the rectangle", given))):
            picture = folder / f"first-{number}.png"
            save_image(picture, recoloured(first, mask))
            ways[label] = (("--first-frame", str(picture)), boxes)
        for label, (where, truth) in ways.items():
            found = written(film, folder / label.replace(" ", "-"), *where)[list(OUTLINES)]
            print(f"| {label} | " + " | ".join(f"{value:.3f}" for value in overlaps(found, truth)) + " |", flush=True)


if __name__ == "__main__":
    main()
