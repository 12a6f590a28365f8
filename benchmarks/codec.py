"""PSNR of the embedded model's codec alone: `PYTHONPATH=src:tools/pretrain python benchmarks/codec.py [CLIP ...]`.

Encodes and decodes whole clips of 13 frames: unseen clips of the pretraining's renderer, the studies' scenes, and the given clips, scaled
to the model's own area. Prints a JSON object: name to dB.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scenes import render

from lora_edit.models.families.embedded.encoders import LappedCodec
from lora_edit.models.families.embedded.loading import GEOMETRY, WEIGHTS_FOLDER
from lora_edit.studies.scene_kinds import draw_scenes
from lora_edit.studies.scenes import render_true_edit
from lora_edit.types import Size
from lora_edit.video.ranges import to_signed
from lora_edit.video.read import read_video
from lora_edit.video.resize import resize_frames
from lora_edit.video.settings import VideoSettings

FRAMES, SEED = 13, 987_654
"""Seed of the rendered clips; the pretraining used others."""


def clips(paths: list[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield name and frames `[T, H, W, 3]` uint8 of each clip."""
    rendered = [render(np.random.default_rng([SEED, number]), FRAMES, 96, 96).frames for number in range(32)]
    yield "rendered, held out", torch.from_numpy(np.concatenate(rendered))
    for scene in draw_scenes(13, 0):
        yield f"scene {scene.name}", render_true_edit(scene, Size(96, 96), FRAMES).truth
    for path in paths:
        frames = read_video(path, VideoSettings(frames=FRAMES)).frames
        factor = (GEOMETRY.native_area / (frames.shape[1] * frames.shape[2])) ** 0.5
        height, width = (round(side * factor / GEOMETRY.spatial_compression) * GEOMETRY.spatial_compression for side in frames.shape[1:3])
        yield path.parent.name, resize_frames(frames, Size(height, width))


@torch.no_grad()
def main() -> None:
    """Encode and decode each clip as floats, clamped as the decoder does, and print the PSNR."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="*", type=Path)
    args = parser.parse_args()
    codec = LappedCodec.from_pretrained(WEIGHTS_FOLDER / "vae").eval()
    found = {}
    for name, frames in clips(args.clips):
        pieces = [to_signed(piece)[None] for piece in frames.split(FRAMES)]
        error = torch.stack([(codec.decode(codec.encode(pixels)) - pixels).square().mean() for pixels in pieces]).mean()
        found[name] = round(10 * float(torch.log10(4 / error)), 2)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
