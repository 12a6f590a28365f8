"""Conversion of options to settings, and checks of paths.

Later sources override earlier ones: preset, config file, options, `--set`. Nothing here imports a heavy library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_edit.cli.model_cards import require_model
from lora_edit.cli.options import RegionOptions, RunOptions, parse_boxes, parse_keyframes, parse_loras
from lora_edit.cli.prompts import parse_prompts
from lora_edit.config import EditSettings, merge_tables, read_toml, resolve_settings
from lora_edit.errors import MaskError, SettingsError, VideoError
from lora_edit.masks.segmenter_registry import make_segmenter_absolute
from lora_edit.run import default_run_folder
from lora_edit.video.formats import check_codec, check_format, check_output_name, check_overwrite
from lora_edit.video.paths import protect_inputs, stat_path
from lora_edit.video.settings import Codec

REGION_HELP = (
    "give one of --mask PATH (white = edit; a video, a folder of images or one image), --box X,Y,W,H[:FRAME] and --point X,Y[:FRAME]; "
    "to edit whole frames, give an all-white image as --mask"
)

REGION_KEYS = ("mask", "boxes", "points", "text")
"""Keys of `[input]` that define the region."""


def resolve_run_settings(options: RunOptions) -> EditSettings:
    """Resolve the settings of `edit` and check that the model is on this machine. Raises subclasses of `InputError`."""
    settings = resolve_plan_settings(options)
    require_model(settings.model)
    return settings


def resolve_plan_settings(options: RunOptions) -> EditSettings:
    """Resolve the settings of `new`, for which the model may be missing. Raises subclasses of `InputError`."""
    region = build_region_tables(options)
    tables = read_config_tables(options.config)
    if options.mask or options.box or options.point or options.not_point:  # replaces any region of the config file
        tables["input"] = {key: value for key, value in tables.get("input", {}).items() if key not in REGION_KEYS}
    return _resolve_tables(merge_tables(merge_tables(tables, region), build_method_tables(options)), options.assignments)


def resolve_preview_settings(options: RegionOptions) -> EditSettings:
    """Resolve the settings of `preview`. Raises subclasses of `InputError`."""
    return _resolve_tables(build_region_tables(options), [])


def _resolve_tables(tables: dict[str, Any], assignments: list[str]) -> EditSettings:
    input_table = tables.get("input", {})
    if not input_table.get("source"):
        raise SettingsError("SOURCE is missing; give the clip to edit: a video, a folder of images or a GIF")
    if not input_table.get("first_frame"):
        raise SettingsError("the edited first frame is missing; give it as --first-frame IMAGE")
    if sum(bool(input_table.get(key)) for key in REGION_KEYS) > 1:
        raise MaskError(f"the region is given twice; {REGION_HELP}")
    settings = resolve_settings(tables, assignments)
    require_files(*settings.input.list_files(), *(file for file, _ in settings.generation.list_lora_paths()), settings.lora.init)
    return settings


def build_region_tables(options: RegionOptions) -> dict[str, Any]:
    """Convert the options of `RegionOptions` to settings tables. Raises `MaskError` for two kinds of region, or an incomplete one."""
    if sum(bool(each) for each in (options.mask, options.box, options.point, options.segment is not None)) > 1:
        raise MaskError(f"the region is given twice; {REGION_HELP}")
    if options.not_point and not options.point:
        raise MaskError("--not-point corrects the outline of --point; give --point X,Y[:FRAME] on the object too")
    tables = {
        "input": {
            "source": _make_absolute(options.source),
            "first_frame": _make_absolute(options.first_frame),
            "mask": _make_absolute(options.mask),
            "boxes": parse_boxes(options.box) or None,
            "points": parse_points(options.point, options.not_point) or None,
            "text": options.segment,
        },
        "masks": {"shape": options.mask_shape and options.mask_shape.value},
        "video": {"start": options.start, "frames": options.frames, "fps": options.fps},
    }
    for name, value in options.setting_flags.items():
        section, _, key = name.partition(".")
        tables = merge_tables(tables, {section: {key: value}})
    segmenter = options.setting_flags.get("masks.segmenter")
    if segmenter:
        tables = merge_tables(tables, {"masks": {"segmenter": make_segmenter_absolute(segmenter)}})
    return drop_missing(tables)


def build_method_tables(options: RunOptions) -> dict[str, Any]:
    """Convert the options of `RunOptions` that `RegionOptions` lacks to settings tables."""
    tables = {
        "input": {
            "references": parse_keyframes("--reference", options.reference) or None,
            "anchors": parse_keyframes("--anchor", options.anchor) or None,
        },
        "model": options.model and make_model_absolute(options.model),
        "preset": options.preset,
        "prompt": options.prompt,
        "seed": options.seed,
        "video": {"codec": options.codec and options.codec.value},
        "generation": {"loras": [{"file": str(file), "strength": strength} for file, strength in parse_loras(options.lora)] or None},
        "compositing": {"enabled": False if options.no_composite else None},
    }
    return drop_missing(tables)


def drop_missing(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Remove None values, and tables that are then empty."""
    cleaned = {key: drop_missing(value) if isinstance(value, Mapping) else value for key, value in tables.items()}
    return {key: value for key, value in cleaned.items() if value is not None and value != {}}


def parse_points(points: list[str], not_points: list[str]) -> list[dict[str, Any]]:
    """Parse all points and negative points to tables of `config.KeyPoint`. Raises `MaskError`."""
    return [
        {
            "x": each.coordinates[0],
            "y": each.coordinates[1],
            "on": each.option == "--point",
            "frame": each.frame or 0,
            "object": each.object_name,
        }
        for each in parse_prompts(points, not_points, (), "1")
    ]


def read_config_tables(path: Path | None) -> dict[str, Any]:
    """Read the tables of a config file. Its relative paths (input, LoRAs, certificate) are relative to its folder."""
    if path is None:
        return {}
    tables = read_toml(path)
    input_table = tables.get("input", {})
    if not isinstance(input_table, dict):
        raise SettingsError(f"{path}: input is not a table; write [input] with source, first_frame and mask or boxes")
    folder = path.absolute().parent
    for key in ("source", "first_frame", "mask"):
        if isinstance(input_table.get(key), str):
            input_table[key] = str(folder / input_table[key])
    for keyframe in (*_filter_tables(input_table.get("references")), *_filter_tables(input_table.get("anchors"))):
        if isinstance(keyframe.get("image"), str):
            keyframe["image"] = str(folder / keyframe["image"])
    provenance = tables.get("provenance", {})
    for key in ("certificate", "key"):
        if isinstance(provenance, dict) and isinstance(provenance.get(key), str):
            provenance[key] = str(folder / provenance[key])
    generation = tables.get("generation", {})
    for lora in _filter_tables(generation.get("loras")) if isinstance(generation, dict) else []:
        if isinstance(lora.get("file"), str):
            lora["file"] = str(folder / lora["file"])
    own_lora = tables.get("lora", {})
    if isinstance(own_lora, dict) and isinstance(own_lora.get("init"), str):
        own_lora["init"] = str(folder / own_lora["init"])
    return tables


def _filter_tables(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def make_model_absolute(name: str) -> str:
    """Make the path in `PATH` or `NAME@PATH` absolute. Other names stay as they are."""
    model, at, source = name.rpartition("@")
    return f"{model}{at}{Path(source).absolute()}" if Path(source).exists() else name


def require_files(*paths: Path | None) -> None:
    """Raise `VideoError` for the first path that does not exist. None values are skipped."""
    for path in paths:
        if path is None:
            continue
        stat_path(path)
        try:
            str(path).encode("utf-8")
        except UnicodeEncodeError as error:  # settings files are UTF-8
            raise VideoError(f"{str(path)!r}: the name is not valid UTF-8; rename the file or folder") from error


def choose_run_folder(run: Path | None, output: Path | None) -> Path:
    """Choose the run folder: `run`, or `<output stem>.run` beside the output. Raises `SettingsError` if both are missing."""
    if run is not None:
        return run
    if output is None:
        raise SettingsError("the run folder is missing; give --run FOLDER or --output")
    if output.name in ("", ".."):
        raise SettingsError(f"--output {output}: names neither a file nor a folder of its own; give a name, such as result.mp4")
    return default_run_folder(output)


def check_output_path(output: Path, input_files: Sequence[Path | None], codec: Codec = "h264", *, overwrite: bool = False) -> None:
    """Raise `VideoError` for an output that is part of the input or exists, or whose format is unknown or cannot hold the codec.

    `overwrite` allows existing files, but never those of the input. `video.write.check_output` checks the contents of folders as well.
    """
    check_output_name(output)
    protect_inputs(output, [path for path in input_files if path is not None])
    if not output.is_dir():
        check_overwrite(output, overwrite=overwrite)
        check_format(output)
        check_codec(output, codec)


def _make_absolute(path: Path | None) -> str | None:
    # Later commands may use the run folder from another working directory.
    return None if path is None else str(path.absolute())


def require_no_options(option: str, values: Mapping[str, Any]) -> None:
    """Raise `SettingsError` if one of the other options, by name, has a value; None is none."""
    given = [name for name, value in values.items() if value is not None]
    if given:
        raise SettingsError(f"{option} takes no {given[0]}; leave one of them out")
