"""A case of a manifest as something to try: an edit that a person wants, with no true result to hold it against."""

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
    """The settings with which `lora-edit edit` would edit the case, but for the assignments. Raises `SettingsError` for a bad one."""
    later = [{"frame": each.frame, "image": each.image} for each in case.later]
    tables = {
        "input": {"source": case.source, "first_frame": case.first_frame, "mask": case.mask, "references": later},
        "model": model,
        "prompt": case.prompt or "",
        "seed": seed,
        "video": {"start": case.start, "frames": case.frames, "fps": case.fps},
    }
    # As on scenes: the paper's region, and what compositing restores is a study of its own.
    return resolve_settings(tables, ("masks.shape=box", "compositing.detail=false", *assignments))


def read_case(case: Case, settings: EditSettings) -> Clip:
    """The case's files, checked as an edit's are; without a mask the region is the whole frame. Raises `InputError` kin."""
    if case.mask is None:
        size = probe_video(case.source).size
        whole = KeyBox(x=0, y=0, width=size.width, height=size.height, frame=None, object="1")
        settings = settings.model_copy(update={"input": settings.input.model_copy(update={"boxes": (whole,)})})
    return read_inputs(settings)


def check_cases(manifest: Path, min_references: int, model: str, assignments: Sequence[str], reporter: Reporter) -> list[Case]:
    """The manifest's cases that have `later` edited later frames or more, after everything that they name was read once.

    Raises `SettingsError`, with the manifest's line, for the first fault, and when no case is left.
    """
    cases = read_cases_by_line(manifest)
    enough = {place: case for place, case in cases.items() if len(case.later) >= min_references}
    if not enough:
        raise SettingsError(
            f"{manifest}: none of its {len(cases)} cases has {min_references} edited later frames, which this study needs; "
            "add them to a line as `later`, or choose another study"
        )
    if left_out := len(cases) - len(enough):
        reporter.note(f"{left_out} of {len(cases)} cases have fewer than {min_references} edited later frames and are left out")
    for done, (place, case) in enumerate(enough.items(), 1):
        settings = resolve_case_settings(case, model, 0, assignments)
        try:
            clip = read_case(case, settings)
        except InputError as error:
            # The options' names say nothing to someone who wrote a manifest.
            words = str(error).replace("--reference ", "later frame ").replace("--mask-shape", "masks.shape")
            raise SettingsError(f"{place}: {words}") from error
        if clip.video.num_frames < 2:
            raise SettingsError(f"{place}: the range is a single frame, in which nothing moves; give two frames or more")
        for text in clip.notes:
            reporter.note(f"{place}: {text}")
        reporter.step("check", done, len(enough), case.id)
    return list(enough.values())


def caption_cases(cases: Sequence[Case], folder: Path, model: str, assignments: Sequence[str], with_vace: bool, reporter: Reporter) -> None:
    """Have the pictures of cases without a prompt described, as an edit would, where the model or the `rival` beside it reads prompts.

    Each is described once, by one captioner that is gone before any model is loaded; `folder` keeps what was said. Raises `ModelError` for
    a captioner of the person's choice that is not here.
    """
    wanted = [(case, how) for case in cases if needs_captions(how := resolve_case_settings(case, model, 0, assignments), with_vace)]
    if not wanted:
        return
    settings = wanted[0][1]
    check_captioner(settings, with_vace)
    # Copies, because the source's first frame is a part of the whole clip.
    pictures = [picture.clone() for case, how in wanted for picture in collect_images(read_case(case, how)).values()]
    folder.mkdir(parents=True, exist_ok=True)
    file = _build_captions_path(folder, settings)
    caption_images(pictures, file, settings, reporter)
    empty_device_cache(pick_device())
    if lacks_captions(file):
        reporter.note(
            "cases without a prompt are asked with p* alone, as this study began without a captioner; "
            f"`hf download {settings.caption.model}` (up to 3.3 GB), then delete {file} to try them anew with captions"
        )


def _build_captions_path(folder: Path, settings: EditSettings) -> Path:
    """One for each captioner."""
    return folder / f"captions-{Path(settings.caption.model).name}.json"


@dataclass(frozen=True)
class CaseTrial(Trial):
    """A case without truth. `drawn` is its clip with the mask as drawn and all its edited later frames."""

    case: Case
    full_clip: Clip

    def resolve_settings(self, *assignments: str) -> EditSettings:
        """What `lora-edit edit` takes, with the study's and the row's changes."""
        return resolve_case_settings(self.case, self.family.name, self.seed, (*self.base_assignments, *assignments))

    def build_clip(self, settings: EditSettings, num_references: int = 0) -> Clip:
        """The clip with the region that the settings make of the mask, and `references` of the edited later frames, evenly spread."""
        assert num_references <= self.max_references
        masks, numbers = settings.masks, sorted(self.full_clip.references)
        region = shape_mask(self.full_clip.edit_mask, masks.shape, masks.expand, masks.smooth)
        shown = [numbers[place - 1] for place in select_reference_indices(len(numbers) + 1, num_references)]
        return replace(self.full_clip, edit_mask=region, references={n: self.full_clip.references[n] for n in shown})

    @property
    def max_references(self) -> int:
        """How many edited later frames the case has."""
        return len(self.full_clip.references)


def open_case(
    family: Family, case: Case, seed: int, base_assignments: tuple[str, ...], folder: Path | None = None, vace: Family | None = None
) -> CaseTrial:
    """Read the case for trying it, with the captions that `folder` keeps of it, where any are asked for. Raises `InputError` kin."""
    settings = resolve_case_settings(case, family.name, seed, (*base_assignments, "masks.shape=as-is"))
    drawn = read_case(case, settings)
    if folder is not None and needs_captions(settings, vace is not None):
        drawn = replace(drawn, captions=read_captions(drawn, _build_captions_path(folder, settings)))
    return CaseTrial(family, seed, case, drawn, base_assignments=base_assignments, vace=vace)
