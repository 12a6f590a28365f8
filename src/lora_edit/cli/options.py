"""Options that subcommands share, as frozen dataclasses, and parsers for boxes, frames and LoRAs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol, TypeVar, get_type_hints

import typer

from lora_edit.cli.error_handling import CommandState
from lora_edit.cli.prompts import BOX_SYNTAX, POINT_SYNTAX, parse_coordinates
from lora_edit.config import PresetName, list_marked_settings
from lora_edit.errors import MaskError, SettingsError
from lora_edit.setting_fields import Flag

REGION_PANEL = "Where to edit: one of these, else what the first frame changes"
EDITED_FRAMES_PANEL = "Edited frames"
RANGE_PANEL = "Range of the source"
RESULT_PANEL = "Result"
SETTINGS_PANEL = "Settings (preset, then --config, then these, then --set)"

_MAX_DIGITS = 18  # of a frame number; Python refuses to parse thousands
LORA_METAVAR = "FILE[:STRENGTH]"
LORA_HELP = "Another LoRA for generation (style, few steps), not for training; repeatable; default strength 1."


class MaskShapeName(StrEnum):
    """Shape of the mask that `mask` writes."""

    BOX = "box"
    TIGHT = "tight"
    NOISY = "noisy"
    AS_IS = "as-is"


class RegionShape(StrEnum):
    """Shape of the edit region for a given mask; `auto` depends on the edited first frame."""

    AUTO = "auto"
    BOX = "box"
    TIGHT = "tight"
    NOISY = "noisy"
    AS_IS = "as-is"


class CodecName(StrEnum):
    """Encoding of a video file."""

    H264 = "h264"
    H264_420 = "h264-420"
    H264_444 = "h264-444"
    PRORES = "prores"
    FFV1 = "ffv1"


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.", rich_help_panel=RESULT_PANEL)]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, help="Number of compute threads; default: the number of free cores."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the bare result.", rich_help_panel=RESULT_PANEL)]


def parse_rate(text: str) -> float:
    """Parse frames per second, a number or a ratio."""
    numerator, slash, denominator = str(text).partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except (ValueError, ZeroDivisionError) as error:
        raise typer.BadParameter(f"{text} is not a rate; write a number or a ratio, for instance 25 or 24000/1001") from error


@dataclass(frozen=True, kw_only=True)
class RegionOptions:
    """Options for a clip, its edited first frame and the edit region."""

    source: Annotated[
        Path | None, typer.Argument(metavar="SOURCE", help="The clip: a video, a folder of images or a GIF.", show_default=False)
    ] = None
    first_frame: Annotated[
        Path | None,
        typer.Option("--first-frame", metavar="IMAGE", help="The first frame as it should look.", rich_help_panel=EDITED_FRAMES_PANEL),
    ] = None
    mask: Annotated[
        Path | None,
        typer.Option(
            "--mask", metavar="PATH", help="White = edit: a video, a folder of images, or one image.", rich_help_panel=REGION_PANEL
        ),
    ] = None
    box: Annotated[
        list[str],
        typer.Option(
            "--box",
            metavar=BOX_SYNTAX,
            help="Rectangle in source pixels, in the first frame; it follows the edit. Boxes at several frames are interpolated.",
            rich_help_panel=REGION_PANEL,
        ),
    ] = field(default_factory=list)
    point: Annotated[
        list[str],
        typer.Option(
            "--point",
            metavar=POINT_SYNTAX,
            help="A point on the object, which is segmented and tracked as by `mask --point`.",
            rich_help_panel=REGION_PANEL,
        ),
    ] = field(default_factory=list)
    not_point: Annotated[
        list[str],
        typer.Option(
            "--not-point",
            metavar=POINT_SYNTAX,
            help="A point off the object; corrects the outline of --point.",
            rich_help_panel=REGION_PANEL,
        ),
    ] = field(default_factory=list)
    segment: Annotated[
        str | None,
        typer.Option(
            "--segment",
            metavar="TEXT",
            help="A description of the object, such as 'the red car'; needs --segmenter sam2:FOLDER with SAM 3.",
            rich_help_panel=REGION_PANEL,
        ),
    ] = None
    mask_shape: Annotated[
        RegionShape | None,
        typer.Option(
            "--mask-shape",
            metavar="SHAPE",
            help="Shape of the region: box (default), tight, noisy, as-is, or auto (default of tiny; depends on the mask).",
            rich_help_panel=REGION_PANEL,
        ),
    ] = None
    setting_flags: dict[str, Any] = field(default_factory=dict)
    """Values of the flags that settings declare (`setting_fields.Flag`), by `section.setting`; None where a flag is not given."""
    start: Annotated[int | None, typer.Option("--start", metavar="S", help="First source frame, from 0.", rich_help_panel=RANGE_PANEL)] = (
        None
    )
    frames: Annotated[
        int | None, typer.Option("--frames", metavar="N", help="Number of frames; default: all.", rich_help_panel=RANGE_PANEL)
    ] = None
    fps: Annotated[
        float | None,
        typer.Option(
            "--fps",
            metavar="RATE",
            help="Another rate, such as 25 or 24000/1001; drops the sound.",
            parser=parse_rate,
            rich_help_panel=RANGE_PANEL,
        ),
    ] = None
    threads: Threads = None


@dataclass(frozen=True, kw_only=True)
class RunOptions(RegionOptions):
    """All options of an edit but its output."""

    reference: Annotated[
        list[str],
        typer.Option(
            "--reference", metavar="N=IMAGE", help="Edited frame N (from 0), used in training.", rich_help_panel=EDITED_FRAMES_PANEL
        ),
    ] = field(default_factory=list)
    anchor: Annotated[
        list[str],
        typer.Option("--anchor", metavar="N=IMAGE", help="Edited frame N (from 0), shown unchanged.", rich_help_panel=EDITED_FRAMES_PANEL),
    ] = field(default_factory=list)
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="A name from `lora-edit models`, a folder, a file, or NAME@PLACE; default tiny.",
            rich_help_panel=SETTINGS_PANEL,
        ),
    ] = None
    preset: Annotated[
        PresetName | None,
        typer.Option(
            "--preset", help="A named set of settings: the paper's (standard), fewer steps, or less memory.", rich_help_panel=SETTINGS_PANEL
        ),
    ] = None
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="TEXT", help="What the edited clip shows.", rich_help_panel=SETTINGS_PANEL)
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed",
            metavar="N",
            help="Same seed, same result; default 0. Has little effect on tiny.",
            rich_help_panel=SETTINGS_PANEL,
        ),
    ] = None
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE.toml",
            help="Settings file, such as a run's edit.toml; may include the input.",
            rich_help_panel=SETTINGS_PANEL,
        ),
    ] = None
    lora: Annotated[list[str], typer.Option("--lora", metavar=LORA_METAVAR, help=LORA_HELP, rich_help_panel=SETTINGS_PANEL)] = field(
        default_factory=list
    )
    assignments: Annotated[
        list[str], typer.Option("--set", metavar="SECTION.SETTING=VALUE", help="Any other setting.", rich_help_panel=SETTINGS_PANEL)
    ] = field(default_factory=list)
    codec: Annotated[
        CodecName | None,
        typer.Option(
            "--codec",
            metavar="CODEC",
            help="h264 (default; the source's chroma subsampling), h264-420 (plays everywhere), h264-444, prores or ffv1.",
            rich_help_panel=RESULT_PANEL,
        ),
    ] = None
    no_composite: Annotated[
        bool, typer.Option("--no-composite", help="Keep the model's pixels outside the region as well.", rich_help_panel=RESULT_PANEL)
    ] = False
    run: Annotated[
        Path | None,
        typer.Option("--run", metavar="FOLDER", help="Run folder; default: beside the output.", rich_help_panel=RESULT_PANEL),
    ] = None
    overwrite: Overwrite = False
    json: Json = False


@dataclass(frozen=True, kw_only=True)
class EditOptions(RunOptions):
    """Options of `edit`."""

    output: Annotated[
        Path,
        typer.Option(
            "--output", metavar="OUT.mp4", help=".mp4, .mov, .mkv, .webm, .gif, or a folder for PNG.", rich_help_panel=RESULT_PANEL
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class NewOptions(RunOptions):
    """Options of `new`: the same as of `edit`, so that replacing one word makes a dry run."""

    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="OUT.mp4", help="Names the run folder if --run is missing.", rich_help_panel=RESULT_PANEL),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PreviewOptions(RegionOptions):
    """Options of `preview`."""

    output: Annotated[
        Path,
        typer.Option(
            "--output", metavar="OUT.mp4", help=".mp4, .mov, .mkv, .webm, .gif, or a folder for PNG.", rich_help_panel=RESULT_PANEL
        ),
    ]
    overwrite: Overwrite = False


class Options(Protocol):
    """A dataclass with fields that are annotated with Typer options."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=Options)


def make_typer_command(options_class: type[T]) -> Callable[[Callable[[CommandState, T], None]], Callable[..., None]]:
    """Decorate a function of `(state, options)` for Typer: the new function has one keyword for each field of `options_class`."""

    def decorate(function: Callable[[CommandState, T], None]) -> Callable[..., None]:
        flags = _list_flag_parameters() if "setting_flags" in options_class.__dataclass_fields__ else {}

        def command(ctx: typer.Context, **values: Any) -> None:
            setting_flags = {name: _read_flag(name, values.pop(parameter.name)) for name, parameter in flags.items()}
            function(ctx.obj, options_class(**values, **({"setting_flags": setting_flags} if flags else {})))

        hints = get_type_hints(options_class, include_extras=True)
        keywords: list[inspect.Parameter] = []
        for each in fields(options_class):
            if each.name == "setting_flags":
                keywords += flags.values()
            else:
                annotation = hints[each.name]
                keywords.append(
                    inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=_get_default(each), annotation=annotation)
                )
        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        command.__signature__ = inspect.Signature([context, *keywords])  # type: ignore[attr-defined]
        command.__annotations__ = {"ctx": typer.Context, **{each.name: each.annotation for each in keywords}}
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        return command

    return decorate


def _list_flag_parameters() -> dict[str, inspect.Parameter]:
    """Build an option for each setting that declares a flag, by `section.setting`."""
    parameters = {}
    for name, (flag, default) in list_marked_settings(Flag).items():
        section = name.partition(".")[0]
        panel = {"masks": REGION_PANEL, "provenance": RESULT_PANEL}.get(section, SETTINGS_PANEL)
        is_switch = isinstance(default, bool)
        text = f"{flag.help}." if is_switch or default is None else f"{flag.help}; default {default}."
        option = typer.Option(flag.flag, metavar=flag.metavar or None, help=text, rich_help_panel=panel)
        keyword = flag.flag.removeprefix("--").replace("-", "_")
        value_type = flag.value_type or type(default)
        annotation = Annotated[value_type | None, option]  # type: ignore[valid-type]
        parameters[name] = inspect.Parameter(keyword, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
    return parameters


def _read_flag(name: str, value: Any) -> Any:
    """Convert the value of a flag to that of its setting: a switch negates the default, and paths are made absolute."""
    if value is True:
        return not list_marked_settings(Flag)[name][1]
    return str(value.absolute()) if isinstance(value, Path) else value  # later commands may use the run from another working directory


def _get_default(option: Field[Any]) -> Any:
    if option.default_factory is not MISSING:
        return option.default_factory()
    return inspect.Parameter.empty if option.default is MISSING else option.default


def parse_box(text: str) -> dict[str, Any]:
    """Parse `X,Y,W,H[:FRAME][#NAME]` to a table of `config.KeyBox`. Raises `MaskError`."""
    (x, y, width, height), frame, name = parse_coordinates("--box", text, BOX_SYNTAX, "")
    table = {"x": x, "y": y, "width": width, "height": height, "frame": frame, "object": name or None}
    return {key: value for key, value in table.items() if value is not None}


def parse_boxes(texts: list[str]) -> list[dict[str, Any]]:
    """Parse all `--box` values. Boxes of one name form the track of one object: two of them at one frame raise `MaskError`."""
    boxes = [parse_box(text) for text in texts]
    keys = [(box["frame"], box.get("object")) for box in boxes if "frame" in box]
    for key in keys:
        if keys.count(key) > 1:
            raise MaskError(
                f"--box: two boxes of one object at frame {key[0]}; "
                "give one box that contains both, or name the objects: --box X,Y,W,H:FRAME#NAME"
            )
    return boxes


def parse_keyframe(option: str, text: str) -> tuple[int, Path]:
    """Parse `N=IMAGE` to frame number and path. `option` is the flag for the message. Raises `SettingsError`."""
    number, _, image = text.partition("=")
    if not number.strip().isdecimal() or len(number) > _MAX_DIGITS or not image.strip():
        raise SettingsError(f"{option} {text}: write N=IMAGE with a frame number from 0, for instance {option} 12=frame12.png")
    return int(number), Path(image)


def parse_keyframes(option: str, texts: list[str]) -> list[dict[str, int | str]]:
    """Parse all `N=IMAGE` values of a flag to tables of `config.Keyframe`. A frame that is given twice raises `SettingsError`."""
    pairs = [parse_keyframe(option, text) for text in texts]
    numbers = [number for number, _ in pairs]
    for number in numbers:
        if numbers.count(number) > 1:
            raise SettingsError(f"{option} {number}=...: frame {number} is given twice; give each frame once")
    return [{"frame": number, "image": str(image.absolute())} for number, image in pairs]


def parse_loras(texts: list[str]) -> list[tuple[Path, float]]:
    """Parse all `FILE[:STRENGTH]` values of `--lora`. Raises `SettingsError` for a strength outside -4 to 4."""
    loras: list[tuple[Path, float]] = []
    for text in texts:
        file, colon, number = text.rpartition(":")
        try:
            strength = float(number) if colon else 1.0
        except ValueError:  # the colon belongs to the path
            file, strength = text, 1.0
        if not -4 <= strength <= 4:
            raise SettingsError(f"--lora {text}: the strength must be a number from -4 to 4, for instance --lora style.safetensors:0.8")
        loras.append((Path(file if colon else text).absolute(), strength))
    return loras
