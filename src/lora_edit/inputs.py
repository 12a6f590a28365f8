"""What a person hands over, read and checked once, before any model is loaded; and kept in the run folder as it was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import torch

from lora_edit.config import EditSettings, KeyBox, Keyframe, KeyPoint
from lora_edit.errors import InputError, MaskError, RunError, SettingsError
from lora_edit.masks.auto_shape import auto_shape_mask
from lora_edit.masks.boxes import KeyframeBox
from lora_edit.masks.change_detection import check_first_frame, fit_first_frame
from lora_edit.masks.edit_region import check_region_track, region_track_from_mask, track_edit_region
from lora_edit.masks.embedded_segmenter import EmbeddedSegmenter
from lora_edit.masks.files import load_mask, read_mask, save_mask
from lora_edit.masks.moving_boxes import track_boxes
from lora_edit.masks.region_check import check_region
from lora_edit.masks.saliency import load_saliency_network
from lora_edit.masks.segmenter import Click, check_prompts
from lora_edit.masks.shapes import grow_by_soft_edge, interpolate_missing_frames, shape_mask, union
from lora_edit.models.checkpoints.checks import check_trainable
from lora_edit.models.checkpoints.locate import get_first_frame_only_max_frames, get_geometry, get_last_frame_max_frames
from lora_edit.reporting import Reporter, SilentReporter
from lora_edit.run import Run, write_atomically
from lora_edit.types import Box, EditMask, Video, hash_content
from lora_edit.video.png_frames import load_frames, save_frames
from lora_edit.video.read import probe_video, read_image, read_video
from lora_edit.video.record import video_from_record, video_to_record
from lora_edit.video.sheet import save_image


@dataclass(frozen=True)
class Clip:
    """The checked input at source size.

    `edit_mask` is the region after shaping; `first_frame` and the values of `references` and `anchors` are `[H, W, 3]` uint8, keyed by
    frame number; `notes` are remarks for the person; `captions` say in words what the named pictures show (`captions.py`).
    """

    video: Video
    edit_mask: EditMask
    first_frame: torch.Tensor
    references: dict[int, torch.Tensor]
    anchors: dict[int, torch.Tensor]
    notes: tuple[str, ...] = ()
    captions: Mapping[str, str] = field(default_factory=dict)

    def compute_hash(self) -> str:
        """Hash of all pixels and masks."""
        later = [t for frames in (self.references, self.anchors) for n in sorted(frames) for t in (str(n), frames[n])]
        return hash_content(self.video.frames, self.edit_mask.frames, self.first_frame, *later)

    def compute_input_hashes(self) -> dict[str, str]:
        """Hashes of the single inputs, by name."""
        later = {f"{kind}_{n}": t for kind, of in (("reference", self.references), ("anchor", self.anchors)) for n, t in of.items()}
        named = {"source": self.video.frames, "edit_mask": self.edit_mask.frames, "first_frame": self.first_frame, **later}
        return {name: hash_content(pixels) for name, pixels in named.items()}


def read_inputs(settings: EditSettings, reporter: Reporter | None = None) -> Clip:
    """Read and check everything. Raises `InputError` kin; loads no model."""
    given = settings.input
    check_trainable(settings.model)
    video = read_video(given.source, settings.video)
    first, note = fit_first_frame(read_image(given.first_frame), video.size)
    region = _read_region(settings, video, first, reporter or SilentReporter())
    notes = [*video.notes, *region.notes, *([note] if note else []), *check_first_frame(video.frames[0], first, region.frames[0])]
    if bool(region.frames.all()) and not any("whole-frame" in text for text in notes):
        notes.append("whole-frame edit: the region covers every frame, so nothing but the first frame is given")
    references = {k.frame: _read_keyframe(k, video, "reference", notes) for k in given.references}
    anchors = {k.frame: _read_keyframe(k, video, "anchor", notes) for k in given.anchors}
    _check_windows(settings, video)
    _check_last_frame(settings, video, anchors)
    notes += _check_first_frame_only(settings, video)
    return Clip(video, region, first, references, anchors, tuple(dict.fromkeys(notes)))


def _check_windows(settings: EditSettings, video: Video) -> None:
    """A window that is shorter than the clip has to be whole latent frames, the first of them one frame long."""
    geometry = get_geometry(settings.model)
    for room, window in (("training", settings.training.window), ("generation", settings.generation.window)):
        if (
            geometry
            and 0 < window < video.num_frames
            and (window % geometry.temporal_compression != 1 or window <= geometry.temporal_compression)
        ):
            group = geometry.temporal_compression
            raise SettingsError(
                f"{room}.window is {window}, but {settings.model} takes {group} k + 1 frames at once; "
                f"set it to {max(1, window // group) * group + 1}, or to 0 for all that the model takes"
            )


def _check_last_frame(settings: EditSettings, video: Video, anchors: dict[int, torch.Tensor]) -> None:
    """Models that are shown both ends need the edited last frame, and the whole clip in one window."""
    longest = get_last_frame_max_frames(settings.model)
    if longest is None:
        return
    if not 1 < video.num_frames <= longest:
        raise InputError(
            f"{settings.model} works between a first and a last frame of 2 to {longest} frames, not {video.num_frames}; give --start and "
            "--frames, or another --model"
        )
    last = video.num_frames - 1
    if last not in anchors:
        raise InputError(f"{settings.model} needs the edited last frame too; give it as --anchor {last}=IMAGE, or choose another --model")


FIRST_FRAME_CONDITIONINGS = ("first-frame", "feature-level")
"""Conditionings that give a model the first frame alone."""


def _check_first_frame_only(settings: EditSettings, video: Video) -> list[str]:
    """Models that cannot be told of a region do the naive LoRA alone; returns the remark that says so."""
    longest = get_first_frame_only_max_frames(settings.model)
    if longest is None:
        return []
    method = settings.method
    for name, value, fitting in (
        ("conditioning", method.conditioning, FIRST_FRAME_CONDITIONINGS),
        ("appearance_mask", method.appearance_mask, ("after-first",)),
    ):
        if value not in fitting:
            raise SettingsError(
                f"{settings.model} is given the first frame alone, so method.{name}={value} is nothing it can do; leave it out (then it is "
                f"{fitting[0]}), or choose --model hunyuan-i2v, which takes masks"
            )
    if settings.input.anchors:
        raise InputError(f"{settings.model} is given the first frame alone; leave out --anchor, or choose --model hunyuan-i2v")
    longest = min(longest, settings.generation.window or longest)  # a second window would know nothing of the first
    if not 1 < video.num_frames <= longest:
        raise InputError(
            f"{settings.model} makes 2 to {longest} frames from the first one, not {video.num_frames}; give --start and --frames, or "
            "choose --model hunyuan-i2v"
        )
    return [f"{settings.model} is given the first frame alone: the naive LoRA of the paper's comparison; hunyuan-i2v takes masks"]


def _read_region(settings: EditSettings, video: Video, first_frame: torch.Tensor, reporter: Reporter) -> EditMask:
    """The edit region: as given, or found from the edit; shaped, and checked against what the edited first frame changes."""
    given, masks = settings.input, settings.masks
    kinds = {"--mask": given.mask is not None, "--box": bool(given.boxes), "--point": bool(given.points)}
    kind, *more = [name for name, is_given in kinds.items() if is_given] or [""]
    if more:
        raise MaskError(f"both {kind} and {more[0]} are given; give one of them")
    if not kind:
        followed = track_edit_region(video.frames, first_frame, partial(reporter.step, "following the edit"))
        if masks.check:
            check_region_track(first_frame, followed, video.frames)
        return _shape_region(followed.region, settings)
    if given.mask is not None:
        drawn = read_mask(given.mask, video.num_frames, video.size, settings.video.start, _count_source_frames(settings, video))
    elif given.points:
        drawn = _segment_points(given.points, video, reporter)
        if masks.check:
            check_region_track(first_frame, region_track_from_mask(drawn), video.frames, "--point")
    else:
        things = track_boxes(
            video.frames, first_frame, [_build_keyed_box(box) for box in given.boxes], partial(reporter.step, "following the box")
        )
        drawn = union([each.region for each in things])
    if not given.boxes and masks.shape == "auto":
        region = auto_shape_mask(drawn, video.frames[0], first_frame, masks.expand, masks.smooth)
    else:
        region = _shape_region(drawn, settings)
    if masks.check:
        check_region(video.frames[0], first_frame, drawn, region, kind)
    return region


def _shape_region(edit_mask: EditMask, settings: EditSettings) -> EditMask:
    masks, compositing = settings.masks, settings.compositing
    shaped = shape_mask(edit_mask, masks.shape, masks.expand, masks.smooth)
    return grow_by_soft_edge(shaped, masks.shape, compositing.feather if compositing.enabled else 0.0)


def _count_source_frames(settings: EditSettings, video: Video) -> int | None:
    """How many frames the whole source has; None where only decoding would tell."""
    whole = settings.video.start == 0 and settings.video.frames is None
    return video.num_frames if whole else probe_video(settings.input.source).num_frames


def _segment_points(points: Sequence[KeyPoint], video: Video, reporter: Reporter) -> EditMask:
    """What the points are on, through the clip, bridged where it was hidden between two sights."""
    clicks = [Click(each.x, each.y, each.on, each.frame, each.object) for each in points]
    check_prompts(clicks, video.num_frames, video.size)
    things = EmbeddedSegmenter(load_saliency_network()).segment(video.frames, clicks, partial(reporter.step, "segmenting"))
    return union([interpolate_missing_frames(each) for each in things.values()])


def _build_keyed_box(box: KeyBox) -> KeyframeBox:
    return KeyframeBox(Box(box.x, box.y, box.width, box.height), box.frame, box.object)


def _read_keyframe(keyframe: Keyframe, video: Video, kind: str, notes: list[str]) -> torch.Tensor:
    if not 0 < keyframe.frame < video.num_frames:
        raise MaskError(
            f"--{kind} {keyframe.frame}={keyframe.image}: the range has frames 1 to {video.num_frames - 1} after the first; give "
            f"one of these"
        )
    picture, note = fit_first_frame(read_image(keyframe.image), video.size)
    if note:
        notes.append(note.replace("first frame", f"frame {keyframe.frame}"))
    return picture


def store_inputs(clip: Clip, run: Run, settings: EditSettings) -> bool:
    """Store the input losslessly in the run folder, so that the run needs nothing else (but the source's sound).

    A run with other settings adopts these, and what changed of the input. Returns False when the folder already held an input of the same
    settings, which is then kept as it is.
    """
    if run.read_settings() != settings:
        # Without this file the input counts as incomplete, should this be cut off.
        (run.folder / "clip.json").unlink(missing_ok=True)
        run.replace_settings(settings)
    if (run.folder / "clip.json").is_file():
        return False
    source_hash = hash_content(clip.video.frames, clip.video.alpha)
    if run.read_manifest().get("source_hash") != source_hash:
        save_frames(run.folder / "frames", clip.video.frames, clip.video.alpha)
        run.update_manifest(source_hash=source_hash)
    save_mask(run.folder / "masks", clip.edit_mask)
    (run.folder / "references").mkdir(exist_ok=True)
    for earlier in (run.folder / "references").glob("*_*.png"):
        earlier.unlink()
    save_image(run.folder / "references" / "first_frame.png", clip.first_frame)
    for kind, frames in (("reference", clip.references), ("anchor", clip.anchors)):
        for number, picture in frames.items():
            save_image(run.folder / "references" / f"{kind}_{number:05d}.png", picture)
    write_atomically(run.folder / "clip.json", json.dumps(video_to_record(clip.video) | {"notes": list(clip.notes)}))
    return True


def load_inputs(run: Run) -> Clip:
    """Read back what `store_inputs` kept. Raises `RunError` when the folder is incomplete."""
    facts_file = run.folder / "clip.json"
    if not facts_file.is_file():
        raise RunError(f"{run.folder}: the run's input is incomplete (clip.json is missing); remove the folder and start again")
    facts = json.loads(facts_file.read_text("utf-8"))
    alpha = read_video(run.folder / "frames").alpha if facts.get("alpha") else None
    video = video_from_record(facts, load_frames(run.folder / "frames"), alpha)
    kept = run.folder / "references"
    later = {
        kind: {int(p.stem.split("_")[1]): read_image(p) for p in sorted(kept.glob(f"{kind}_*.png"))} for kind in ("reference", "anchor")
    }
    mask = load_mask(run.folder / "masks")
    return Clip(video, mask, read_image(kept / "first_frame.png"), later["reference"], later["anchor"], tuple(facts["notes"]))


def read_run_frame_rate(folder: Path) -> Fraction | None:
    """The frame rate of the run that a folder of frames lies in; None where there is none."""
    facts_file = folder.parent / "clip.json"
    return Fraction(json.loads(facts_file.read_text("utf-8"))["fps"]) if facts_file.is_file() else None


def replace_first_frame(clip: Clip, path: Path) -> Clip:
    """The same clip with another edited first frame, checked like the first."""
    picture, note = fit_first_frame(read_image(path), clip.video.size)
    notes = [*([note] if note else []), *check_first_frame(clip.video.frames[0], picture, clip.edit_mask.frames[0])]
    return replace(clip, first_frame=picture, notes=tuple(notes))
