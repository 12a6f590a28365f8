"""The verb that draws masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from lora_edit.cli.failures import Session
from lora_edit.cli.options import RESULT, Overwrite, parse_boxes, takes
from lora_edit.cli.progress import reporting
from lora_edit.errors import MaskError


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Options of `mask`."""

    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The clip.", show_default=False)]
    box: Annotated[
        list[str], typer.Option("--box", metavar="X,Y,W,H[:FRAME]", help="Rectangle in source pixels; several frames are interpolated.")
    ] = field(default_factory=list)
    first_frame: Annotated[
        Path | None,
        typer.Option("--first-frame", metavar="IMAGE", help="Edited first frame: what it changes is followed through the clip."),
    ] = None
    point: Annotated[list[str], typer.Option("--point", metavar="X,Y[:FRAME]", help="On the object (not in this version).")] = field(
        default_factory=list
    )
    not_point: Annotated[list[str], typer.Option("--not-point", metavar="X,Y[:FRAME]", help="Off the object (not in this version).")] = (
        field(default_factory=list)
    )
    object: Annotated[str, typer.Option("--object", metavar="NAME", help="Name of the object, for messages.")] = "1"
    output: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Folder of mask images.", rich_help_panel=RESULT)]
    overwrite: Overwrite = False


@takes(MaskOptions)
def mask(session: Session, options: MaskOptions) -> None:
    """Draw a mask (white = edit): one PNG per source frame, for people to look at or retouch. Prints the folder."""
    from lora_edit.cli.resolve import NO_SEGMENTATION

    if options.point or options.not_point:
        raise MaskError(NO_SEGMENTATION)
    if bool(options.box) == bool(options.first_frame):
        raise MaskError("give either --box X,Y,W,H[:FRAME] in pixels of the source or --first-frame IMAGE, the edited first frame")
    boxes = parse_boxes(options.box)
    with reporting() as reporter:
        from lora_edit.masks.boxes import KeyedBox, mask_from_boxes
        from lora_edit.masks.check import fit_first_frame
        from lora_edit.masks.files import save_mask
        from lora_edit.masks.follow import follow_change
        from lora_edit.types import Box
        from lora_edit.video.read import read_image, read_video
        from lora_edit.video.write import check_output

        if options.output.suffix:
            raise MaskError(f"{options.output}: masks are written as a folder of PNG images; give a folder name without an ending")
        check_output(options.output, overwrite=options.overwrite)
        video = read_video(options.source)
        keyed = [KeyedBox(Box(b["x"], b["y"], b["width"], b["height"]), _frame(b), options.object) for b in boxes]
        if options.first_frame:
            drawn = follow_change(video.frames, fit_first_frame(read_image(options.first_frame), video.size)[0])
        else:
            drawn = mask_from_boxes(keyed, video.num_frames, video.size)
        for text in drawn.notes:
            reporter.note(text)
        save_mask(options.output, drawn)
    typer.echo(options.output)


def _frame(box: dict[str, float | int]) -> int | None:
    return int(box["frame"]) if "frame" in box else None
