"""A case of a manifest as something to try: an edit that a person wants, with no true result to hold it against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lora_edit.captions import check_captioner, describe, kept_captions, lacks_captions, pictures_of, wants_captions
from lora_edit.config import EditSettings, KeyBox, resolve
from lora_edit.devices import forget_freed, pick_device
from lora_edit.errors import InputError, SettingsError
from lora_edit.evaluation.manifest import Case, placed_cases
from lora_edit.inputs import Clip, read_inputs
from lora_edit.masks.shapes import shape_mask
from lora_edit.models.family import Family
from lora_edit.reporting import Reporter
from lora_edit.studies.trial import Trial, later_frames
from lora_edit.video.read import probe


def case_settings(case: Case, model: str, seed: int, assignments: Sequence[str]) -> EditSettings:
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
    return resolve(tables, ("masks.shape=box", "compositing.detail=false", *assignments))


def read_case(case: Case, settings: EditSettings) -> Clip:
    """The case's files, checked as an edit's are; without a mask the region is the whole frame. Raises `InputError` kin."""
    if case.mask is None:
        size = probe(case.source).size
        whole = KeyBox(x=0, y=0, width=size.width, height=size.height, frame=None, object="1")
        settings = settings.model_copy(update={"input": settings.input.model_copy(update={"boxes": (whole,)})})
    return read_inputs(settings)


def check_cases(manifest: Path, later: int, model: str, assignments: Sequence[str], reporter: Reporter) -> list[Case]:
    """The manifest's cases that have `later` edited later frames or more, after everything that they name was read once.

    Raises `SettingsError`, with the manifest's line, for the first fault, and when no case is left.
    """
    cases = placed_cases(manifest)
    enough = {place: case for place, case in cases.items() if len(case.later) >= later}
    if not enough:
        raise SettingsError(
            f"{manifest}: none of its {len(cases)} cases has {later} edited later frames, which this study needs; "
            "add them to a line as `later`, or choose another study"
        )
    if left_out := len(cases) - len(enough):
        reporter.note(f"{left_out} of {len(cases)} cases have fewer than {later} edited later frames and are left out")
    for done, (place, case) in enumerate(enough.items(), 1):
        settings = case_settings(case, model, 0, assignments)
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


def caption_cases(cases: Sequence[Case], folder: Path, model: str, assignments: Sequence[str], rival: bool, reporter: Reporter) -> None:
    """Have the pictures of cases without a prompt described, as an edit would, where the model or the `rival` beside it reads prompts.

    Each is described once, by one captioner that is gone before any model is loaded; `folder` keeps what was said. Raises `ModelError` for
    a captioner of the person's choice that is not here.
    """
    wanted = [(case, how) for case in cases if wants_captions(how := case_settings(case, model, 0, assignments), rival)]
    if not wanted:
        return
    settings = wanted[0][1]
    check_captioner(settings, rival)
    # Copies, because the source's first frame is a part of the whole clip.
    pictures = [picture.clone() for case, how in wanted for picture in pictures_of(read_case(case, how)).values()]
    folder.mkdir(parents=True, exist_ok=True)
    file = _captions_file(folder, settings)
    describe(pictures, file, settings, reporter)
    forget_freed(pick_device())
    if lacks_captions(file):
        reporter.note(
            "cases without a prompt are asked with p* alone, as this study began without a captioner; "
            f"`hf download {settings.caption.model}` (up to 3.3 GB), then delete {file} to try them anew with captions"
        )


def _captions_file(folder: Path, settings: EditSettings) -> Path:
    """One for each captioner."""
    return folder / f"captions-{Path(settings.caption.model).name}.json"


@dataclass(frozen=True)
class CaseTrial(Trial):
    """A case without truth. `drawn` is its clip with the mask as drawn and all its edited later frames."""

    case: Case
    drawn: Clip

    def settings(self, *assignments: str) -> EditSettings:
        """What `lora-edit edit` takes, with the study's and the row's changes."""
        return case_settings(self.case, self.family.name, self.seed, (*self.base, *assignments))

    def clip(self, settings: EditSettings, references: int = 0) -> Clip:
        """The clip with the region that the settings make of the mask, and `references` of the edited later frames, evenly spread."""
        assert references <= self.later
        masks, numbers = settings.masks, sorted(self.drawn.references)
        region = shape_mask(self.drawn.edit_mask, masks.shape, masks.expand, masks.smooth)
        shown = [numbers[place - 1] for place in later_frames(len(numbers) + 1, references)]
        return replace(self.drawn, edit_mask=region, references={n: self.drawn.references[n] for n in shown})

    @property
    def later(self) -> int:
        """How many edited later frames the case has."""
        return len(self.drawn.references)


def open_case(
    family: Family, case: Case, seed: int, base: tuple[str, ...], folder: Path | None = None, vace: Family | None = None
) -> CaseTrial:
    """Read the case for trying it, with the captions that `folder` keeps of it, where any are asked for. Raises `InputError` kin."""
    settings = case_settings(case, family.name, seed, (*base, "masks.shape=as-is"))
    drawn = read_case(case, settings)
    if folder is not None and wants_captions(settings, vace is not None):
        drawn = replace(drawn, captions=kept_captions(drawn, _captions_file(folder, settings)))
    return CaseTrial(family, seed, case, drawn, base=base, vace=vace)
