"""What the method is compared with: one thing of its samples replaced; and every variant by its setting's name (paper 3.2, appendix B)."""

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
    """Eq. 1: the default image-to-video condition, only frame 0 given; no region, so no hint either."""
    return build_motion_sample(source, torch.ones_like(edit_mask), prompt)


def build_all_ones_motion_sample(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None) -> Sample:
    """Figure 2, third row: everything given."""
    return build_motion_sample(source, torch.zeros_like(edit_mask), prompt)


def build_all_zeros_motion_sample(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None) -> Sample:
    """Figure 2, second row: nothing given, not even frame 0."""
    return _remove_condition(build_motion_sample(source, edit_mask, prompt))


def build_unscheduled_appearance_sample(source_frame: Pixels, edited_frame: Pixels, edit_mask: torch.Tensor, prompt: str = "") -> Sample:
    """Appendix B.3: the edited frame is given as frame 0 and is also the target, so copying it is enough."""
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
    """Eq. 1 at inference: only the edited first frame is given."""
    return build_inference_sample(source, edited_first, torch.ones_like(edit_mask), prompt, anchors)


def build_all_ones_inference_sample(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Figure 2, third row: the whole source is given behind the edited first frame."""
    return build_inference_sample(source, edited_first, torch.zeros_like(edit_mask), prompt, anchors)


def build_all_zeros_inference_sample(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Figure 2, second row: nothing is given."""
    return _remove_condition(build_inference_sample(source, edited_first, edit_mask, prompt, anchors))


def build_feature_level_sample(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Eq. 3: conditioned like the naive baseline; the source's noisy latents are blended in outside the region at every step."""
    naive = build_naive_inference_sample(source, edited_first, edit_mask, prompt, anchors)
    return replace(
        naive, v_blend=build_inference_sample(source, edited_first, torch.zeros_like(edit_mask)).v_cond, m_blend=build_m_cond(edit_mask)
    )


def _remove_condition(sample: Sample) -> Sample:
    nothing = torch.zeros_like(sample.m_cond)
    return replace(sample, m_cond=nothing, v_cond=mask_video(sample.v_cond, nothing), hint=None)


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
