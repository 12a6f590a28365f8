"""Ten real clips that were not used in training, edited as a person would edit them, for visual inspection.

`PYTHONPATH=src python benchmarks/real_clips.py OUTPUT --data FOLDER [--only NAME ...] [--also SOURCE FIRST ...]` cuts the clips from the
files that `tools/pretrain/fetch_data.py` fetched into FOLDER, edits their first frames by code, and runs the command on each (`preview`,
`edit`, both with their defaults), and the three baselines. Existing files in OUTPUT are kept. Per clip: `sheet.png`, all results in six
frames; `steps.png`, consecutive frames around the middle; `slice.png`, one row of pixels over time; `facts.json`, processor
seconds, notes and blockiness. `--also` adds pairs of a clip and its edited first frame, without a region.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import real_clip_edits as edits
import torch

from lora_edit.canvas import composite_clip
from lora_edit.cli.options import EditOptions
from lora_edit.cli.resolve import resolve_run_settings
from lora_edit.compositing.crop import crop_frames
from lora_edit.estimate import open_family
from lora_edit.inputs import Clip, load_inputs
from lora_edit.pipeline import create_run
from lora_edit.prepared_clip import paste_prediction
from lora_edit.propagation.baselines import BASELINES
from lora_edit.resolved import resolve_edit
from lora_edit.run import Run
from lora_edit.session import Session
from lora_edit.types import Video
from lora_edit.video.png_frames import load_frames, save_frames
from lora_edit.video.ranges import to_frames
from lora_edit.video.read import read_video
from lora_edit.video.resize import resize_frames
from lora_edit.video.settings import VideoSettings
from lora_edit.video.sheet import build_contact_sheet, save_image
from lora_edit.video.write import write_video

COMMAND = [sys.executable, "-c", "from lora_edit.cli.main import main; main()"]

CELL = 8
"""Rows and columns of the codec's cells, whose borders may be visible."""


@dataclass(frozen=True)
class RealClip:
    """Every `step`th frame of `film` from `first` on, `count` of them; `crop` (left, top, right, bottom) in the film's pixels, scaled
    to `size` (width, height). `where` are the further arguments of the command; a `boxed` object (left, top, width, height in frame 0) is
    followed by `lora-edit mask` first.
    """

    name: str
    film: str
    first: int
    step: int
    count: int
    crop: tuple[int, int, int, int]
    size: tuple[int, int]
    edit: edits.Edit
    where: dict[str, Any] = field(default_factory=dict)
    boxed: tuple[int, int, int, int] | None = None

    def cut(self, data: Path) -> Video:
        """Cut the clip out of the film."""
        film = read_video(data / self.film, VideoSettings(start=self.first, frames=(self.count - 1) * self.step + 1))
        left, top, right, bottom = self.crop
        frames = film.frames[:: self.step, top:bottom, left:right].numpy()
        small = np.stack([cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA) for frame in frames])
        times = tuple(each - film.times[0] for each in film.times[:: self.step])
        return Video(torch.from_numpy(small), film.fps / self.step, times)


def points(*places: tuple[int, int]) -> dict[str, Any]:
    """Format clicks in the first frame as arguments of the command."""
    return {"point": [f"{x},{y}" for x, y in places]}


WHOLE, SMALL = (0, 0, 1280, 720), (0, 0, 640, 480)
BUNNY, BOX, CUP = "bbb.mp4", "box.mp4", "cup.mp4"
CLIPS = (
    RealClip("label", BOX, 120, 2, 48, SMALL, (480, 360), edits.label),
    RealClip("tablecloth", BOX, 240, 2, 48, SMALL, (480, 360), edits.chequered, points((200, 260), (400, 300))),
    RealClip("striped-cup", CUP, 32, 1, 48, SMALL, (448, 336), edits.striped, boxed=(215, 72, 92, 204)),
    RealClip("red-lid", CUP, 104, 1, 48, SMALL, (448, 336), edits.red_lid, boxed=(232, 54, 86, 70)),
    RealClip("leap", BUNNY, 9384, 1, 36, WHOLE, (480, 270), edits.blue_fur, boxed=(0, 60, 285, 190)),
    RealClip("glasses", BUNNY, 8036, 1, 48, WHOLE, (480, 270), edits.glasses),
    RealClip("party-hat", BUNNY, 4167, 1, 24, (240, 0, 1200, 720), (480, 360), edits.party_hat, {"box": ["190,20,130,130"]}),
    RealClip("butterfly", BUNNY, 3236, 1, 48, (300, 60, 1100, 660), (480, 360), edits.orange_wings, points((292, 160), (350, 160))),
    RealClip("mushrooms", BUNNY, 8237, 1, 48, (160, 180, 960, 630), (480, 270), edits.without_mushrooms, boxed=(150, 126, 110, 76)),
    RealClip("night", BUNNY, 8704, 1, 48, WHOLE, (480, 270), edits.night),
)
"""The clips. The film's frames are in shots that `tools/pretrain/film.py` excludes from training; the other two are not used in it."""


@dataclass(frozen=True)
class Results:
    """Clips `[T, H, W, 3]` uint8: the explained edit, the result of `edit`, and the model's own clip at its size."""

    preview: torch.Tensor
    delivered: torch.Tensor
    raw: torch.Tensor


class Watch:
    """Processor seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.process_time()

    def note(self, stage: str) -> None:
        """Attribute the time since the last stage to this one."""
        now = time.process_time()
        self.seconds[stage], self._last = round(now - self._last, 1), now


@dataclass(frozen=True)
class Case:
    """One edit: a `folder` for its results, the clip, its edited first frame, and further arguments of the command."""

    folder: Path
    source: Path
    first: Path
    where: dict[str, Any] = field(default_factory=dict)
    boxed: tuple[int, int, int, int] | None = None

    @property
    def mask(self) -> Path:
        """Arguments of the box that is followed before the edit."""
        return self.folder / "mask"


def cut_case(clip: RealClip, data: Path, output: Path) -> Case:
    """Write the clip as an .mp4 file, and edit its first frame as decoded from that file."""
    case = Case(output / clip.name, output / clip.name / "source.mp4", output / clip.name / "first.png", clip.where, clip.boxed)
    if not case.source.exists():
        write_video(case.source, clip.cut(data))
    picture = read_video(case.source, VideoSettings(frames=1)).frames[0].numpy()
    save_image(case.first, torch.from_numpy(clip.edit(picture, np.random.default_rng(0))))
    return case


def blockiness(frames: torch.Tensor, region: torch.Tensor) -> float:
    """Compute the mean absolute difference of neighbours across borders of 8x8 cells, relative to that inside the cells; 1 for none.

    `frames` is `[T, H, W, 3]` uint8; only pairs of pixels that both lie in `region` `[T, H, W]` bool count.
    """
    sums, counts = np.zeros(2), np.zeros(2)
    for axis in (1, 2):
        values, inside = frames.float().movedim(axis, 0), region.movedim(axis, 0)
        difference = (values[1:] - values[:-1]).abs().mean(-1)
        both = inside[1:] & inside[:-1]
        at_border = torch.arange(1, len(values)) % CELL == 0
        for kind, chosen in enumerate((at_border, ~at_border)):
            sums[kind] += float(difference[chosen][both[chosen]].sum())
            counts[kind] += int(both[chosen].sum())
    border, inner = sums / np.maximum(counts, 1)
    return float(border / inner) if inner > 0 else 1.0


def command(verb: str, *arguments: object) -> dict[str, object]:
    """Run a subcommand; returns processor seconds, elapsed seconds, the exit code, and the end of its output."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([*COMMAND, verb, *map(str, arguments)], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = [line for line in done.stderr.splitlines() if line.strip()][-12:]
    return {"cpu": round(cpu, 1), "clock": round(time.monotonic() - started, 1), "code": done.returncode, "said": said}


def followed(case: Case, facts: dict[str, object]) -> None:
    """Write the mask of the content of a box in frame 0 with the command."""
    if case.boxed and not case.mask.is_dir():
        box = ",".join(map(str, case.boxed)) + ":0"
        facts["mask"] = command("mask", case.source, "--box", box, "--segmenter", "embedded", "--output", case.mask)


def opened(case: Case) -> Run:
    """Create the run folder of `lora-edit edit` for the case, with its defaults and seed 0."""
    if not (case.folder / "run" / "clip.json").is_file():
        mask = case.mask if case.boxed else None
        options = EditOptions(source=case.source, first_frame=case.first, mask=mask, seed=0, output=case.folder / "edit", **case.where)
        return create_run(resolve_run_settings(options), case.folder / "run")
    return Run(case.folder / "run")


def edit(case: Case, run: Run, facts: dict[str, object]) -> Results:
    """Run the steps of `lora-edit preview` and `lora-edit edit` on the case at once, since predicting takes long.

    Also returns the model's own clip. Notes processor seconds by stage and blockiness at the model's size.
    """
    settings, clip = run.read_settings(), load_inputs(run)
    watch = Watch()
    session = Session(open_family(resolve_edit(settings, clip)), clip, settings)
    prepared = session.prepare()
    preview = torch.stack(list(composite_clip(clip, paste_prediction(clip, prepared), settings.compositing)))
    watch.note("predict")
    session.train(run)
    watch.note("train")
    pixels = session.generate()
    delivered = session.composite(pixels).frames
    watch.note("sample and composite")
    canvas, raw = prepared.canvas, to_frames(pixels)
    shown = resize_frames(crop_frames(delivered, canvas.crop), canvas.size)
    blocks = {"source": to_frames(canvas.source), "raw": raw, "delivered": shown}
    facts["cpu"], facts["canvas"], facts["notes"] = watch.seconds, str(canvas.size), clip.notes
    facts["blockiness"] = {name: round(blockiness(frames[1:], canvas.edit_mask[1:]), 3) for name, frames in blocks.items()}
    return Results(preview, delivered, raw)


def row_over_time(clip: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """Build a picture of one row of pixels over time `[4 T, W, 3]`, four rows for each frame: the row that halves the region."""
    rows = region.sum((0, 2)).cumsum(0)
    row = int((rows >= rows[-1] / 2).nonzero()[0])
    return clip[:, row].repeat_interleave(4, 0)


def judge(case: Case) -> None:
    """Compute everything for one case that does not exist yet."""
    if (case.folder / "facts.json").exists():
        return
    facts: dict[str, object] = {}
    followed(case, facts)
    run = opened(case)
    made, clip = edit(case, run, facts), load_inputs(run)
    facts["region"] = [round(float(frame.float().mean()), 4) for frame in clip.edit_mask.frames]
    ours = {"source": clip.video.frames, "explained": made.preview, "delivered": made.delivered}
    for name, frames in (ours | {"raw": made.raw}).items():
        save_frames(case.folder / name, frames)
    rows = ours | dict(classical(case, clip))
    draw(case, rows, made.raw, clip.edit_mask.frames)
    (case.folder / "facts.json").write_text(json.dumps(facts, indent=1), "utf-8")


def classical(case: Case, clip: Clip) -> Iterator[tuple[str, torch.Tensor]]:
    """Compute the three baselines by name, or read existing ones, because they are slow."""
    for name, baseline in BASELINES.items():
        folder = case.folder / name.replace(" ", "-")
        if not folder.is_dir():
            save_frames(folder, baseline(clip.video.frames, clip.first_frame, clip.edit_mask))
        yield name, load_frames(folder)


def draw(case: Case, rows: Mapping[str, torch.Tensor], raw: torch.Tensor, region: torch.Tensor) -> None:
    """Draw the pictures for inspection."""
    names = ("source", "explained", "delivered")
    save_image(case.folder / "sheet.png", build_contact_sheet([*rows.values(), raw], [*rows, "raw"], 6, 200))
    middle = slice(len(raw) // 2 - 3, len(raw) // 2 + 3)
    save_image(case.folder / "steps.png", build_contact_sheet([rows[name][middle] for name in names], names, 6, 240))
    save_image(case.folder / "slice.png", torch.cat([row_over_time(rows[name], region) for name in names], 1))


def small_sheet(case: Path, best: str, picture: Path) -> None:
    """Write a WebP for a page: source, explained edit, result and the baseline `best` of a finished case in six frames."""
    rows = {name: load_frames(case / name.replace(" ", "-")) for name in ("source", "explained", "delivered", best)}
    sheet = build_contact_sheet(list(rows.values()), [*list(rows)[:3], f"best baseline: {best}"], 6, 130)
    cv2.imwrite(str(picture), sheet.numpy()[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, 70])


def main(arguments: Sequence[str] | None = None) -> None:
    """Cut, edit, run and draw, clip by clip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="*", default=[clip.name for clip in CLIPS])
    parser.add_argument("--also", nargs="*", type=Path, default=[], metavar="SOURCE FIRST")
    parser.add_argument(
        "--sheet", nargs=3, metavar=("NAME", "BASELINE", "PICTURE.webp"), help="draw a finished case small, and run nothing"
    )
    parser.add_argument("--cut", action="store_true", help="cut and edit first frames, and run nothing")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if args.sheet:
        small_sheet(args.output / args.sheet[0], args.sheet[1], Path(args.sheet[2]))
        return
    cases = [cut_case(clip, args.data, args.output) for clip in CLIPS if clip.name in args.only and args.data]
    cases += [
        Case(args.output / f"{source.parent.name}-{first.stem}", source, first)
        for source, first in zip(args.also[::2], args.also[1::2], strict=True)
    ]
    for case in [] if args.cut else cases:
        case.folder.mkdir(parents=True, exist_ok=True)
        judge(case)
        print(case.folder, flush=True)


if __name__ == "__main__":
    main()
