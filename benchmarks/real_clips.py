"""Ten real clips that no training saw, edited as a person would, to be looked at.

`PYTHONPATH=src python benchmarks/real_clips.py OUTPUT --data FOLDER [--only NAME ...] [--also SOURCE FIRST ...]` cuts the clips out of what
`tools/pretrain/fetch_data.py` fetched into FOLDER, edits their first frames by code, and runs the command (`preview`, `edit`, both with
their defaults) and the three baselines on each. What lies in OUTPUT already is kept. Per clip: `sheet.png`, all results in six
frames; `steps.png`, consecutive frames around the middle; `slice.png`, one row of pixels over time; `facts.json`, processor
seconds, notes and blockiness. `--also` takes further pairs of a clip and its edited first frame, with no region.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import real_clip_edits as edits
import torch

from lora_edit.compositing.region import crop_frames
from lora_edit.estimate import open_family
from lora_edit.inputs import Clip, load_inputs
from lora_edit.learning import learn
from lora_edit.propagation.baselines import BASELINES
from lora_edit.reporting import Silent
from lora_edit.run import Run
from lora_edit.samples import draw_clip, prepare
from lora_edit.types import Video
from lora_edit.video.lossless import load_frames, save_frames
from lora_edit.video.ranges import to_frames
from lora_edit.video.read import read_video
from lora_edit.video.resize import resize_frames
from lora_edit.video.settings import VideoSettings
from lora_edit.video.sheet import contact_sheet, save_image
from lora_edit.video.write import write_video

COMMAND = [sys.executable, "-c", "from lora_edit.cli.main import main; main()"]

CELL = 8
"""Rows and columns of the cells whose borders the model's codec may show."""


@dataclass(frozen=True)
class RealClip:
    """Every `step`th frame of `film` from `first` on, `count` of them; `crop` (left, top, right, bottom) in the film's pixels, scaled
    to `size` (width, height). `where` is what a person adds to the command; a `boxed` thing (left, top, width, height in frame 0) is
    followed by `lora-edit mask` first."""

    name: str
    film: str
    first: int
    step: int
    count: int
    crop: tuple[int, int, int, int]
    size: tuple[int, int]
    edit: edits.Edit
    where: tuple[str, ...] = ()
    boxed: tuple[int, int, int, int] | None = None

    def cut(self, data: Path) -> Video:
        """The clip out of the film."""
        film = read_video(data / self.film, VideoSettings(start=self.first, frames=(self.count - 1) * self.step + 1))
        left, top, right, bottom = self.crop
        frames = film.frames[:: self.step, top:bottom, left:right].numpy()
        small = np.stack([cv2.resize(frame, self.size, interpolation=cv2.INTER_AREA) for frame in frames])
        times = tuple(each - film.times[0] for each in film.times[:: self.step])
        return Video(torch.from_numpy(small), film.fps / self.step, times)


def points(*places: tuple[int, int]) -> tuple[str, ...]:
    """Clicks in the first frame, as the command takes them."""
    return tuple(part for x, y in places for part in ("--point", f"{x},{y}"))


WHOLE, SMALL = (0, 0, 1280, 720), (0, 0, 640, 480)
BUNNY, BOX, CUP = "bbb.mp4", "box.mp4", "cup.mp4"
CLIPS = (
    RealClip("label", BOX, 120, 2, 48, SMALL, (480, 360), edits.label),
    RealClip("tablecloth", BOX, 240, 2, 48, SMALL, (480, 360), edits.chequered, points((200, 260), (400, 300))),
    RealClip("striped-cup", CUP, 32, 1, 48, SMALL, (448, 336), edits.striped, boxed=(215, 72, 92, 204)),
    RealClip("red-lid", CUP, 104, 1, 48, SMALL, (448, 336), edits.red_lid, boxed=(232, 54, 86, 70)),
    RealClip("leap", BUNNY, 9384, 1, 36, WHOLE, (480, 270), edits.blue_fur, boxed=(0, 60, 285, 190)),
    RealClip("glasses", BUNNY, 8036, 1, 48, WHOLE, (480, 270), edits.glasses),
    RealClip("party-hat", BUNNY, 4167, 1, 24, (240, 0, 1200, 720), (480, 360), edits.party_hat, ("--box", "190,20,130,130")),
    RealClip("butterfly", BUNNY, 3236, 1, 48, (300, 60, 1100, 660), (480, 360), edits.orange_wings, points((292, 160), (350, 160))),
    RealClip("mushrooms", BUNNY, 8237, 1, 48, (160, 180, 960, 630), (480, 270), edits.without_mushrooms, boxed=(150, 126, 110, 76)),
    RealClip("night", BUNNY, 8704, 1, 48, WHOLE, (480, 270), edits.night),
)
"""The film's frames lie in shots that `tools/pretrain/film.py` keeps out of training; the other two films are not in it at all."""


@dataclass(frozen=True)
class Case:
    """An edit to be tried: a `folder` for what comes of it, the clip, its edited first frame, and what is added to the command."""

    folder: Path
    source: Path
    first: Path
    where: tuple[str, ...] = ()
    boxed: tuple[int, int, int, int] | None = None

    @property
    def mask(self) -> Path:
        """What is followed from a box before the edit."""
        return self.folder / "mask"


def cut_case(clip: RealClip, data: Path, output: Path) -> Case:
    """The clip as an .mp4 file, and its first frame as that file shows it, edited."""
    case = Case(output / clip.name, output / clip.name / "source.mp4", output / clip.name / "first.png", clip.where, clip.boxed)
    if not case.source.exists():
        write_video(case.source, clip.cut(data))
    picture = read_video(case.source, VideoSettings(frames=1)).frames[0].numpy()
    save_image(case.first, torch.from_numpy(clip.edit(picture, np.random.default_rng(0))))
    return case


def blockiness(frames: torch.Tensor, region: torch.Tensor) -> float:
    """Mean absolute difference of neighbours across borders of 8x8 cells, as a multiple of that inside the cells; 1 where there are none.

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
    """Run a verb of the command; processor seconds, seconds by the clock, its exit code, and the last of what it said."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([*COMMAND, verb, *map(str, arguments)], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = [line for line in done.stderr.splitlines() if line.strip()][-12:]
    return {"cpu": round(cpu, 1), "clock": round(time.monotonic() - started, 1), "code": done.returncode, "said": said}


def run_commands(case: Case, facts: dict[str, object]) -> None:
    """The mask where a box is followed, the preview and the edit, each where it is not there yet."""
    followed = ("--box", ",".join(map(str, case.boxed)) + ":0", "--segmenter", "embedded") if case.boxed else ()
    if followed and not case.mask.is_dir():
        facts["mask"] = command("mask", case.source, *followed, "--output", case.mask)
    where = ("--mask", case.mask) if followed else case.where
    for verb, more in (("preview", ()), ("edit", ("--seed", "0", "--run", case.folder / "run"))):
        if not (case.folder / verb).is_dir():
            output = case.folder / verb
            facts[verb] = command(verb, case.source, "--first-frame", case.first, *where, *more, "--output", output)


def raw_and_blockiness(case: Case, delivered: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """The model's own clip at its own size, drawn again with the run's LoRA, and how blocky source, model and result are there."""
    run = Run(case.folder / "run")
    settings, clip = run.settings(), load_inputs(run)
    family = open_family(settings, clip)
    prepared = prepare(family, clip, settings)
    learn(run, settings, clip, family, Silent(), prepared=prepared)
    canvas = prepared.canvas
    raw = to_frames(draw_clip(family, prepared, settings, settings.seed, lambda *_: None, lambda _: None))
    shown = resize_frames(crop_frames(delivered, canvas.crop), canvas.size)
    clips = {"source": to_frames(canvas.source), "raw": raw, "delivered": shown}
    return raw, {name: blockiness(frames[1:], canvas.edit_mask[1:]) for name, frames in clips.items()}


def classical(case: Case, clip: Clip) -> Iterator[tuple[str, torch.Tensor]]:
    """The three baselines on the case's region, kept in its folder."""
    for name, baseline in BASELINES.items():
        folder = case.folder / name.replace(" ", "-")
        if not folder.is_dir():
            save_frames(folder, baseline(clip.video.frames, clip.first_frame, clip.edit_mask))
        yield name, load_frames(folder)


def row_over_time(clip: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """One row of pixels over time `[4 T, W, 3]`, four rows for each frame: the row that crosses most of the region."""
    row = int(region.flatten(2).sum((0, 2)).argmax()) if region.any() else clip.shape[1] // 2
    return clip[:, row].repeat_interleave(4, 0)


def judge(case: Case) -> None:
    """Everything for one case; what lies there already is not made again."""
    facts_file = case.folder / "facts.json"
    facts = json.loads(facts_file.read_text("utf-8")) if facts_file.exists() else {}
    run_commands(case, facts)
    facts_file.write_text(json.dumps(facts, indent=1), "utf-8")
    if not (case.folder / "edit").is_dir():
        return
    clip = load_inputs(Run(case.folder / "run"))
    rows = {"source": clip.video.frames, "explained": load_frames(case.folder / "preview"), "delivered": load_frames(case.folder / "edit")}
    rows |= dict(classical(case, clip))
    raw, facts["blockiness"] = raw_and_blockiness(case, rows["delivered"])
    facts["region"] = [round(float(frame.float().mean()), 4) for frame in clip.edit_mask.frames]
    facts_file.write_text(json.dumps(facts, indent=1), "utf-8")
    save_image(case.folder / "sheet.png", contact_sheet([*rows.values(), raw], [*rows, "raw"], 6, 200))
    middle = slice(len(raw) // 2 - 3, len(raw) // 2 + 3)
    ours = [rows[name] for name in ("source", "explained", "delivered")]
    save_image(case.folder / "steps.png", contact_sheet([each[middle] for each in ours], ["source", "explained", "delivered"], 6, 240))
    slices = torch.cat([row_over_time(each, clip.edit_mask.frames) for each in ours], 1)
    save_image(case.folder / "slice.png", slices)


def main(arguments: Sequence[str] | None = None) -> None:
    """Cut, edit, run, draw, clip by clip."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--only", nargs="*", default=[clip.name for clip in CLIPS])
    parser.add_argument("--also", nargs="*", type=Path, default=[], metavar="SOURCE FIRST")
    parser.add_argument("--cut", action="store_true", help="cut and edit first frames, and run nothing")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
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
