"""The subcommand that creates masks: mask."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lora_edit.cli.error_handling import CommandState
from lora_edit.cli.options import RESULT_PANEL, MaskShapeName, Overwrite, Threads, make_typer_command
from lora_edit.cli.progress import open_compute_reporter
from lora_edit.cli.prompts import (
    BOX_SYNTAX,
    POINT_SYNTAX,
    build_automatic_prompt,
    build_prompts,
    parse_prompts,
)
from lora_edit.errors import MaskError

if TYPE_CHECKING:
    from lora_edit.masks.segmenter import Prompt
    from lora_edit.reporting import Reporter
    from lora_edit.types import EditMask, Video

LOSSLESS_SUFFIXES = (".mp4", ".mov", ".mkv")
SEGMENTING_PANEL = "Segmenting"


@dataclass(frozen=True, kw_only=True)
class MaskOptions:
    """Options of `mask`."""

    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="The clip.", show_default=False)]
    box: Annotated[
        list[str],
        typer.Option("--box", metavar=BOX_SYNTAX, help="Rectangle in source pixels; boxes at several frames are interpolated."),
    ] = field(default_factory=list)
    first_frame: Annotated[
        Path | None,
        typer.Option("--first-frame", metavar="IMAGE", help="Edited first frame: what it changes is tracked through the clip."),
    ] = None
    point: Annotated[
        list[str],
        typer.Option(
            "--point",
            metavar=POINT_SYNTAX,
            help="A point on the object, which is segmented and tracked; repeatable.",
            rich_help_panel=SEGMENTING_PANEL,
        ),
    ] = field(default_factory=list)
    not_point: Annotated[
        list[str],
        typer.Option("--not-point", metavar=POINT_SYNTAX, help="A point off the object; repeatable.", rich_help_panel=SEGMENTING_PANEL),
    ] = field(default_factory=list)
    auto: Annotated[
        bool,
        typer.Option(
            "--auto", help="Segment the salient object of the first frame; needs the extra `segment`.", rich_help_panel=SEGMENTING_PANEL
        ),
    ] = False
    segment: Annotated[
        str | None,
        typer.Option(
            "--segment",
            metavar="TEXT",
            help="A description of the object in the first frame; needs --segmenter sam2:FOLDER with SAM 3.",
            rich_help_panel=SEGMENTING_PANEL,
        ),
    ] = None
    object: Annotated[str, typer.Option("--object", metavar="NAME", help="Name of the object for prompts without #NAME.")] = "1"
    segmenter: Annotated[
        str | None,
        typer.Option(
            "--segmenter",
            metavar="embedded|sam2:FOLDER",
            help="Segmenter of points and boxes; embedded needs no model.",
            rich_help_panel=SEGMENTING_PANEL,
        ),
    ] = None
    shape: Annotated[MaskShapeName, typer.Option("--shape", help="Shape of the written mask.")] = MaskShapeName.AS_IS
    bridge: Annotated[
        bool,
        typer.Option("--bridge", help="Fill gaps in which an object is hidden.", rich_help_panel=SEGMENTING_PANEL),
    ] = False
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for PNG, or .mp4, .mov, .mkv.", rich_help_panel=RESULT_PANEL)
    ]
    overlay: Annotated[
        Path | None,
        typer.Option("--overlay", metavar="VIDEO", help="Also write the clip with the region drawn on it.", rich_help_panel=RESULT_PANEL),
    ] = None
    overwrite: Overwrite = False
    threads: Threads = None

    @property
    def needs_segmenter(self) -> bool:
        """Whether a segmenter is needed. Boxes alone are drawn as they are."""
        return bool(self.point or self.not_point or self.segmenter or self.auto or self.segment is not None)


@make_typer_command(MaskOptions)
def mask(state: CommandState, options: MaskOptions) -> None:
    """Create a mask (white = edit) from boxes, points, the salient object, or what an edited first frame changes."""
    if (options.first_frame and (options.box or options.needs_segmenter)) or not (
        options.first_frame or options.box or options.needs_segmenter
    ):
        raise MaskError(
            f"give the region in one way: --box X,Y,W,H[:FRAME] or --point {POINT_SYNTAX} in source pixels, --segment TEXT, --auto, or "
            "--first-frame IMAGE"
        )
    from lora_edit.cli.resolve import check_output_path, require_files

    require_files(options.source, options.first_frame)
    suffix = options.output.suffix.lower()
    if suffix and suffix not in LOSSLESS_SUFFIXES:
        raise MaskError(
            f"{options.output}: masks are stored losslessly; give a folder for PNG, or end the name in {', '.join(LOSSLESS_SUFFIXES)}"
        )
    parsed_prompts = parse_prompts(options.point, options.not_point, options.box, options.object)
    from lora_edit.masks.segmenter_registry import EMBEDDED, check_segmenter_name, check_text_prompt

    check_segmenter_name(options.segmenter or EMBEDDED)
    if options.segment is not None:
        check_text_prompt(options.segment, options.segmenter or EMBEDDED)
    for path in (options.output, options.overlay):
        if path is not None:
            check_output_path(path, [options.source, options.first_frame], overwrite=options.overwrite)
    with open_compute_reporter(options.threads) as reporter:
        from lora_edit.masks.settings import MaskSettings
        from lora_edit.masks.shapes import shape_mask
        from lora_edit.video.read import read_video

        _check_outputs(options)
        prompts = build_prompts(parsed_prompts)
        video = read_video(options.source)
        region = _segment_objects(options, video, prompts, reporter) if options.needs_segmenter else _build_mask(options, video, prompts)
        defaults = MaskSettings()
        region = shape_mask(region, options.shape.value, defaults.expand, defaults.smooth)
        for text in region.notes:
            reporter.note(text)
        _write_mask(options, video, region)
    typer.echo(options.output)


def _check_outputs(options: MaskOptions) -> None:
    """Raise `VideoError` for outputs that cannot be written, such as folders that hold other files."""
    from lora_edit.video.write import check_output

    for path in (options.output, options.overlay):
        if path is not None:
            check_output(path, overwrite=options.overwrite)


def _build_mask(options: MaskOptions, video: Video, prompts: list[Prompt]) -> EditMask:
    """Build the mask from boxes, or from what the edited first frame changes."""
    from lora_edit.masks.boxes import KeyframeBox, mask_from_boxes
    from lora_edit.masks.change_detection import fit_first_frame
    from lora_edit.masks.edit_region import find_edit_region
    from lora_edit.video.read import read_image

    if options.first_frame:
        return find_edit_region(video.frames, fit_first_frame(read_image(options.first_frame), video.size)[0])
    return mask_from_boxes([each for each in prompts if isinstance(each, KeyframeBox)], video.num_frames, video.size)


def _segment_objects(options: MaskOptions, video: Video, prompts: list[Prompt], reporter: Reporter) -> EditMask:
    """Segment all prompted objects to one mask. Raises `MaskError` before loading a model if the prompts do not fit the clip."""
    from lora_edit.masks.segmenter import check_prompts
    from lora_edit.masks.segmenter_registry import EMBEDDED, detect_prompts, load_segmenter
    from lora_edit.masks.shapes import interpolate_missing_frames, union

    name = options.segmenter or EMBEDDED

    if options.auto:
        prompts = [build_automatic_prompt(video.frames[0], options.object), *prompts]
    if options.segment is not None:
        prompts = [*detect_prompts(name, video.frames[0], options.segment), *prompts]
    check_prompts(prompts, video.num_frames, video.size)
    masks = load_segmenter(name).segment(video.frames, prompts, lambda done, total: reporter.step("segmenting", done, total, ""))
    return union([interpolate_missing_frames(each) if options.bridge else each for each in masks.values()])


def _write_mask(options: MaskOptions, video: Video, edit_mask: EditMask) -> None:
    from lora_edit.masks.files import save_mask
    from lora_edit.masks.overlay import draw_region
    from lora_edit.video.write import write_video

    if options.output.suffix:
        white = edit_mask.frames.byte().mul_(255)[..., None].expand(-1, -1, -1, 3)
        silent = replace(video, frames=white, alpha=None, has_sound=False, source=None)
        write_video(options.output, silent, "ffv1" if options.output.suffix.lower() == ".mkv" else "h264-444", overwrite=options.overwrite)
    else:
        save_mask(options.output, edit_mask)
    if options.overlay is not None:
        for number, region in enumerate(edit_mask.frames):  # in place, as the clip is not needed any more
            video.frames[number] = draw_region(video.frames[number], region)
        write_video(options.overlay, replace(video, alpha=None), overwrite=options.overwrite)
