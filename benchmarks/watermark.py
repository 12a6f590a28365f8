"""Measure the watermark: detection and false positives by size of the region and by what was done to the clip.

    PYTHONPATH=src python benchmarks/watermark.py --clips 200 --seed 1 --samples FOLDER

Clips are drawn scenes of the studies and, with `--samples`, as many parts of the videos in that folder, cropped, resized and mirrored, of 5
to 12 frames. Marked and unmarked clips are different ones. Each marked clip has a box or an ellipse of a given area as its region.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import torch

from lora_edit.masks.shapes import feather_frame
from lora_edit.provenance.watermark import WatermarkDetection, detect_watermark, embed_watermark
from lora_edit.studies.scene_kinds import draw_scenes
from lora_edit.studies.scenes import render_scene
from lora_edit.types import Size

AREAS = {
    700: (192, 192),
    1500: (192, 192),
    3000: (240, 320),
    6000: (240, 320),
    12000: (288, 384),
    25000: (360, 480),
    60000: (480, 640),
    400000: (720, 1280),
}
"""Areas of the region in pixels, with the size of the frames that it lies in (height, width)."""

Frames = list[np.ndarray]
Rng = np.random.Generator


# --- clips --------------------------------------------------------------------------------------------------------------------


def choose_area(index: int) -> int:
    """Choose the area of a clip's region; the largest frames, which take longest, are rarest."""
    areas = list(AREAS)
    return areas[-1] if index % 20 > 17 else areas[index // 2 % (len(areas) - 1)]


def draw_clip(index: int, seed: int, samples: Sequence[Path], size: tuple[int, int]) -> Frames:
    """Draw clip number `index`: odd ones from `samples`, if there are any, others from scenes; frames `[H, W, 3]` uint8 of `size`."""
    rng = np.random.default_rng([seed, index, 1])
    num_frames = int(rng.integers(5, 13)) if size[0] < 700 else 5
    if samples and index % 2:
        return read_part(samples[int(rng.integers(len(samples)))], rng, size, num_frames)
    scene = draw_scenes(index % 13 + 1, 1000 * seed + index)[-1]
    drawn = Size(min(size[0], 240), round(size[1] * min(size[0], 240) / size[0]))
    frames = render_scene(scene, drawn, num_frames)[0].numpy()
    return [cv2.resize(frame, size[::-1], interpolation=cv2.INTER_CUBIC) for frame in frames]


def read_part(path: Path, rng: Rng, size: tuple[int, int], num_frames: int) -> Frames:
    """Read some frames of a video, cropped to the shape of `size` with 50 to 100 % of the possible side, mirrored in half of all cases."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        total = stream.frames or num_frames
        first = int(rng.integers(max(1, min(total - num_frames, 120))))
        images = []
        for number, frame in enumerate(container.decode(stream)):
            if number >= first:
                images.append(frame.to_ndarray(format="rgb24"))
            if len(images) == num_frames:
                break
    height, width = images[0].shape[:2]
    share = rng.uniform(0.5, 1.0) * min(height / size[0], width / size[1])
    rows, columns = int(size[0] * share), int(size[1] * share)
    top, left, is_mirrored = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), bool(rng.integers(2))
    parts = [cv2.resize(image[top : top + rows, left : left + columns], size[::-1], interpolation=cv2.INTER_AREA) for image in images]
    return [np.ascontiguousarray(part[:, ::-1]) if is_mirrored else part for part in parts]


def draw_region(rng: Rng, area: int, height: int, width: int) -> torch.Tensor:
    """Draw a box or an ellipse of about `area` pixels, feathered as in compositing; returns weights `[H, W]`."""
    is_ellipse = bool(rng.integers(2))
    box_area = min(area * (4 / np.pi if is_ellipse else 1.0), 0.98 * height * width)
    rows = int(np.clip(np.sqrt(box_area) * rng.uniform(0.75, 1.33), box_area / width, height))
    columns = min(width, round(box_area / rows))
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    mask = np.zeros((height, width), np.uint8)
    if is_ellipse:
        cv2.ellipse(mask, (left + columns // 2, top + rows // 2), (columns // 2, rows // 2), 0, 0, 360, 1, -1)
    else:
        mask[top : top + rows, left : left + columns] = 1
    return feather_frame(torch.from_numpy(mask > 0), round(0.02 * min(height, width)))


# --- attacks ------------------------------------------------------------------------------------------------------------------


def encode(frames: Frames, crf: int) -> Frames:
    """Encode frames as H.264 (x264, preset medium, 4:2:0) and decode them."""
    file = io.BytesIO()
    height, width = (side // 2 * 2 for side in frames[0].shape[:2])
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf), "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt, stream.thread_count = width, height, "yuv420p", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), "rgb24")))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def resize(frames: Frames, scale: float) -> Frames:
    """Resize frames."""
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    size = (round(frames[0].shape[1] * scale), round(frames[0].shape[0] * scale))
    return [cv2.resize(frame, size, interpolation=interpolation) for frame in frames]


def crop(frames: Frames, region: torch.Tensor, rng: Rng) -> Frames:
    """Cut a random margin of up to a quarter of the frame from each side, without cutting into the region; encode at crf 18."""
    height, width = frames[0].shape[:2]
    rows, columns = (np.flatnonzero((region.numpy() > 0).any(axis)) for axis in (1, 0))
    top, left = (int(rng.integers(min(side // 4, first) + 1)) for side, first in ((height, int(rows[0])), (width, int(columns[0]))))
    bottom, right = (
        side - int(rng.integers(min(side // 4, side - 1 - last) + 1)) for side, last in ((height, int(rows[-1])), (width, int(columns[-1])))
    )
    return encode([frame[top:bottom, left:right] for frame in frames], 18)


def take_screenshot(frames: Frames, rng: Rng) -> Frames:
    """Show one frame at 70 to 130 % of its size somewhere on a light page, and save the page as JPEG of quality 90."""
    shown = resize([frames[int(rng.integers(len(frames)))]], rng.uniform(0.7, 1.3))[0]
    above, below, left, right = (int(each) for each in rng.integers(0, 80, 4))
    page = cv2.copyMakeBorder(shown, above, below, left, right, cv2.BORDER_CONSTANT, value=(240, 240, 240))
    data = cv2.imencode(".jpg", page[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    return [np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])]


Attack = Callable[[Frames, torch.Tensor, Rng], Frames]

ATTACKS: dict[str, Attack] = {
    "none": lambda frames, region, rng: frames,
    "crf 18": lambda frames, region, rng: encode(frames, 18),
    "crf 23": lambda frames, region, rng: encode(frames, 23),
    "crf 28": lambda frames, region, rng: encode(frames, 28),
    "50 %": lambda frames, region, rng: encode(resize(frames, 0.5), 18),
    "crop": crop,
    "70-130 %": lambda frames, region, rng: encode(resize(frames, rng.uniform(0.7, 1.3)), 23),
    "screenshot": lambda frames, region, rng: take_screenshot(frames, rng),
    "one frame": lambda frames, region, rng: [frames[int(rng.integers(len(frames)))]],
}
"""The clip is encoded at crf 18 after 50 % and crop, at crf 23 after 70-130 %."""

UNMARKED_ATTACKS = ("none", "crf 23", "70-130 %", "screenshot")
OTHER_KEYS = 2
"""Keys, other than the tool's, that each unmarked clip is searched for."""


def detect(frames: Frames, key: bytes | None = None) -> WatermarkDetection:
    """Detect the mark in frames."""
    tensors = (torch.from_numpy(frame) for frame in frames)
    return detect_watermark(tensors) if key is None else detect_watermark(tensors, key)


# --- measurement --------------------------------------------------------------------------------------------------------------

Record = dict[str, Any]
"""A measured clip: `kind`, `index` and `clip` (`drawn` or `video`), and per search the fields of `WatermarkDetection`."""


def measure_marked(index: int, seed: int, samples: Sequence[Path]) -> Record:
    """Mark clip number `index`, attack it, and search for the mark."""
    area = choose_area(index)
    frames = draw_clip(index, seed, samples, AREAS[area])
    rng = np.random.default_rng([seed, index, 2])
    region = draw_region(rng, area, *frames[0].shape[:2])
    inside, started = region.numpy() > 0, time.process_time()
    marked = [embed_watermark(torch.from_numpy(frame), region).numpy() for frame in frames]
    seconds = (time.process_time() - started) / len(frames)
    error = np.mean([(np.square(new.astype(float) - old))[inside].mean() for new, old in zip(marked, frames, strict=True)])
    outside = sum(int((new != old)[~inside].any(-1).sum()) for new, old in zip(marked, frames, strict=True))
    searches = {name: [asdict(detect(attack(marked, region, rng)))] for name, attack in ATTACKS.items()}
    psnr = float(10 * np.log10(255**2 / max(error, 1e-9)))
    return {"area": area, "psnr": psnr, "changed_outside": outside, "seconds": seconds, "searches": searches}


def measure_unmarked(index: int, seed: int, samples: Sequence[Path]) -> Record:
    """Search an unmarked clip for the mark, as it is and attacked, and for the marks of other keys."""
    area = choose_area(index)
    frames = draw_clip(index, seed + 1, samples, AREAS[area])
    rng, nowhere = np.random.default_rng([seed, index, 3]), torch.ones(AREAS[area])
    searches = {name: [asdict(detect(ATTACKS[name](frames, nowhere, rng)))] for name in UNMARKED_ATTACKS}
    searches["other keys"] = [asdict(detect(frames, f"another key {seed} {index} {number}".encode())) for number in range(OTHER_KEYS)]
    return {"area": area, "searches": searches}


def measure(job: tuple[str, int], seed: int, samples: Sequence[Path]) -> Record:
    """Measure one clip: its kind, `marked` or `unmarked`, and its number."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    kind, index = job
    record = (measure_marked if kind == "marked" else measure_unmarked)(index, seed, samples)
    return {"kind": kind, "index": index, "clip": "video" if samples and index % 2 else "drawn", **record}


def measure_all(count: int, seed: int, samples: Sequence[Path], processes: int, file: Path) -> list[Record]:
    """Measure `count` clips of each kind and append each to `file` (JSON lines); those that it holds already are not measured again."""
    records = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
    done = {(record["kind"], record["index"]) for record in records}
    jobs = [job for index in range(count) for job in (("marked", index), ("unmarked", index)) if job not in done]
    with ProcessPoolExecutor(processes) as pool, file.open("a", encoding="utf-8") as log:
        for record in pool.map(partial(measure, seed=seed, samples=samples), jobs):
            records.append(record)
            log.write(json.dumps(record) + "\n")
            log.flush()
    return records


def format_marked(records: Sequence[Record]) -> list[str]:
    """Format how many marked clips are found, by kind of clip, area and attack, and the cost of the mark."""
    lines = [f"| region, pixels | clips | {' | '.join(ATTACKS)} | PSNR inside, mean (worst), dB |", "|" + "---|" * (len(ATTACKS) + 3)]
    groups: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        groups[record["clip"], record["area"]].append(record)
    for (clip, area), group in sorted(groups.items()):
        counts = [str(sum(record["searches"][name][0]["found"] for record in group)) for name in ATTACKS]
        psnr = [record["psnr"] for record in group]
        height, width = AREAS[area]
        lines.append(f"| {area} of {width}x{height} | {len(group)} {clip} | {' | '.join(counts)} | {np.mean(psnr):.1f} ({min(psnr):.1f}) |")
    lines += ["", f"Changed pixels outside the region, all {len(records)} clips: {sum(record['changed_outside'] for record in records)}."]
    return lines


def format_unmarked(records: Sequence[Record]) -> list[str]:
    """Format false positives and the largest scores of unmarked clips, by attack."""
    lines = ["| unmarked clips | searches | found | largest score | median score | smallest probability bound |", "|" + "---|" * 6]
    for name in (*UNMARKED_ATTACKS, "other keys"):
        found = [each for record in records for each in record["searches"][name]]
        scores = [each["score"] for each in found]
        smallest = min(each["false_positive_probability"] for each in found)
        hits = sum(each["found"] for each in found)
        lines.append(f"| {name} | {len(found)} | {hits} | {max(scores):.2f} | {np.median(scores):.2f} | {smallest:.2g} |")
    return lines


def main() -> None:
    """Run the measurement and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200, help="marked clips; as many others stay unmarked")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--samples", type=Path, help="folder with videos; without it all clips are drawn scenes")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--records", type=Path, default=Path("watermark.jsonl"), help="measured clips; started again, the rest is measured")
    parser.add_argument("--tables", action="store_true", help="measure nothing and print the tables of the records")
    options = parser.parse_args()
    samples = sorted(options.samples.rglob("*.mp4")) if options.samples else []
    records = measure_all(0 if options.tables else options.clips, options.seed, samples, options.processes, options.records)
    groups = {kind: [record for record in records if record["kind"] == kind] for kind in ("marked", "unmarked")}
    print("\n".join([*format_marked(groups["marked"]), "", *format_unmarked(groups["unmarked"])]))


if __name__ == "__main__":
    main()
