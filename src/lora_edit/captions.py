"""Automatic prompts: captions of the frames, generated once and stored in the run folder (paper 3.1).

Motion is trained with the caption of the source's first frame, each later edited frame with its own caption, and generation uses the
caption of the edited first frame. A prompt of the user replaces all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from lora_edit.atomic_files import write_text
from lora_edit.config import EditSettings
from lora_edit.devices import pick_compute_dtype, pick_device
from lora_edit.errors import ModelError, RunError
from lora_edit.inputs import Clip
from lora_edit.models.checkpoints.locate import reads_prompts
from lora_edit.models.florence import caption_frames, has_captioner
from lora_edit.models.settings import CAPTIONER
from lora_edit.reporting import Reporter
from lora_edit.run import Run
from lora_edit.text_files import read_json_object
from lora_edit.types import hash_content

SOURCE, FIRST_FRAME = "source", "first_frame"
CAPTIONS_FILE = "captions.json"
"""File in the run folder that maps hashes of images to their captions."""


def get_reference_name(number: int) -> str:
    """Return the name of the edited frame `number` in tables of captions."""
    return f"reference_{number}"


def build_prompt(image_name: str, settings: EditSettings, captions: Mapping[str, str]) -> str:
    """Build [p*] + c, the prompt of the paper (3.1), with the caption of the named image; p* alone without a caption."""
    return ", ".join(part for part in (settings.trigger, settings.prompt or captions.get(image_name, "")) if part)


def build_training_prompts(settings: EditSettings, clip: Clip) -> dict[str, str]:
    """Build the training prompts by the names of the images they describe."""
    return {name: build_prompt(name, settings, clip.captions) for name in (SOURCE, *map(get_reference_name, sorted(clip.references)))}


def build_prompt_rows(settings: EditSettings, clip: Clip) -> list[tuple[str, str]]:
    """Build pairs of a label and a prompt for the report; empty for a model that ignores prompts."""
    if not reads_prompts(settings.model):
        return []
    prompts = {**build_training_prompts(settings, clip), "generation": build_prompt(FIRST_FRAME, settings, clip.captions)}
    return [(f"prompt, {'training' if name == SOURCE else name.replace('_', ' ')}", text) for name, text in prompts.items()]


def check_captioner(settings: EditSettings, has_vace_baseline: bool = False) -> None:
    """Raise `ModelError` if captions are needed and a captioner other than the default one is missing. The default one may be missing."""
    captioner = settings.caption.model
    if needs_captions(settings, has_vace_baseline) and captioner != CAPTIONER and not has_captioner(captioner):
        raise ModelError(f"caption.model {captioner}: no Florence-2 of that name on this machine; download it or give its folder")


def add_captions(clip: Clip, run: Run, settings: EditSettings, reporter: Reporter) -> Clip:
    """Return the clip with captions of its images: those stored in the run, and new ones, which are stored as well.

    Without a captioner, empty captions are stored, and the prompt is p* alone for the whole run: generation uses the same prompts as
    training. Raises `ModelError` if a captioner other than the default one cannot be read.
    """
    if not needs_captions(settings):
        return clip
    has_new_captions = caption_images(collect_images(clip).values(), run.folder / CAPTIONS_FILE, settings, reporter)
    captions = read_captions(clip, run.folder / CAPTIONS_FILE)
    run.update_manifest(captions=captions, captioner=settings.caption.model)
    if has_new_captions:
        run.log(f"prompts: {build_prompt(SOURCE, settings, captions)} | edited: {build_prompt(FIRST_FRAME, settings, captions)}")
    note = f"caption of the edited first frame, used as prompt: {captions[FIRST_FRAME]} (--prompt TEXT replaces all captions)"
    if not captions[SOURCE]:
        note = (
            f"the prompt is p* alone ({settings.trigger}), as this run started without a captioner; `hf download {settings.caption.model}` "
            "(up to 3.3 GB) enables automatic prompts for new runs, and --prompt TEXT sets a prompt"
        )
    reporter.note(note)
    return replace(clip, captions=captions, notes=(*clip.notes, note))


def caption_images(images: Iterable[torch.Tensor], file: Path, settings: EditSettings, reporter: Reporter) -> bool:
    """Generate captions of uint8 images `[H, W, 3]` that `file` lacks, and add them to it. Returns whether it lacked any.

    If earlier captions are empty for lack of a captioner, new ones are empty too. Raises `ModelError` if a captioner other than the
    default one cannot be read.
    """
    captions = _read_caption_file(file)
    new_images = {key: image for image in images if (key := hash_content(image)) not in captions}
    if new_images:
        captions |= _run_captioner(new_images, "" in captions.values(), settings, reporter)
        write_text(file, json.dumps(captions, indent=2, ensure_ascii=False) + "\n")
    return bool(new_images)


def read_captions(clip: Clip, file: Path) -> dict[str, str]:
    """Read the captions of the clip's images from `file`, by the names of the images."""
    captions = _read_caption_file(file)
    return {name: captions[hash_content(image)] for name, image in collect_images(clip).items()}


def lacks_captions(file: Path) -> bool:
    """Whether the file has empty captions, for lack of a captioner."""
    return "" in _read_caption_file(file).values()


def collect_images(clip: Clip) -> dict[str, torch.Tensor]:
    """Collect the images that prompts describe, by name."""
    return {
        SOURCE: clip.video.frames[0],
        FIRST_FRAME: clip.first_frame,
        **{get_reference_name(n): image for n, image in clip.references.items()},
    }


def caption_image(image: torch.Tensor, settings: EditSettings, reporter: Reporter) -> str:
    """Generate the caption of one uint8 image `[H, W, 3]` without storing it. Empty, with a note, without a captioner."""
    return _run_captioner({FIRST_FRAME: image}, False, settings, reporter)[FIRST_FRAME]


def needs_captions(settings: EditSettings, has_vace_baseline: bool = False) -> bool:
    """Whether captions are enabled and used: no prompt is given, and the model reads prompts or there is a VACE baseline."""
    return settings.caption.enabled and not settings.prompt and (has_vace_baseline or reads_prompts(settings.model))


def _read_caption_file(file: Path) -> dict[str, str]:
    return read_json_object(file, RunError, "remove it, and captions are generated again") if file.is_file() else {}


def _run_captioner(images: Mapping[str, torch.Tensor], skip_captioner: bool, settings: EditSettings, reporter: Reporter) -> dict[str, str]:
    """Generate captions by the keys of `images`; empty ones with `skip_captioner`, or if the default captioner is missing."""
    device, captioner = pick_device(), settings.caption.model
    if not skip_captioner:
        try:
            captions = caption_frames(
                list(images.values()),
                captioner,
                device,
                pick_compute_dtype(device),
                lambda done, total: reporter.step("captions", done, total),
            )
            return dict(zip(images, captions, strict=True))
        except ModelError as error:
            if captioner != CAPTIONER:
                raise
            reporter.note(str(error))
    return dict.fromkeys(images, "")
