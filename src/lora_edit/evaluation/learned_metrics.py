"""The metrics that need a downloaded network, by the names that people ask for; nothing is loaded that was not asked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from lora_edit.devices import pick_device
from lora_edit.errors import SettingsError
from lora_edit.evaluation.checks import require_same_shape
from lora_edit.evaluation.clip_score import clip_score, embed_frames, input_similarity, load_clip_model
from lora_edit.evaluation.deqa import Scorer, deqa, load_deqa
from lora_edit.evaluation.lpips import Lpips, load_lpips, lpips
from lora_edit.types import EditMask, Video

LEARNED_METRICS = ("clip_score", "input_similarity", "deqa", "lpips")

DIGITS = 4


@dataclass(frozen=True)
class Networks:
    """What `load_networks` loaded; None where nothing asked for it."""

    clip_model: Any = None
    deqa_scorer: Scorer | None = None
    lpips_model: Lpips | None = None


def load_networks(names: Collection[str], device: str = "auto") -> Networks:
    """The networks behind those of `LEARNED` that are among `names`. Raises `ModelError` when one is not on this machine."""
    place = pick_device(device)
    return Networks(
        clip_model=load_clip_model(place) if {"clip_score", "input_similarity"} & set(names) else None,
        deqa_scorer=load_deqa() if "deqa" in names else None,
        lpips_model=load_lpips(place) if "lpips" in names else None,
    )


def measure_learned_metrics(
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
    require_same_shape(result.frames, source.frames, "source")
    found: dict[str, float] = {}
    if networks.clip_model is not None:
        embedded = embed_frames(networks.clip_model, result.frames)
        if "clip_score" in names:
            assert first_frame is not None
            found["clip_score"] = clip_score(embedded, embed_frames(networks.clip_model, first_frame[None]))
        if "input_similarity" in names:
            found["input_similarity"] = input_similarity(embedded, embed_frames(networks.clip_model, source.frames))
    if networks.deqa_scorer is not None:
        found["deqa"] = deqa(result.frames, networks.deqa_scorer)
    if networks.lpips_model is not None:
        found |= _measure_lpips(networks.lpips_model, result, source, source if truth is None else truth, mask)
    return {name: round(value, DIGITS) for name, value in found.items()}


def require_first_frame(names: Collection[str], has_first_frame: bool) -> None:
    """Raises `SettingsError` when one of `names` needs the edited first frame and it is not `given`."""
    if "clip_score" in names and not has_first_frame:
        raise SettingsError("clip_score compares with the edited first frame; give it with --first-frame IMAGE")


def _measure_lpips(model: Lpips, result: Video, source: Video, reference: Video, mask: EditMask | None) -> dict[str, float]:
    region = None if mask is None else mask.frames
    found = {"lpips": lpips(model, result.frames, reference.frames, region)}
    if region is not None and not region.all():
        found["background_lpips"] = lpips(model, result.frames, source.frames, ~region)
    return found
