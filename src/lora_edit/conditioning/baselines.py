"""What the method is compared with: one thing of its samples replaced; and every variant by its setting's name (paper 3.2, appendix B)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from lora_edit.conditioning.fill import withhold
from lora_edit.conditioning.method import Anchors, Pixels, appearance, inference, m_cond_for, motion
from lora_edit.conditioning.sample import Hint, Sample

# --- training ---------------------------------------------------------------------------------------------------------------


def naive_motion(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None) -> Sample:
    """Eq. 1: the default image-to-video condition, only frame 0 given; no region, so no hint either."""
    return motion(source, torch.ones_like(edit_mask), prompt)


def all_ones_motion(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None) -> Sample:
    """Figure 2, third row: everything given."""
    return motion(source, torch.zeros_like(edit_mask), prompt)


def all_zeros_motion(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None) -> Sample:
    """Figure 2, second row: nothing given, not even frame 0."""
    return _nothing_given(motion(source, edit_mask, prompt))


def unscheduled_appearance(source_frame: Pixels, edited_frame: Pixels, edit_mask: torch.Tensor, prompt: str = "") -> Sample:
    """Appendix B.3: the edited frame is given as frame 0 and is also the target, so copying it is enough."""
    return appearance(edited_frame, edited_frame, torch.zeros_like(edit_mask), prompt)


# --- inference --------------------------------------------------------------------------------------------------------------


def naive_inference(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Eq. 1 at inference: only the edited first frame is given."""
    return inference(source, edited_first, torch.ones_like(edit_mask), prompt, anchors)


def all_ones_inference(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Figure 2, third row: the whole source is given behind the edited first frame."""
    return inference(source, edited_first, torch.zeros_like(edit_mask), prompt, anchors)


def all_zeros_inference(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Figure 2, second row: nothing is given."""
    return _nothing_given(inference(source, edited_first, edit_mask, prompt, anchors))


def feature_level_inference(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Eq. 3: conditioned like the naive baseline; the source's noisy latents are blended in outside the region at every step."""
    naive = naive_inference(source, edited_first, edit_mask, prompt, anchors)
    return replace(naive, v_blend=inference(source, edited_first, torch.zeros_like(edit_mask)).v_cond, m_blend=m_cond_for(edit_mask))


def _nothing_given(sample: Sample) -> Sample:
    nothing = torch.zeros_like(sample.m_cond)
    return replace(sample, m_cond=nothing, v_cond=withhold(sample.v_cond, nothing), hint=None)


MOTION: dict[str, Callable[..., Sample]] = {
    "mask-aware": motion,
    "first-frame": naive_motion,
    "feature-level": naive_motion,
    "all-ones": all_ones_motion,
    "all-zeros": all_zeros_motion,
}
APPEARANCE: dict[str, Callable[..., Sample]] = {"scheduled": appearance, "first-frame": unscheduled_appearance}
INFERENCE: dict[str, Callable[..., Sample]] = {
    "mask-aware": inference,
    "first-frame": naive_inference,
    "feature-level": feature_level_inference,
    "all-ones": all_ones_inference,
    "all-zeros": all_zeros_inference,
}
