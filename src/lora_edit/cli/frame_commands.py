"""The verbs about single frames: one as a picture, and the first one edited."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from lora_edit.cli.error_handling import CommandState
from lora_edit.cli.options import LORA_METAVAR, RESULT_PANEL, Overwrite, Threads, make_typer_command, parse_boxes, parse_loras, parse_rate
from lora_edit.cli.progress import open_compute_reporter, open_reporter
from lora_edit.errors import VideoError

REGION_PANEL = "Where to edit (at most one; the rest stays the source's, pixel by pixel)"
EDITOR_NAMES = "qwen-image-edit, flux-kontext, flux-fill"


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """Options of `frame`."""

    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The clip: a video, a folder of images or a GIF.", show_default=False)]
    number: Annotated[int, typer.Argument(metavar="N", help="Which frame, from 0, counted from --start.", show_default=False, min=0)]
    start: Annotated[int, typer.Option("--start", metavar="S", help="First source frame, from 0, as in `edit`.", min=0)] = 0
    frames: Annotated[int | None, typer.Option("--frames", metavar="N", help="Number of frames, as in `edit`.", min=1)] = None
    fps: Annotated[
        float | None,
        typer.Option("--fps", metavar="RATE", help="Frame rate, as in `edit`; the frames stay the same.", parser=parse_rate),
    ] = None
    output: Annotated[Path, typer.Option("--output", "-o", metavar="IMAGE", help="A .png file.", rich_help_panel=RESULT_PANEL)]
    overwrite: Overwrite = False


@make_typer_command(FrameOptions)
def frame(state: CommandState, options: FrameOptions) -> None:
    """Write frame N of a clip, from 0, as the edit reads it: a picture to edit for --first-frame (N = 0), --reference or --anchor."""
    from lora_edit.cli.resolve import require_files

    require_files(options.source)
    if options.output.suffix.lower() != ".png":
        raise VideoError(f"{options.output}: pictures are written without loss; end the name in .png")
    if options.output.exists() and not options.overwrite:
        raise VideoError(f"{options.output}: exists already; choose another name or add --overwrite")
    if options.frames is not None and options.number >= options.frames:
        raise VideoError(f"frame {options.number}: the range has frames 0 to {options.frames - 1}; give one of these")
    with open_reporter():
        from lora_edit.video.read import probe_video, read_video
        from lora_edit.video.settings import VideoSettings
        from lora_edit.video.sheet import save_image

        # What comes after the frame need not be decoded, where the clip is known to have it.
        there = probe_video(options.source).num_frames
        enough = options.number + 1 if there and options.start + options.number < there else None
        video = read_video(options.source, VideoSettings(start=options.start, frames=options.frames or enough, fps=options.fps))
        if options.number >= video.num_frames:
            raise VideoError(f"frame {options.number}: the range has frames 0 to {video.num_frames - 1}; give one of these")
        save_image(options.output, video.frames[options.number])
    typer.echo(options.output)


@dataclass(frozen=True, kw_only=True)
class EditFrameOptions:
    """Options of `edit-frame`."""

    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The clip: a video, a folder of images or a GIF.", show_default=False)]
    instruction: Annotated[
        str, typer.Option("--instruction", metavar="TEXT", help="What to change; for flux-fill, what is to be seen in the mask.")
    ]
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help=f"{EDITOR_NAMES}, or NAME@FOLDER. Licences: docs/first-frame.md.")
    ] = "qwen-image-edit"
    mask: Annotated[
        Path | None,
        typer.Option("--mask", metavar="PATH", help="White = edit: an image, or the clip's mask.", rich_help_panel=REGION_PANEL),
    ] = None
    box: Annotated[
        list[str], typer.Option("--box", metavar="X,Y,W,H", help="Rectangle in source pixels; repeatable.", rich_help_panel=REGION_PANEL)
    ] = field(default_factory=list)
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="IMAGE", help="A picture of what to put into the mask, for flux-fill with an ACE++ LoRA."),
    ] = None
    lora: Annotated[
        list[str], typer.Option("--lora", metavar=LORA_METAVAR, help="A LoRA for the editor, such as ACE++'s for flux-fill; repeatable.")
    ] = field(default_factory=list)
    start: Annotated[int, typer.Option("--start", metavar="S", help="The frame to edit, from 0.", min=0)] = 0
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Same seed, same picture.", min=0)] = 0
    output: Annotated[Path, typer.Option("--output", metavar="IMAGE", help="A .png file.", rich_help_panel=RESULT_PANEL)]
    overwrite: Overwrite = False
    threads: Threads = None


@make_typer_command(EditFrameOptions)
def edit_frame(state: CommandState, options: EditFrameOptions) -> None:
    """Edit the first frame by instruction, for `edit --first-frame`. Prints the picture's path. Any other image tool will do as well."""

    from lora_edit.cli.resolve import require_files

    require_files(options.source)
    boxes = parse_boxes(options.box)
    loras = parse_loras(options.lora)
    with open_compute_reporter(options.threads) as reporter:
        from lora_edit.first_frame import FrameEdit, edit_first_frame
        from lora_edit.masks.boxes import KeyframeBox
        from lora_edit.types import Box

        keyed = [KeyframeBox(Box(b["x"], b["y"], b["width"], b["height"]), b.get("frame"), b.get("object", "1")) for b in boxes]
        wanted = FrameEdit(
            source=options.source,
            instruction=options.instruction,
            output=options.output,
            model=options.model,
            mask=options.mask,
            boxes=keyed,
            start=options.start,
            loras=loras,
            seed=options.seed,
            overwrite=options.overwrite,
            reference=options.reference,
        )
        path = edit_first_frame(wanted, reporter)
    typer.echo(path)
