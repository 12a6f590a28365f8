"""The prompt writes itself: the frames are described once, and the run keeps what was said (paper 3.1).

Motion is trained with the caption of the source's first frame, each later edited frame with its own, and generation asks with that of
the edited first frame. A prompt that a person gives takes the place of all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from lora_edit.config import EditSettings
from lora_edit.devices import pick_compute_dtype, pick_device
from lora_edit.errors import ModelError
from lora_edit.inputs import Clip
from lora_edit.models.checkpoints.locate import reads_prompts
from lora_edit.models.florence import caption_frames, has_captioner
from lora_edit.models.settings import CAPTIONER
from lora_edit.reporting import Reporter
from lora_edit.run import Run, write_atomically
from lora_edit.types import hash_content

SOURCE, FIRST_FRAME = "source", "first_frame"
CAPTIONS_FILE = "captions.json"
"""In the run folder: a picture's hash to its caption."""


def get_reference_name(number: int) -> str:
    """What the edited frame `number` is called here."""
    return f"reference_{number}"


def build_prompt(image_name: str, settings: EditSettings, captions: Mapping[str, str]) -> str:
    """[p*] + c, the paper's prompt (3.1), with the caption of the named picture; p* alone where there is none."""
    return ", ".join(part for part in (settings.trigger, settings.prompt or captions.get(image_name, "")) if part)


def build_training_prompts(settings: EditSettings, clip: Clip) -> dict[str, str]:
    """The prompts that the LoRA is trained with, by the names of the pictures they describe."""
    return {name: build_prompt(name, settings, clip.captions) for name in (SOURCE, *map(get_reference_name, sorted(clip.references)))}


def build_prompt_rows(settings: EditSettings, clip: Clip) -> list[tuple[str, str]]:
    """The prompts by what they are for, for the report; none for a model that ignores them."""
    if not reads_prompts(settings.model):
        return []
    prompts = {**build_training_prompts(settings, clip), "generation": build_prompt(FIRST_FRAME, settings, clip.captions)}
    return [(f"prompt, {'training' if name == SOURCE else name.replace('_', ' ')}", text) for name, text in prompts.items()]


def check_captioner(settings: EditSettings, has_vace_baseline: bool = False) -> None:
    """Raise `ModelError` for a captioner of the person's choice that is not here; the usual one may be missing."""
    chosen = settings.caption.model
    if needs_captions(settings, has_vace_baseline) and chosen != CAPTIONER and not has_captioner(chosen):
        raise ModelError(f"caption.model {chosen}: no Florence-2 of that name on this machine; download it or give its folder")


def add_captions(clip: Clip, run: Run, settings: EditSettings, reporter: Reporter) -> Clip:
    """The clip with captions of the pictures that a prompt describes: those that the run keeps, and new ones, which it keeps from now on.

    Where the captioner is not here, that is kept too, and the prompt stays p* alone for all of the run: the LoRA is asked as it was
    trained. Raises `ModelError` for a captioner of the person's choice that cannot be read.
    """
    if not needs_captions(settings):
        return clip
    fresh = caption_images(collect_images(clip).values(), run.folder / CAPTIONS_FILE, settings, reporter)
    captions = read_captions(clip, run.folder / CAPTIONS_FILE)
    run.update_manifest(captions=captions, captioner=settings.caption.model)
    if fresh:
        run.log(f"prompts: {build_prompt(SOURCE, settings, captions)} | edited: {build_prompt(FIRST_FRAME, settings, captions)}")
    note = f"the edited first frame in words, for the model: {captions[FIRST_FRAME]} (--prompt TEXT replaces all captions)"
    if not captions[SOURCE]:
        note = (
            f"the prompt is p* alone ({settings.trigger}): this run began without a captioner; `hf download {settings.caption.model}` "
            "(up to 3.3 GB) writes the prompts of new runs, and --prompt TEXT takes yours"
        )
    reporter.note(note)
    return replace(clip, captions=captions, notes=(*clip.notes, note))


def caption_images(images: Iterable[torch.Tensor], file: Path, settings: EditSettings, reporter: Reporter) -> bool:
    """Have uint8 pictures `[H, W, 3]` described that `file` does not know yet, which keeps them from now on; says whether there were any.

    Where some have no caption because there was no captioner, the others get none either. Raises `ModelError` for a captioner of the
    person's choice that cannot be read.
    """
    kept = _read_caption_file(file)
    fresh = {key: picture for picture in images if (key := hash_content(picture)) not in kept}
    if fresh:
        kept |= _run_captioner(fresh, "" in kept.values(), settings, reporter)
        write_atomically(file, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")
    return bool(fresh)


def read_captions(clip: Clip, file: Path) -> dict[str, str]:
    """Captions of a clip's pictures by their names, as `file` has them."""
    kept = _read_caption_file(file)
    return {name: kept[hash_content(picture)] for name, picture in collect_images(clip).items()}


def lacks_captions(file: Path) -> bool:
    """Has it pictures that nobody described, for want of a captioner?"""
    return "" in _read_caption_file(file).values()


def collect_images(clip: Clip) -> dict[str, torch.Tensor]:
    """The pictures that prompts describe, by name."""
    return {SOURCE: clip.video.frames[0], FIRST_FRAME: clip.first_frame, **{get_reference_name(n): p for n, p in clip.references.items()}}


def caption_image(image: torch.Tensor, settings: EditSettings, reporter: Reporter) -> str:
    """One uint8 picture `[H, W, 3]` in words, kept nowhere; empty where the captioner is not here, which is told."""
    return _run_captioner({FIRST_FRAME: image}, False, settings, reporter)[FIRST_FRAME]


def needs_captions(settings: EditSettings, has_vace_baseline: bool = False) -> bool:
    """Are captions asked for: does the model read prompts, or a `rival` beside it, and is none given?"""
    return settings.caption.enabled and not settings.prompt and (has_vace_baseline or reads_prompts(settings.model))


def _read_caption_file(file: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return found


def _run_captioner(images: Mapping[str, torch.Tensor], skip_captioner: bool, settings: EditSettings, reporter: Reporter) -> dict[str, str]:
    """Captions by the same keys; empty ones where the run began `without`, or the usual captioner is not here."""
    device, chosen = pick_device(), settings.caption.model
    if not skip_captioner:
        try:
            found = caption_frames(
                list(images.values()),
                chosen,
                device,
                pick_compute_dtype(device),
                lambda done, total: reporter.step("captions", done, total),
            )
            return dict(zip(images, found, strict=True))
        except ModelError as error:
            if chosen != CAPTIONER:
                raise
            reporter.note(str(error))
    return dict.fromkeys(images, "")
