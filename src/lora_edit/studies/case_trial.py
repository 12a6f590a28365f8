"""A case of a manifest as a trial: an edit without a true result to compare with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_edit.captions import caption_images, check_captioner, collect_images, lacks_captions, needs_captions, read_captions
from lora_edit.config import EditSettings, KeyBox, resolve_settings
from lora_edit.devices import empty_device_cache, pick_device
from lora_edit.errors import InputError, SettingsError
from lora_edit.evaluation.manifest import Case, read_cases_by_line
from lora_edit.inputs import Clip, read_inputs
from lora_edit.masks.shapes import shape_mask
from lora_edit.models.family import Family
from lora_edit.reporting import Reporter
from lora_edit.studies.trial import Trial, select_reference_indices
from lora_edit.video.read import probe_video


def resolve_case_settings(case: Case, model: str, seed: int, assignments: Sequence[str]) -> EditSettings:
    """Resolve the settings of `lora-edit edit` for the case, with `assignments` applied. Raises `SettingsError` for an invalid one."""
    later = [{"frame": each.frame, "image": each.image} for each in case.later]
    tables = {
        "input": {"source": case.source, "first_frame": case.first_frame, "mask": case.mask, "references": later},
        "model": model,
        "prompt": case.prompt or "",
        "seed": seed,
        "video": {"start": case.start, "frames": case.frames, "fps": case.fps},
    }
    # As on scenes: the paper's region, and no detail restoration, which has its own study.
    return resolve_settings(tables, ("masks.shape=box", "compositing.detail=false", *assignments))


def read_case(case: Case, settings: EditSettings) -> Clip:
    """Read and check the files of the case like those of an edit; without a mask the region is the whole frame. Raises `InputError`."""
    if case.mask is None:
        size = probe_video(case.source).size
        box = KeyBox(x=0, y=0, width=size.width, height=size.height, frame=None, object="1")
        settings = settings.model_copy(update={"input": settings.input.model_copy(update={"boxes": (box,)})})
    return read_inputs(settings)


def check_cases(manifest: Path, min_references: int, model: str, assignments: Sequence[str], reporter: Reporter) -> list[Case]:
    """Read the cases of a manifest with at least `min_references` edited later frames, and read all their files once.

    Raises `SettingsError`, with the line of the manifest, for the first fault, and when no case is left.
    """
    cases = read_cases_by_line(manifest)
    selected = {location: case for location, case in cases.items() if len(case.later) >= min_references}
    if not selected:
        raise SettingsError(
            f"{manifest}: none of its {len(cases)} cases has {min_references} edited later frames, which this study needs; "
            "add them to a line as `later`, or choose another study"
        )
    if num_skipped := len(cases) - len(selected):
        reporter.note(f"{num_skipped} of {len(cases)} cases have fewer than {min_references} edited later frames and are left out")
    for number, (location, case) in enumerate(selected.items(), 1):
        settings = resolve_case_settings(case, model, 0, assignments)
        try:
            clip = read_case(case, settings)
        except InputError as error:
            # A manifest has keys and settings instead of the options that the message names.
            message = str(error).replace("--reference ", "later frame ").replace("--mask-shape", "masks.shape")
            raise SettingsError(f"{location}: {message}") from error
        if clip.video.num_frames < 2:
            raise SettingsError(f"{location}: the range is a single frame, which has no motion; give two frames or more")
        for text in clip.notes:
            reporter.note(f"{location}: {text}")
        reporter.step("check", number, len(selected), case.id)
    return list(selected.values())


def caption_cases(cases: Sequence[Case], folder: Path, model: str, assignments: Sequence[str], with_vace: bool, reporter: Reporter) -> None:
    """Caption the pictures of cases without a prompt, as an edit does, when the model or VACE (`with_vace`) reads prompts.

    Each picture is captioned once and the captions are stored in `folder`. The captioner is released before any model is loaded. Raises
    `ModelError` when a captioner set by the user is not on this machine.
    """
    uncaptioned = [
        (case, settings) for case in cases if needs_captions(settings := resolve_case_settings(case, model, 0, assignments), with_vace)
    ]
    if not uncaptioned:
        return
    settings = uncaptioned[0][1]
    check_captioner(settings, with_vace)
    # Copies, because a view of the first frame would keep the whole clip in memory.
    pictures = [picture.clone() for case, each in uncaptioned for picture in collect_images(read_case(case, each)).values()]
    folder.mkdir(parents=True, exist_ok=True)
    file = _build_captions_path(folder, settings)
    caption_images(pictures, file, settings, reporter)
    empty_device_cache(pick_device())
    if lacks_captions(file):
        reporter.note(
            "cases without a prompt use p* alone as their prompt, because this study started without a captioner; run "
            f"`hf download {settings.caption.model}` (up to 3.3 GB), then delete {file} to repeat these cases with captions"
        )


def _build_captions_path(folder: Path, settings: EditSettings) -> Path:
    """The path of the captions; each captioner has its own file."""
    return folder / f"captions-{Path(settings.caption.model).name}.json"


@dataclass(frozen=True)
class CaseTrial(Trial):
    """A trial on a case without truth. `full_clip` is its clip with the mask as drawn and all its edited later frames."""

    case: Case
    full_clip: Clip

    def resolve_settings(self, *assignments: str) -> EditSettings:
        """Resolve the settings of `lora-edit edit` with the assignments of the study and of the row."""
        return resolve_case_settings(self.case, self.family.name, self.seed, (*self.base_assignments, *assignments))

    def build_clip(self, settings: EditSettings, num_references: int = 0) -> Clip:
        """Build the clip with the mask shaped by the settings and `num_references` of the edited later frames, evenly spaced."""
        assert num_references <= self.max_references
        masks, numbers = settings.masks, sorted(self.full_clip.references)
        region = shape_mask(self.full_clip.edit_mask, masks.shape, masks.expand, masks.smooth)
        frames = [numbers[index - 1] for index in select_reference_indices(len(numbers) + 1, num_references)]
        return replace(self.full_clip, edit_mask=region, references={n: self.full_clip.references[n] for n in frames})

    @property
    def max_references(self) -> int:
        """The number of edited later frames of the case."""
        return len(self.full_clip.references)


def open_case(
    family: Family, case: Case, seed: int, base_assignments: tuple[str, ...], folder: Path | None = None, vace: Family | None = None
) -> CaseTrial:
    """Read a case as a trial, with its captions from `folder` when the model or VACE needs them. Raises `InputError`."""
    settings = resolve_case_settings(case, family.name, seed, (*base_assignments, "masks.shape=as-is"))
    full_clip = read_case(case, settings)
    if folder is not None and needs_captions(settings, vace is not None):
        full_clip = replace(full_clip, captions=read_captions(full_clip, _build_captions_path(folder, settings)))
    return CaseTrial(family, seed, case, full_clip, base_assignments=base_assignments, vace=vace)
