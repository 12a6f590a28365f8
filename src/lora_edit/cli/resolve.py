"""Options to settings: preset, then the config file, then the options given, then `--set`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lora_edit.cli.model_cards import require_model
from lora_edit.cli.options import RegionOptions, RunOptions, parse_boxes, parse_keyframes, parse_loras
from lora_edit.cli.prompts import POINT_SYNTAX, pair_click_options, parse_coordinates
from lora_edit.config import EditSettings, merge_tables, read_toml, resolve_settings
from lora_edit.errors import MaskError, SettingsError, VideoError
from lora_edit.run import default_run_folder
from lora_edit.video.paths import protect_inputs, stat_path

REGION_HELP = (
    "give one of --mask PATH (white = edit; a video, a folder of images or one image), --box X,Y,W,H[:FRAME] and --point X,Y[:FRAME]; "
    "to edit whole frames, give an all-white image as --mask"
)


REGION_KEYS = ("mask", "boxes", "points")
"""What of `[input]` says where to edit."""


def resolve_run_settings(options: RunOptions) -> EditSettings:
    """Settings of `edit`, whose model has to be here. Raises `InputError` kin."""
    settings = resolve_plan_settings(options)
    require_model(settings.model)
    return settings


def resolve_plan_settings(options: RunOptions) -> EditSettings:
    """Settings of `new`, whatever is here of the model. Raises `InputError` kin."""
    region = build_region_tables(options)
    tables = read_config_tables(options.config)
    if options.mask or options.box or options.point or options.not_point:  # replaces the region of the config file, whatever its kind
        tables["input"] = {key: value for key, value in tables.get("input", {}).items() if key not in REGION_KEYS}
    return _resolve_tables(merge_tables(merge_tables(tables, region), build_method_tables(options)), options.assignments)


def resolve_preview_settings(options: RegionOptions) -> EditSettings:
    """Settings of `preview`. Raises `InputError` kin."""
    return _resolve_tables(build_region_tables(options), [])


def _resolve_tables(tables: dict[str, Any], assignments: list[str]) -> EditSettings:
    given = tables.get("input", {})
    if not given.get("source"):
        raise SettingsError("SOURCE is missing; give the clip to edit: a video, a folder of images or a GIF")
    if not given.get("first_frame"):
        raise SettingsError("the edited first frame is missing; give it as --first-frame IMAGE")
    if sum(bool(given.get(kind)) for kind in REGION_KEYS) > 1:
        raise MaskError(f"where to edit is given twice; {REGION_HELP}")
    settings = resolve_settings(tables, assignments)
    given = settings.input
    later = [keyframe.image for keyframe in (*given.references, *given.anchors)]
    require_files(given.source, given.first_frame, given.mask, *later, *(file for file, _ in settings.generation.list_lora_paths()))
    return settings


def build_region_tables(options: RegionOptions) -> dict[str, Any]:
    """The given options of `RegionOptions` as settings tables. Raises `MaskError` for two kinds of region, or half of one."""
    if sum(bool(each) for each in (options.mask, options.box, options.point)) > 1:
        raise MaskError(f"where to edit is given twice; {REGION_HELP}")
    if options.not_point and not options.point:
        raise MaskError("--not-point corrects what --point outlined; give --point X,Y[:FRAME] on the object too")
    tables = {
        "input": {
            "source": _make_absolute(options.source),
            "first_frame": _make_absolute(options.first_frame),
            "mask": _make_absolute(options.mask),
            "boxes": parse_boxes(options.box) or None,
            "points": parse_points(options.point, options.not_point) or None,
        },
        "masks": {"shape": options.mask_shape and options.mask_shape.value, "expand": options.expand},
        "video": {"start": options.start, "frames": options.frames, "fps": options.fps},
    }
    return drop_missing(tables)


def build_method_tables(options: RunOptions) -> dict[str, Any]:
    """The given options of `RunOptions` beyond those of `RegionOptions`."""
    tables = {
        "input": {
            "references": parse_keyframes("--reference", options.reference) or None,
            "anchors": parse_keyframes("--anchor", options.anchor) or None,
        },
        "model": options.model and make_model_absolute(options.model),
        "preset": options.preset and options.preset.value,
        "prompt": options.prompt,
        "seed": options.seed,
        "video": {"codec": options.codec and options.codec.value},
        "generation": {"loras": [{"file": str(file), "strength": strength} for file, strength in parse_loras(options.lora)] or None},
        "compositing": {"enabled": False if options.no_composite else None},
    }
    return drop_missing(tables)


def drop_missing(tables: Mapping[str, Any]) -> dict[str, Any]:
    """The tables without what is None, and without tables that are then empty."""
    kept = {key: drop_missing(value) if isinstance(value, Mapping) else value for key, value in tables.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}


def parse_points(points: list[str], not_points: list[str]) -> list[dict[str, Any]]:
    """Every `--point` and `--not-point` as a table of `config.KeyPoint`. Raises `MaskError`."""
    places = [
        (option, *parse_coordinates(option, text, POINT_SYNTAX, "1"))
        for option, texts in pair_click_options(points, not_points)
        for text in texts
    ]
    return [{"x": x, "y": y, "on": option == "--point", "frame": frame or 0, "object": name} for option, (x, y), frame, name in places]


def read_config_tables(path: Path | None) -> dict[str, Any]:
    """A config file's tables; relative paths in its `[input]` and of its LoRAs are taken from the file's own folder."""
    if path is None:
        return {}
    tables = read_toml(path)
    given = tables.get("input", {})
    if not isinstance(given, dict):
        raise SettingsError(f"{path}: input is not a table; write [input] with source, first_frame and mask or boxes")
    folder = path.absolute().parent
    for key in ("source", "first_frame", "mask"):
        if isinstance(given.get(key), str):
            given[key] = str(folder / given[key])
    for keyframe in (*_filter_tables(given.get("references")), *_filter_tables(given.get("anchors"))):
        if isinstance(keyframe.get("image"), str):
            keyframe["image"] = str(folder / keyframe["image"])
    generation = tables.get("generation", {})
    for lora in _filter_tables(generation.get("loras")) if isinstance(generation, dict) else []:
        if isinstance(lora.get("file"), str):
            lora["file"] = str(folder / lora["file"])
    return tables


def _filter_tables(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def make_model_absolute(name: str) -> str:
    """The name with a folder or file in it made absolute."""
    known, at, place = name.rpartition("@")
    return f"{known}{at}{Path(place).absolute()}" if Path(place).exists() else name


def require_files(*paths: Path | None) -> None:
    """Raise `VideoError` for the first path that is not there: told at once, before anything heavy is loaded."""
    for path in paths:
        if path is None:
            continue
        stat_path(path)
        try:
            str(path).encode("utf-8")
        except UnicodeEncodeError as error:  # settings are kept as text
            raise VideoError(f"{str(path)!r}: the name is not valid UTF-8; rename the file or folder") from error


def choose_run_folder(run: Path | None, output: Path | None) -> Path:
    """The run folder: as given, or `<output stem>.run` beside the output. Raises `SettingsError` when neither is given."""
    if run is not None:
        return run
    if output is None:
        raise SettingsError("where the run folder should be is missing; give --run FOLDER or --output")
    if output.name in ("", ".."):
        raise SettingsError(f"--output {output}: names neither a file nor a folder of its own; give a name, such as result.mp4")
    return default_run_folder(output)


def protect_input(output: Path, settings: EditSettings, overwrite: bool = True) -> None:
    """Raise `VideoError` when the output is one of the input files, so that `--overwrite` cannot destroy them, or without it any file."""
    protect_inputs(output, settings.input.list_files())
    if output.is_file() and not overwrite:
        raise VideoError(f"{output}: exists already; choose another name or add --overwrite")


def _make_absolute(path: Path | None) -> str | None:
    # A run folder is used from wherever people stand later.
    return None if path is None else str(path.absolute())
