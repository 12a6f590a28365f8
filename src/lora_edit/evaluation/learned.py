"""The metrics that need a downloaded network, by the names that people ask for; nothing is loaded that was not asked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from lora_edit.devices import pick_device
from lora_edit.errors import SettingsError
from lora_edit.evaluation.checks import require_alike
from lora_edit.evaluation.clip_score import clip_score, embed, input_similarity, load_clip
from lora_edit.evaluation.deqa import Scorer, deqa, load_deqa
from lora_edit.evaluation.lpips import Lpips, load_lpips, lpips
from lora_edit.types import EditMask, Video

LEARNED = ("clip_score", "input_similarity", "deqa", "lpips")

DIGITS = 4


@dataclass(frozen=True)
class Networks:
    """What `load_networks` loaded; None where nothing asked for it."""

    clip: Any = None
    quality: Scorer | None = None
    perceptual: Lpips | None = None


def load_networks(names: Collection[str], device: str = "auto") -> Networks:
    """The networks behind those of `LEARNED` that are among `names`. Raises `ModelError` when one is not on this machine."""
    place = pick_device(device)
    return Networks(
        clip=load_clip(place) if {"clip_score", "input_similarity"} & set(names) else None,
        quality=load_deqa() if "deqa" in names else None,
        perceptual=load_lpips(place) if "lpips" in names else None,
    )


def measure_learned(
    networks: Networks,
    names: Collection[str],
    result: Video,
    source: Video,
    truth: Video | None = None,
    mask: EditMask | None = None,
    first_frame: torch.Tensor | None = None,
) -> dict[str, float]:
    """Those of `LEARNED` that are among `names`, rounded, as `lora-edit evaluate --json` prints them.

    `lpips` is the region's (the whole frame's without a `mask`) against the truth where one was given, else the source; where the mask
    leaves a background, `background_lpips` is that against the source. Raises `SettingsError` when the edited `first_frame` `[H, W, 3]`
    uint8 is missing, `VideoError` or `MaskError` when the clips or the mask do not fit.
    """
    require_first_frame(names, first_frame is not None)
    require_alike(result.frames, source.frames, "source")
    found: dict[str, float] = {}
    if networks.clip is not None:
        embedded = embed(networks.clip, result.frames)
        if "clip_score" in names:
            assert first_frame is not None
            found["clip_score"] = clip_score(embedded, embed(networks.clip, first_frame[None]))
        if "input_similarity" in names:
            found["input_similarity"] = input_similarity(embedded, embed(networks.clip, source.frames))
    if networks.quality is not None:
        found["deqa"] = deqa(result.frames, networks.quality)
    if networks.perceptual is not None:
        found |= _lpips(networks.perceptual, result, source, source if truth is None else truth, mask)
    return {name: round(value, DIGITS) for name, value in found.items()}


def require_first_frame(names: Collection[str], given: bool) -> None:
    """Raises `SettingsError` when one of `names` needs the edited first frame and it is not `given`."""
    if "clip_score" in names and not given:
        raise SettingsError("clip_score compares with the edited first frame; give it with --first-frame IMAGE")


def _lpips(model: Lpips, result: Video, source: Video, right: Video, mask: EditMask | None) -> dict[str, float]:
    region = None if mask is None else mask.frames
    found = {"lpips": lpips(model, result.frames, right.frames, region)}
    if region is not None and not region.all():
        found["background_lpips"] = lpips(model, result.frames, source.frames, ~region)
    return found
