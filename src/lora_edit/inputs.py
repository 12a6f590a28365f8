"""The input of an edit: read and checked once before loading any model, and stored losslessly in the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch
from pydantic import TypeAdapter

from lora_edit.atomic_files import write_text
from lora_edit.config import EditSettings, KeyBox, Keyframe
from lora_edit.errors import InputError, MaskError, RunError, SettingsError
from lora_edit.masks.auto_shape import auto_shape_mask
from lora_edit.masks.boxes import KeyframeBox
from lora_edit.masks.change_detection import check_first_frame, fit_first_frame
from lora_edit.masks.edit_region import check_region_track, region_track_from_mask, track_edit_region
from lora_edit.masks.files import load_mask, read_mask, save_mask
from lora_edit.masks.moving_boxes import track_boxes
from lora_edit.masks.region_check import check_region
from lora_edit.masks.segmenter import Click, Prompt, check_prompts
from lora_edit.masks.segmenter_registry import check_segmenter_name, check_text_prompt, detect_prompts, load_segmenter
from lora_edit.masks.shapes import grow_by_soft_edge, interpolate_missing_frames, shape_mask, union
from lora_edit.models.checkpoints.checks import check_trainable
from lora_edit.models.checkpoints.locate import get_first_frame_only_max_frames, get_geometry, get_last_frame_max_frames
from lora_edit.reporting import Reporter, SilentReporter
from lora_edit.run import DAMAGED_RUN, Run
from lora_edit.text_files import read_json_object
from lora_edit.types import Box, EditMask, Video, hash_content
from lora_edit.video.png_frames import load_frames, save_frames
from lora_edit.video.read import probe_video, read_image, read_video
from lora_edit.video.record import video_from_record, video_to_record
from lora_edit.video.sheet import save_image


@dataclass(frozen=True)
class Clip:
    """The checked input at source size.

    `edit_mask` is the shaped region. `first_frame` and the values of `references` and `anchors`, which are keyed by frame number, are
    `[H, W, 3]` uint8. `notes` are for the user; `captions` describe the named images (`captions.py`).
    """

    video: Video
    edit_mask: EditMask
    first_frame: torch.Tensor
    references: dict[int, torch.Tensor]
    anchors: dict[int, torch.Tensor]
    notes: tuple[str, ...] = ()
    captions: Mapping[str, str] = field(default_factory=dict)

    def compute_hash(self) -> str:
        """Hash all pixels and masks."""
        later = [t for frames in (self.references, self.anchors) for n in sorted(frames) for t in (str(n), frames[n])]
        return hash_content(self.video.frames, self.edit_mask.frames, self.first_frame, *later)

    def compute_input_hashes(self) -> dict[str, str]:
        """Hash each input, by name."""
        later = {f"{kind}_{n}": t for kind, images in (("reference", self.references), ("anchor", self.anchors)) for n, t in images.items()}
        inputs = {"source": self.video.frames, "edit_mask": self.edit_mask.frames, "first_frame": self.first_frame, **later}
        return {name: hash_content(pixels) for name, pixels in inputs.items()}


def read_inputs(settings: EditSettings, reporter: Reporter | None = None) -> Clip:
    """Read and check the input without loading a model. Raises subclasses of `InputError`."""
    inputs = settings.input
    check_trainable(settings.model)
    check_segmenter_name(settings.masks.segmenter)
    if inputs.text:
        check_text_prompt(inputs.text, settings.masks.segmenter)
    video = read_video(inputs.source, settings.video)
    first_frame, note = fit_first_frame(read_image(inputs.first_frame), video.size)
    region = _read_region(settings, video, first_frame, reporter or SilentReporter())
    notes = [*video.notes, *region.notes, *([note] if note else []), *check_first_frame(video.frames[0], first_frame, region.frames[0])]
    if bool(region.frames.all()) and not any("whole-frame" in text for text in notes):
        notes.append("whole-frame edit: the region covers all frames, so the model is given the first frame alone")
    references = {k.frame: _read_keyframe(k, video, "reference", notes) for k in inputs.references}
    anchors = {k.frame: _read_keyframe(k, video, "anchor", notes) for k in inputs.anchors}
    _check_windows(settings, video)
    _check_last_frame(settings, video, anchors)
    notes += _check_first_frame_only(settings, video)
    return Clip(video, region, first_frame, references, anchors, tuple(dict.fromkeys(notes)))


def _check_windows(settings: EditSettings, video: Video) -> None:
    """Raise `SettingsError` unless windows that are shorter than the clip consist of whole latent frames, the first of one frame."""
    geometry = get_geometry(settings.model)
    for section, window in (("training", settings.training.window), ("generation", settings.generation.window)):
        if (
            geometry
            and 0 < window < video.num_frames
            and (window % geometry.temporal_compression != 1 or window <= geometry.temporal_compression)
        ):
            group = geometry.temporal_compression
            raise SettingsError(
                f"{section}.window is {window}, but {settings.model} takes {group} k + 1 frames at once; "
                f"set it to {max(1, window // group) * group + 1}, or to 0 for the longest window of the model"
            )


def _check_last_frame(settings: EditSettings, video: Video, anchors: dict[int, torch.Tensor]) -> None:
    """Raise `InputError` unless a model with first and last frame gets the edited last frame and a clip of one window."""
    max_frames = get_last_frame_max_frames(settings.model)
    if max_frames is None:
        return
    if not 1 < video.num_frames <= max_frames:
        raise InputError(
            f"{settings.model} generates 2 to {max_frames} frames between a first and a last one, not {video.num_frames}; give --start and "
            "--frames, or another --model"
        )
    last = video.num_frames - 1
    if last not in anchors:
        raise InputError(f"{settings.model} needs the edited last frame too; give it as --anchor {last}=IMAGE, or choose another --model")


FIRST_FRAME_CONDITIONINGS = ("first-frame", "feature-level")
"""Conditionings in which the model is given the first frame alone."""


def _check_first_frame_only(settings: EditSettings, video: Video) -> list[str]:
    """Check settings and input of models without a spatial mask, which support the naive LoRA alone. Returns the note about it.

    Raises subclasses of `InputError`.
    """
    max_frames = get_first_frame_only_max_frames(settings.model)
    if max_frames is None:
        return []
    method = settings.method
    for name, value, allowed in (
        ("conditioning", method.conditioning, FIRST_FRAME_CONDITIONINGS),
        ("appearance_mask", method.appearance_mask, ("after-first",)),
    ):
        if value not in allowed:
            raise SettingsError(
                f"{settings.model} is given the first frame alone, so it does not support method.{name}={value}; leave it out (then it is "
                f"{allowed[0]}), or choose --model hunyuan-i2v, which takes masks"
            )
    if settings.input.anchors:
        raise InputError(f"{settings.model} is given the first frame alone; leave out --anchor, or choose --model hunyuan-i2v")
    max_frames = min(max_frames, settings.generation.window or max_frames)  # a second window would not be given the first one
    if not 1 < video.num_frames <= max_frames:
        raise InputError(
            f"{settings.model} makes 2 to {max_frames} frames from the first one, not {video.num_frames}; give --start and --frames, or "
            "choose --model hunyuan-i2v"
        )
    return [f"{settings.model} is given the first frame alone: the naive LoRA of the paper; hunyuan-i2v takes masks"]


def _read_region(settings: EditSettings, video: Video, first_frame: torch.Tensor, reporter: Reporter) -> EditMask:
    """Read the region, or detect it from the edit; shape it, and check it against what the edited first frame changes.

    Raises `MaskError`.
    """
    inputs, masks = settings.input, settings.masks
    values = {"--mask": inputs.mask, "--box": inputs.boxes, "--point": inputs.points, "--segment": inputs.text}
    option, *others = [name for name, value in values.items() if value] or [""]
    if others:
        raise MaskError(f"both {option} and {others[0]} are given; give one of them")
    if not option:
        track = track_edit_region(video.frames, first_frame, partial(reporter.step, "following the edit"))
        if masks.check:
            check_region_track(first_frame, track, video.frames)
        return _shape_region(track.region, settings)
    if inputs.mask is not None:
        edit_mask = read_mask(inputs.mask, video.num_frames, video.size, settings.video.start, _count_source_frames(settings, video))
    elif inputs.points or inputs.text:
        edit_mask = _segment_objects(settings, video, reporter)
        if masks.check:
            check_region_track(first_frame, region_track_from_mask(edit_mask), video.frames, option)
    else:
        tracks = track_boxes(
            video.frames, first_frame, [_build_keyed_box(box) for box in inputs.boxes], partial(reporter.step, "following the box")
        )
        edit_mask = union([each.region for each in tracks])
    if not inputs.boxes and masks.shape == "auto":
        region = auto_shape_mask(edit_mask, video.frames[0], first_frame, masks.expand, masks.smooth)
    else:
        region = _shape_region(edit_mask, settings)
    if masks.check:
        check_region(video.frames[0], first_frame, edit_mask, region, option)
    return region


def _shape_region(edit_mask: EditMask, settings: EditSettings) -> EditMask:
    masks, compositing = settings.masks, settings.compositing
    region = shape_mask(edit_mask, masks.shape, masks.expand, masks.smooth)
    return grow_by_soft_edge(region, masks.shape, compositing.feather if compositing.enabled else 0.0)


def _count_source_frames(settings: EditSettings, video: Video) -> int | None:
    """Count the frames of the whole source; None if this needs decoding."""
    is_whole = settings.video.start == 0 and settings.video.frames is None
    return video.num_frames if is_whole else probe_video(settings.input.source).num_frames


def _segment_objects(settings: EditSettings, video: Video, reporter: Reporter) -> EditMask:
    """Segment and track the objects under the points, or those that the text describes.

    Frames in which an object is hidden between two others are interpolated.
    """
    inputs, segmenter = settings.input, settings.masks.segmenter
    prompts: list[Prompt] = [Click(each.x, each.y, each.on, each.frame, each.object) for each in inputs.points]
    prompts += detect_prompts(segmenter, video.frames[0], inputs.text) if inputs.text else []
    check_prompts(prompts, video.num_frames, video.size)
    masks = load_segmenter(segmenter).segment(video.frames, prompts, partial(reporter.step, "segmenting"))
    return union([interpolate_missing_frames(each) for each in masks.values()])


def _build_keyed_box(box: KeyBox) -> KeyframeBox:
    return KeyframeBox(Box(box.x, box.y, box.width, box.height), box.frame, box.object)


def _read_keyframe(keyframe: Keyframe, video: Video, kind: str, notes: list[str]) -> torch.Tensor:
    if not 0 < keyframe.frame < video.num_frames:
        raise MaskError(
            f"--{kind} {keyframe.frame}={keyframe.image}: the range has frames 1 to {video.num_frames - 1} after the first; give "
            f"one of these"
        )
    image, note = fit_first_frame(read_image(keyframe.image), video.size)
    if note:
        notes.append(note.replace("first frame", f"frame {keyframe.frame}"))
    return image


def store_inputs(clip: Clip, run: Run, settings: EditSettings) -> bool:
    """Store the input losslessly in the run folder, so that the run needs no other files, except the source for its audio.

    In an existing run, replace the settings and the inputs that differ, also where a file has new content under its old name. Returns
    whether the folder is known to hold `clip`; a run of an earlier version, which recorded no hash of its input, keeps what it has.
    """
    source_hash = hash_content(clip.video.frames, clip.video.alpha)
    input_hash = _hash_input(clip, source_hash)
    recorded_hash = run.read_manifest().get("input_hash")
    settings_differ, input_differs = run.read_settings() != settings, recorded_hash not in (None, input_hash)
    if settings_differ or input_differs:
        # Without this file the input counts as incomplete, in case of an interruption.
        (run.folder / "clip.json").unlink(missing_ok=True)
    if settings_differ:
        run.replace_settings(settings)
    elif input_differs:
        run.log("the input files have new content, which replaces what the run stored")
    if (run.folder / "clip.json").is_file():
        return recorded_hash == input_hash
    if run.read_manifest().get("source_hash") != source_hash:
        save_frames(run.folder / "frames", clip.video.frames, clip.video.alpha)
        run.update_manifest(source_hash=source_hash)
    save_mask(run.folder / "masks", clip.edit_mask)
    (run.folder / "references").mkdir(exist_ok=True)
    for file in (run.folder / "references").glob("*_*.png"):
        file.unlink()
    save_image(run.folder / "references" / "first_frame.png", clip.first_frame)
    for kind, number, image in _list_edited_frames(clip):
        save_image(run.folder / "references" / f"{kind}_{number:05d}.png", image)
    run.update_manifest(input_hash=input_hash)
    write_text(run.folder / "clip.json", json.dumps(video_to_record(clip.video) | {"notes": list(clip.notes)}))
    return True


def _list_edited_frames(clip: Clip) -> list[tuple[str, int, torch.Tensor]]:
    """List the later edited frames with their kind and number."""
    return [(kind, n, t) for kind, of in (("reference", clip.references), ("anchor", clip.anchors)) for n, t in sorted(of.items())]


def _hash_input(clip: Clip, source_hash: str) -> str:
    parts = [part for kind, number, image in _list_edited_frames(clip) for part in (f"{kind} {number}", image)]
    return hash_content(source_hash, clip.edit_mask.frames, clip.first_frame, *parts)


STORE_AGAIN = "run the `lora-edit edit` or `lora-edit new` command of this run again, which stores its input again"
"""What to do about an incomplete or damaged input."""


def load_inputs(run: Run, *, discard_damaged: bool = True) -> Clip:
    """Load what `store_inputs` stored. Raises `RunError` if it is incomplete, or not what was stored.

    With `discard_damaged`, damaged input counts as incomplete from then on, so that `store_inputs` stores it again.
    """
    try:
        return _load_intact_inputs(run)
    except _DamagedInputError:
        if discard_damaged:
            (run.folder / "clip.json").unlink(missing_ok=True)
            run.update_manifest(source_hash=None)
        raise


class _DamagedInputError(RunError):
    """The stored input cannot be read, or is not what was stored."""


def _load_intact_inputs(run: Run) -> Clip:
    if not (run.folder / "clip.json").is_file():
        raise RunError(f"{run.folder}: the run's input is incomplete (clip.json is missing); {STORE_AGAIN}")
    try:
        clip = _read_stored_clip(run)
    except (InputError, OSError, KeyError, TypeError, ValueError) as error:
        raise _DamagedInputError(f"{run.folder}: the run's input is damaged ({error}); {STORE_AGAIN}") from error
    recorded_hash = run.read_manifest().get("input_hash")
    if recorded_hash not in (None, _hash_input(clip, hash_content(clip.video.frames, clip.video.alpha))):
        raise _DamagedInputError(f"{run.folder}: the run's input is not what was stored (frames, masks or references); {STORE_AGAIN}")
    return clip


def _read_stored_clip(run: Run) -> Clip:
    record_file = run.folder / "clip.json"
    record = read_json_object(record_file, RunError, DAMAGED_RUN)
    alpha = read_video(run.folder / "frames").alpha if record.get("alpha") else None
    frames = load_frames(run.folder / "frames")
    try:
        video = video_from_record(record, frames, alpha)
        notes = TypeAdapter(tuple[str, ...]).validate_python(record.get("notes", ()))
    except ValueError as error:
        raise RunError(f"{record_file}: damaged ({' '.join(str(error).split())}); {DAMAGED_RUN}") from error
    folder = run.folder / "references"
    references, anchors = (
        {_parse_frame_number(file): _load_stored_image(file, video) for file in sorted(folder.glob(f"{kind}_*.png"))}
        for kind in ("reference", "anchor")
    )
    edit_mask = load_mask(run.folder / "masks")
    if edit_mask.frames.shape != video.frames.shape[:3]:
        raise RunError(f"{run.folder / 'masks'}: does not fit the run's frames; {DAMAGED_RUN}")
    return Clip(video, edit_mask, _load_stored_image(folder / "first_frame.png", video), references, anchors, notes)


def _load_stored_image(file: Path, video: Video) -> torch.Tensor:
    """Load an edited frame of a run. Raises `RunError` unless it has the size of the clip."""
    image = read_image(file)
    if image.shape != video.frames.shape[1:]:
        raise RunError(f"{file}: does not have the size of the run's frames; {DAMAGED_RUN}")
    return image


def _parse_frame_number(file: Path) -> int:
    """Parse the number in the name of an edited frame, such as `reference_00012.png`. Raises `RunError`."""
    number = file.stem.partition("_")[2]
    if not number.isdecimal():
        raise RunError(f"{file}: is no edited frame of a run; remove it")
    return int(number)


def read_run_frame_rate(folder: Path) -> Fraction | None:
    """Read the frame rate of the run that contains a folder of frames; None outside of a run, and for a run whose record is damaged."""
    record_file = folder.parent / "clip.json"
    if not record_file.is_file():
        return None
    try:
        return Fraction(read_json_object(record_file, RunError, DAMAGED_RUN)["fps"]) or None
    except (RunError, KeyError, TypeError, ValueError, ArithmeticError):
        return None


def replace_first_frame(clip: Clip, path: Path) -> Clip:
    """Return the clip with another edited first frame, which is checked like the original one."""
    first_frame, note = fit_first_frame(read_image(path), clip.video.size)
    notes = [*([note] if note else []), *check_first_frame(clip.video.frames[0], first_frame, clip.edit_mask.frames[0])]
    return replace(clip, first_frame=first_frame, notes=tuple(notes))
