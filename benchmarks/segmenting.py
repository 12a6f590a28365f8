"""Accuracy and speed of the segmenter without weights: `PYTHONPATH=src python benchmarks/segmenting.py`.

On the studies' scenes, which have true masks, from one click in the middle of the object in frame 0 and from its box there: intersection
over union with the true mask, the mean over all frames, per kind of scene. Then a long, large clip: seconds per frame, peak memory of the
process. Writes docs/benchmarks/segmenting.md and prints it; `--scene KIND SEED PICTURE.png` draws one scene's outlines instead. Scenes with
`--net` print the same with U2-Net-p beside it, and `--pictures FOLDER` does so for the first frame of pictures, `NAME.png` beside
`NAME.mask.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch

from lora_edit.masks.boxes import KeyframeBox
from lora_edit.masks.embedded_segmenter import EmbeddedSegmenter
from lora_edit.masks.saliency import SaliencyNetwork, load_saliency_network
from lora_edit.masks.segmenter import Click, Prompt
from lora_edit.studies.scene_kinds import SCENE_KINDS
from lora_edit.studies.scenes import render_scene
from lora_edit.types import Box, Size

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks" / "segmenting.md"
SIZE, FRAMES = Size(240, 320), 25
LONG = (300, Size(720, 1280))
DATE = "2026-11-23"
STREAM = 7
"""Scenes are drawn from the seed sequence [seed, STREAM]."""


def scene(kind: str, seed: int, size: Size = SIZE, num_frames: int = FRAMES) -> tuple[torch.Tensor, torch.Tensor]:
    """Build frames `[T, H, W, 3]` and true mask `[T, H, W]`; for an addition, the mask of the added object."""
    drawn = SCENE_KINDS[kind](np.random.default_rng([seed, STREAM]))
    return render_scene(replace(drawn, objects=(drawn.edited_object,)) if kind == "addition" else drawn, size, num_frames)


def middle_of(mask: torch.Tensor) -> Click:
    """Find the point of the object `[H, W]` that is farthest from its edge."""
    depth = cv2.distanceTransform(np.pad(mask.numpy().view(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return Click(float(x) + 0.5, float(y) + 0.5)


def box_around(mask: torch.Tensor) -> KeyframeBox:
    """Compute the object's box in frame 0."""
    y, x = np.nonzero(mask.numpy())
    return KeyframeBox(Box(float(x.min()), float(y.min()), float(np.ptp(x) + 1), float(np.ptp(y) + 1)), 0)


def overlaps(found: torch.Tensor, true: torch.Tensor) -> np.ndarray:
    """Compute intersection over union per frame; 1 if both are empty."""
    both, either = (part.flatten(1).sum(1).double() for part in (found & true, found | true))
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(either)).numpy()


def trial(frames: torch.Tensor, true: torch.Tensor, net: SaliencyNetwork | None = None) -> dict[str, np.ndarray]:
    """Compute overlaps per frame from a click and from a box."""
    prompts: dict[str, Prompt] = {"click": middle_of(true[0]), "box": box_around(true[0])}
    return {how: overlaps(EmbeddedSegmenter(net).segment(frames, [prompt])["1"].frames, true) for how, prompt in prompts.items()}


def pictures(folder: Path) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Yield every picture as a clip of one frame, with its mask."""
    for path in sorted(folder.glob("*.mask.png")):
        name = path.name.removesuffix(".mask.png")
        picture, mask = cv2.imread(str(folder / f"{name}.png")), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        yield name, torch.from_numpy(np.ascontiguousarray(picture[..., ::-1]))[None], torch.from_numpy(mask > 127)[None]


def compare(clips: Iterable[tuple[str, torch.Tensor, torch.Tensor]]) -> None:
    """Print overlaps without the network and with it: of the first frame, and the mean of all."""
    net = load_saliency_network()
    if net is None:
        raise SystemExit("U2-Net-p is not here; docs/masks.md says how to install it")
    rows = []
    for name, frames, true in clips:
        without, with_net = trial(frames, true), trial(frames, true, net)
        rows.append([value for how in ("click", "box") for each in (without[how], with_net[how]) for value in (each[0], each.mean())])
        print(name, " ".join(f"{value:.3f}" for value in rows[-1]), flush=True)
    print("mean", " ".join(f"{value:.3f}" for value in np.mean(rows, 0)))
    print("click first, all; with the network first, all; box likewise")


def long_clip() -> dict[str, float]:
    """Measure seconds and peak memory of a long, large clip: a scene drawn at a quarter of its size and enlarged."""
    num_frames, size = LONG
    small, masks = scene("retexture", 0, Size(size.height // 4, size.width // 4), num_frames)
    frames = torch.empty((num_frames, size.height, size.width, 3), dtype=torch.uint8)
    for number, frame in enumerate(small):
        frames[number] = torch.from_numpy(cv2.resize(frame.numpy(), (size.width, size.height), interpolation=cv2.INTER_CUBIC))
    true = torch.stack([torch.from_numpy(cv2.resize(mask.numpy().view(np.uint8), (size.width, size.height)) > 0) for mask in masks])
    del small, masks
    segmenter, click = EmbeddedSegmenter(), middle_of(true[0])
    start = time.process_time()
    segmenter.segment_frame(frames, [click], 0)
    first = time.process_time() - start
    found = segmenter.segment(frames, [click])["1"].frames
    seconds = (time.process_time() - start - first) / num_frames
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return {"click": first, "frame": seconds, "gigabytes": peak, "overlap": float(overlaps(found, true).mean())}


def page(found: dict[str, dict[str, list[np.ndarray]]], long: dict[str, float], command: str) -> str:
    """Format the results as a page."""
    rows = ["| scene | click | box | worst scene, box |", "|---|---|---|---|"]
    means: dict[str, list[float]] = {"click": [], "box": []}
    for kind, trials in found.items():
        each = {how: [float(overlap.mean()) for overlap in overlaps] for how, overlaps in trials.items()}
        for how, values in each.items():
            means[how] += values
        rows.append(f"| {kind} | {np.mean(each['click']):.3f} | {np.mean(each['box']):.3f} | {min(each['box']):.3f} |")
    rows.append(f"| **all** | **{np.mean(means['click']):.3f}** | **{np.mean(means['box']):.3f}** | {min(means['box']):.3f} |")
    seeds = len(next(iter(found.values()))["box"])
    num_frames, size = LONG
    clip = num_frames * size.height * size.width * 3 / 1024**3
    return f"""# Segmenting without weights

Measured on {DATE} by `{command}` on {os.cpu_count()} CPU cores, one of them used.

Mean intersection over union with the true mask over all {FRAMES} frames of the studies' scenes ({SIZE}, {seeds} seeds a kind), from one
click in the middle of the thing in frame 0, and from its box there. No correction is given.

{chr(10).join(rows)}

A clip of {num_frames} frames of {size} (a scene enlarged), from one click:

| what | |
|---|---|
| the clicked thing's outline, seconds of one core | {long["click"]:.2f} |
| each frame after that, seconds of one core | {long["frame"]:.3f} |
| peak memory of the process, the clip of {clip:.2f} GiB in it, GiB | {long["gigabytes"]:.2f} |
| mean intersection over union | {long["overlap"]:.3f} |
{with_net()}"""


def with_net() -> str:
    """Read the page's section on the network, which is measured separately and written by hand."""
    _, heading, rest = PAGE.read_text("utf-8").partition("\n## With U2-Net-p")
    return heading + rest


def draw(kind: str, seed: int, how: str, path: Path) -> None:
    """Draw one scene's frames in a row: true outlines white, segmented ones red."""
    frames, true = scene(kind, seed)
    prompt = middle_of(true[0]) if how == "click" else box_around(true[0])
    found = EmbeddedSegmenter().segment(frames, [prompt])["1"].frames
    cells = []
    for number in np.linspace(0, len(frames) - 1, 8).astype(int):
        picture = frames[number].numpy().copy()
        for mask, colour in ((true, (255, 255, 255)), (found, (255, 0, 0))):
            outlines, _ = cv2.findContours(mask[number].numpy().view(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(picture, outlines, -1, colour, 1)
        cells.append(picture)
    sheet = np.concatenate([np.concatenate(cells[:4], 1), np.concatenate(cells[4:], 1)])
    cv2.imwrite(str(path), sheet[..., ::-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every kind and seed, then the long clip in its own process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kinds", nargs="*", default=list(SCENE_KINDS))
    parser.add_argument("--scene", nargs=4, metavar=("KIND", "SEED", "click|box", "PICTURE"))
    parser.add_argument("--long", action="store_true", help="only the long clip, as JSON")
    parser.add_argument("--net", action="store_true", help="compare with U2-Net-p instead")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    parser.add_argument("--output", type=Path, default=PAGE)
    args = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if args.long:
        print(json.dumps(long_clip()))
        return
    if args.pictures or args.net:
        scenes = ((f"{kind} {seed}", *scene(kind, seed)) for kind in args.kinds for seed in range(args.seeds))
        compare(pictures(args.pictures) if args.pictures else scenes)
        return
    if args.scene:
        draw(args.scene[0], int(args.scene[1]), args.scene[2], Path(args.scene[3]))
        return
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for kind in args.kinds:
        trials = [trial(*scene(kind, seed)) for seed in range(args.seeds)]
        found[kind] = {how: [each[how] for each in trials] for how in ("click", "box")}
        print(kind, {how: [round(float(each.mean()), 3) for each in each_how] for how, each_how in found[kind].items()}, file=sys.stderr)
    long = json.loads(subprocess.run([sys.executable, __file__, "--long"], check=True, capture_output=True, text=True).stdout)
    command = " ".join(["PYTHONPATH=src python benchmarks/segmenting.py", *(arguments or sys.argv[1:])])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(page(found, long, command), encoding="utf-8")
    print(args.output.read_text("utf-8"))


if __name__ == "__main__":
    main()
