"""Baselines that each replace one part of the method's samples, and all variants keyed by setting (paper 3.2, appendix B)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from lora_edit.conditioning.fill import mask_video
from lora_edit.conditioning.method import (
    Anchors,
    Pixels,
    build_appearance_sample,
    build_inference_sample,
    build_m_cond,
    build_motion_sample,
)
from lora_edit.conditioning.sample import Hint, Sample

# --- training ---------------------------------------------------------------------------------------------------------------


def build_naive_motion_sample(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None) -> Sample:
    """Build the default image-to-video condition (Eq. 1): only frame 0 is given. It has no region, and therefore no hint."""
    return build_motion_sample(source, torch.ones_like(edit_mask), prompt)


def build_all_ones_motion_sample(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None) -> Sample:
    """Build a motion sample with every pixel given (figure 2, third row)."""
    return build_motion_sample(source, torch.zeros_like(edit_mask), prompt)


def build_all_zeros_motion_sample(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None) -> Sample:
    """Build a motion sample with no pixel given, not even frame 0 (figure 2, second row)."""
    return _remove_condition(build_motion_sample(source, edit_mask, prompt))


def build_unscheduled_appearance_sample(source_frame: Pixels, edited_frame: Pixels, edit_mask: torch.Tensor, prompt: str = "") -> Sample:
    """Build an appearance sample whose given frame 0 is also its target, so that copying suffices (appendix B.3)."""
    return build_appearance_sample(edited_frame, edited_frame, torch.zeros_like(edit_mask), prompt)


# --- inference --------------------------------------------------------------------------------------------------------------


def build_naive_inference_sample(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Build the default image-to-video condition at inference (Eq. 1): only the edited first frame is given."""
    return build_inference_sample(source, edited_first, torch.ones_like(edit_mask), prompt, anchors)


def build_all_ones_inference_sample(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Build an inference sample with the whole source given after the edited first frame (figure 2, third row)."""
    return build_inference_sample(source, edited_first, torch.zeros_like(edit_mask), prompt, anchors)


def build_all_zeros_inference_sample(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Build an inference sample with no pixel given (figure 2, second row)."""
    return _remove_condition(build_inference_sample(source, edited_first, edit_mask, prompt, anchors))


def build_feature_level_sample(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Build the naive condition, with the source's noisy latents blended in outside the region at every step (Eq. 3)."""
    naive = build_naive_inference_sample(source, edited_first, edit_mask, prompt, anchors)
    return replace(
        naive, v_blend=build_inference_sample(source, edited_first, torch.zeros_like(edit_mask)).v_cond, m_blend=build_m_cond(edit_mask)
    )


def _remove_condition(sample: Sample) -> Sample:
    empty_mask = torch.zeros_like(sample.m_cond)
    return replace(sample, m_cond=empty_mask, v_cond=mask_video(sample.v_cond, empty_mask), hint=None)


MOTION_BUILDERS: dict[str, Callable[..., Sample]] = {
    "mask-aware": build_motion_sample,
    "first-frame": build_naive_motion_sample,
    "feature-level": build_naive_motion_sample,
    "all-ones": build_all_ones_motion_sample,
    "all-zeros": build_all_zeros_motion_sample,
}
APPEARANCE_BUILDERS: dict[str, Callable[..., Sample]] = {
    "scheduled": build_appearance_sample,
    "first-frame": build_unscheduled_appearance_sample,
}
INFERENCE_BUILDERS: dict[str, Callable[..., Sample]] = {
    "mask-aware": build_inference_sample,
    "first-frame": build_naive_inference_sample,
    "feature-level": build_feature_level_sample,
    "all-ones": build_all_ones_inference_sample,
    "all-zeros": build_all_zeros_inference_sample,
}
