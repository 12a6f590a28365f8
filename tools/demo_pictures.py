"""Draw the README's pictures of the demo: `PYTHONPATH=src python tools/demo_pictures.py [RUN]`.

Edits the bundled clip first (`examples/demo.py`) unless a run folder of that edit is given. Writes `docs/images/demo.png`, frames of source
and result, and `docs/images/demo.webp`, the two side by side and moving.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from PIL import Image

from lora_edit.video.read import read_video
from lora_edit.video.sheet import build_contact_sheet, join_side_by_side, save_image

ROOT = Path(__file__).parents[1]
IMAGES, SOURCE = ROOT / "docs" / "images", ROOT / "examples" / "clip" / "source.mp4"
COLUMNS, ROWS = 5, 200
"""Cells of the picture in a row, and rows of pixels of a cell."""

LAST, QUALITY, GAP = 900, 82, 6
"""Milliseconds of the animation's last frame; WebP's quality; white columns between the clips."""


def animation(path: Path, left: torch.Tensor, right: torch.Tensor, rate: float) -> None:
    """Two clips `[T, H, W, 3]` beside each other as a WebP that repeats."""
    gap = torch.full((*left.shape[:2], GAP, 3), 255, dtype=torch.uint8)
    frames = [Image.fromarray(frame.numpy()) for frame in join_side_by_side(torch.cat([left, gap], 2), right)]
    times = [round(1000 / rate)] * (len(frames) - 1) + [LAST]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0, quality=QUALITY, method=4)


def main() -> None:
    """Draw both pictures."""
    run = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo-output") / "run"
    if len(sys.argv) < 2:
        subprocess.run([sys.executable, str(ROOT / "examples" / "demo.py")], check=True)
    source, result = read_video(SOURCE), read_video(run / "result")
    save_image(IMAGES / "demo.png", build_contact_sheet([source.frames, result.frames], ["source", "edited"], COLUMNS, ROWS))
    animation(IMAGES / "demo.webp", source.frames, result.frames, float(source.fps))


if __name__ == "__main__":
    main()
