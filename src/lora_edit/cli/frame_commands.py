"""The subcommands for single frames: frame, edit-frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from lora_edit.cli.error_handling import CommandState
from lora_edit.cli.options import LORA_METAVAR, RESULT_PANEL, Overwrite, Threads, make_typer_command, parse_boxes, parse_loras, parse_rate
from lora_edit.cli.progress import open_compute_reporter, open_reporter
from lora_edit.errors import VideoError

REGION_PANEL = "Where to edit (at most one; all other pixels stay those of the source)"
EDITOR_NAMES = "qwen-image-edit, flux-kontext, flux-fill"


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """Options of `frame`."""

    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The clip: a video, a folder of images or a GIF.", show_default=False)]
    number: Annotated[int, typer.Argument(metavar="N", help="Number of the frame, from 0, relative to --start.", show_default=False, min=0)]
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
    """Write frame N of a clip, from 0, exactly as `edit` reads it: an image to edit for --first-frame (N = 0), --reference or --anchor."""
    from lora_edit.cli.resolve import require_files

    require_files(options.source)
    if options.output.suffix.lower() != ".png":
        raise VideoError(f"{options.output}: images are written losslessly; end the name in .png")
    if options.output.exists() and not options.overwrite:
        raise VideoError(f"{options.output}: exists already; choose another name or add --overwrite")
    if options.frames is not None and options.number >= options.frames:
        raise VideoError(f"frame {options.number}: the range has frames 0 to {options.frames - 1}; give one of these")
    with open_reporter():
        from lora_edit.video.read import probe_video, read_video
        from lora_edit.video.settings import VideoSettings
        from lora_edit.video.sheet import save_image

        # If the clip is known to have the frame, frames after it need not be decoded.
        num_source_frames = probe_video(options.source).num_frames
        num_needed = options.number + 1 if num_source_frames and options.start + options.number < num_source_frames else None
        video = read_video(options.source, VideoSettings(start=options.start, frames=options.frames or num_needed, fps=options.fps))
        if options.number >= video.num_frames:
            raise VideoError(f"frame {options.number}: the range has frames 0 to {video.num_frames - 1}; give one of these")
        save_image(options.output, video.frames[options.number])
    typer.echo(options.output)


@dataclass(frozen=True, kw_only=True)
class EditFrameOptions:
    """Options of `edit-frame`."""

    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The clip: a video, a folder of images or a GIF.", show_default=False)]
    instruction: Annotated[
        str, typer.Option("--instruction", metavar="TEXT", help="What to change; for flux-fill, what the mask should show.")
    ]
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help=f"{EDITOR_NAMES}, or NAME@FOLDER. Licences: docs/first-frame.md.")
    ] = "qwen-image-edit"
    mask: Annotated[
        Path | None,
        typer.Option("--mask", metavar="PATH", help="White = edit: an image, or the mask of the clip.", rich_help_panel=REGION_PANEL),
    ] = None
    box: Annotated[
        list[str], typer.Option("--box", metavar="X,Y,W,H", help="Rectangle in source pixels; repeatable.", rich_help_panel=REGION_PANEL)
    ] = field(default_factory=list)
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="IMAGE", help="An image of what to put into the mask, for flux-fill with an ACE++ LoRA."),
    ] = None
    lora: Annotated[
        list[str],
        typer.Option("--lora", metavar=LORA_METAVAR, help="A LoRA for the editor, such as one of ACE++ for flux-fill; repeatable."),
    ] = field(default_factory=list)
    start: Annotated[int, typer.Option("--start", metavar="S", help="Number of the frame to edit, from 0.", min=0)] = 0
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Same seed, same image.", min=0)] = 0
    output: Annotated[Path, typer.Option("--output", metavar="IMAGE", help="A .png file.", rich_help_panel=RESULT_PANEL)]
    no_sign: Annotated[bool, typer.Option("--no-sign", help="Write the image without a signed manifest.", rich_help_panel=RESULT_PANEL)] = (
        False
    )
    overwrite: Overwrite = False
    threads: Threads = None


@make_typer_command(EditFrameOptions)
def edit_frame(state: CommandState, options: EditFrameOptions) -> None:
    """Edit the first frame by instruction, for `edit --first-frame`. Prints the path of the image. Any other image editor works as well."""
    from lora_edit.cli.resolve import require_files
    from lora_edit.config import KeyBox
    from lora_edit.first_frame import FrameEdit, check_frame_edit, edit_first_frame

    require_files(options.source)
    boxes = parse_boxes(options.box)
    loras = parse_loras(options.lora)
    request = FrameEdit(
        source=options.source,
        instruction=options.instruction,
        output=options.output,
        model=options.model,
        mask=options.mask,
        boxes=[KeyBox.model_validate(box) for box in boxes],
        start=options.start,
        loras=loras,
        seed=options.seed,
        overwrite=options.overwrite,
        reference=options.reference,
        sign=not options.no_sign,
    )
    check_frame_edit(request)
    require_files(options.mask, options.reference)
    with open_compute_reporter(options.threads) as reporter:
        path = edit_first_frame(request, reporter)
    typer.echo(path)
