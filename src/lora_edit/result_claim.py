"""The claim of a run's results for their manifests, built from the settings, the clip and the run folder (`provenance/claim.py`)."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lora_edit.config import EditSettings
from lora_edit.inputs import Clip
from lora_edit.models.record import ModelRecord
from lora_edit.provenance.certificate import Credentials, load_credentials
from lora_edit.provenance.claim import ClaimedFile, EditClaim, EditedRegion, Rectangle, claim_file
from lora_edit.provenance.content_hash import hash_file, hash_text
from lora_edit.run import Run
from lora_edit.types import BoolArray, EditMask, mask_bounds
from lora_edit.video.sheet import select_evenly_spaced

MAX_BOXED_FRAMES = 32
"""Frames whose boxes a manifest lists: evenly spaced, the first and the last edited one among them."""
MAX_PARTS = 4
"""Separate parts of a frame's region that get a box each; more get one box around all of them."""

PREVIEW_MODEL = {"name": "prediction without a diffusion model"}


def load_signing_credentials(settings: EditSettings) -> Credentials | None:
    """Load what results are signed with, or None where they are not signed. Raises `SettingsError` before any work."""
    return load_credentials(settings.provenance) if settings.provenance.sign else None


def build_claim(
    settings: EditSettings, clip: Clip, run: Run | None = None, first_frame: Path | None = None, seed: int | None = None
) -> EditClaim:
    """Build the claim of a result, without its model and LoRAs: that of a preview.

    `first_frame` replaces that of the settings, `seed` is None for a preview. Files that are gone are replaced by the copies in `run`.
    """
    excluded = {"input", "provenance", "prompt"}
    return EditClaim(
        version=version("lora-edit"),
        files=_claim_files(settings, run, first_frame),
        region=describe_region(clip.edit_mask),
        model=PREVIEW_MODEL,
        settings_sha256=hash_text(settings.model_dump_json(exclude=excluded)),
        seed=seed,
        prompt_sha256=hash_text(settings.prompt) if settings.prompt else None,
        first_source_frame=settings.video.start,
        keeps_outside=settings.compositing.enabled,
    )


def describe_model(record: ModelRecord, fingerprint: str) -> dict[str, str]:
    """Describe the base model: its name in `lora-edit models`, its licence, and a hash of some of its weights."""
    return {"name": record.name, "license": record.license, "fingerprint": fingerprint}


def describe_loras(run: Run) -> tuple[dict[str, Any], ...]:
    """Describe the LoRAs of a result by their hashes: those trained on the clip, and other people's."""
    trained = [{"role": "trained on this clip", "sha256": hash_file(file)} for file in run.list_lora_files()]
    others = [{"role": "other", "sha256": each["sha256"], "strength": each["strength"]} for each in run.read_manifest().get("loras", [])]
    return (*trained, *others)


def _claim_files(settings: EditSettings, run: Run | None, first_frame: Path | None) -> tuple[ClaimedFile, ...]:
    inputs, stored = settings.input, run.folder / "references" if run else None
    first_role = "first frame"
    files = [
        claim_file("source", inputs.source, run.folder / "frames" if run else None),
        claim_file(first_role, first_frame or inputs.first_frame, stored / "first_frame.png" if stored else None, first_role),
    ]
    for kind, keyframes in (("reference", inputs.references), ("anchor", inputs.anchors)):
        for each in keyframes:
            role = f"edited frame {each.frame} ({kind})"
            files.append(claim_file(role, each.image, stored / f"{kind}_{each.frame:05d}.png" if stored else None, role))
    return tuple(each for each in files if each is not None)


def describe_region(edit_mask: EditMask) -> EditedRegion:
    """Describe where and in which frames a clip is edited."""
    masks = edit_mask.frames.cpu().numpy()
    edited = np.flatnonzero(masks.any(axis=(1, 2)))
    runs = np.split(edited, np.flatnonzero(np.diff(edited) > 1) + 1) if len(edited) else []
    numbers = [int(edited[index]) for index in select_evenly_spaced(len(edited), MAX_BOXED_FRAMES)] if len(edited) else []
    return EditedRegion(
        num_frames=edit_mask.num_frames,
        width=edit_mask.size.width,
        height=edit_mask.size.height,
        frame_ranges=tuple((int(each[0]), int(each[-1])) for each in runs),
        pixel_share=round(float(masks.mean()), 6),
        boxes={number: _list_part_boxes(masks[number]) for number in numbers},
    )


def _list_part_boxes(mask: BoolArray) -> tuple[Rectangle, ...]:
    """List the boxes around the separate parts of a mask `[H, W]`, largest first."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count - 1 > MAX_PARTS:
        left, top, right, bottom = mask_bounds(mask) or (0, 0, 0, 0)
        return ((left, top, right - left, bottom - top),)
    order = np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable") + 1
    columns = (cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP, cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT)
    return tuple((int(part[0]), int(part[1]), int(part[2]), int(part[3])) for part in stats[order][:, columns])
