"""Render the clip that `make demo` edits into `examples/clip`: `PYTHONPATH=src python tools/make_demo_clip.py`."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from lora_edit.masks.files import save_mask
from lora_edit.studies.scenes import Scene, Thing, disc, quartered, ringed, star, striped, tiles, true_edit
from lora_edit.types import Size, Video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video

FOLDER = Path(__file__).parents[1] / "examples" / "clip"
SIZE, FRAMES = Size(192, 256), 17


def demo_scene() -> Scene:
    """A quartered disc that turns a little as it crosses a soft floor, beside a still star; the edit gives it rings of other colours."""
    rng = np.random.default_rng(5)

    def pose(time: float) -> tuple[float, float, float, float]:
        return -0.3 + 0.56 * time, 0.1 - 0.14 * np.sin(np.pi * time), 0.24, 0.5 * time

    still = Thing(lambda time: (0.42, -0.28, 0.13, 0.2), star, striped(rng))
    disc_thing = Thing(pose, disc, quartered(rng))
    edited = replace(disc_thing, paint=ringed(np.random.default_rng(1)))
    return Scene("demo", tiles(np.random.default_rng(45)), (still, disc_thing), 1, edited)


def main() -> None:
    """Write source, edited first frame, one edited later frame and the mask."""
    edit = true_edit(demo_scene(), SIZE, FRAMES)
    FOLDER.mkdir(parents=True, exist_ok=True)
    video = Video(edit.source, Fraction(8), tuple(i / 8 for i in range(FRAMES)))
    write_video(FOLDER / "source.mp4", video, "h264-444", overwrite=True)
    save_image(FOLDER / "first_frame.png", edit.truth[0])
    save_image(FOLDER / "frame_16.png", edit.truth[16])
    save_mask(FOLDER / "mask", edit.mask)


if __name__ == "__main__":
    main()
