"""The heart: how a clip, an edit mask and edited frames become what the model is given (paper 3.2, 3.3, appendix B).

| setting | V_cond | M_cond (1 = given, 0 = to generate) | V_target | image |
|---|---|---|---|---|
| `motion` (3.3.1) | source frame 0, then the source with the edit region emptied | 1; then 1 - edit_mask | source | source frame 0 |
| `appearance` (3.3.2), per edited frame i | source frame i, edit region emptied | 1 - edit_mask_i | edited frame i | source frame i |
| `inference` | edited frame 0, then the source with the edit region emptied | 1; then 1 - edit_mask | none | edited frame 0 |

Each baseline calls one of these and replaces one thing. Everything here is a pure function of pixels: `[3, T, H, W]` in [-1, 1] for
clips, `[3, H, W]` for frames, `[T, H, W]` bool for the edit mask (True = edit). Polarity meets once, in `m_cond_for`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from lora_edit.conditioning.carry import region_boxes
from lora_edit.conditioning.fill import withhold
from lora_edit.conditioning.sample import Sample

Pixels = torch.Tensor
Anchors = Mapping[int, torch.Tensor]
Boxes = torch.Tensor | None


def m_cond_for(edit_mask: torch.Tensor) -> torch.Tensor:
    """`M_cond` `[1, T, H, W]`: frame 0 given as the reference, later frames given outside the edit region."""
    given = (~edit_mask).float()
    given[0] = 1.0
    return given[None]


def motion(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", boxes: Boxes = None) -> Sample:
    """Learn the clip's motion inside the edit region, and to keep what the mask marks as given (3.3.1).

    `boxes` `[T, 4]` are the region's bounds before it grew to whole cells; those of `edit_mask` when left out.
    """
    m_cond = m_cond_for(edit_mask)
    bounds = region_boxes(edit_mask) if boxes is None else boxes
    return Sample(withhold(source, m_cond), m_cond, source, source[:, 0], prompt, boxes=bounds)


def appearance(source_frame: Pixels, edited_frame: Pixels, edit_mask: torch.Tensor, prompt: str = "") -> Sample:
    """Learn how one later frame should look, as a clip of one frame so that no motion is learned (3.3.2).

    `edit_mask` is `[H, W]`. Frame 0 is not forced to be given: the region itself has to be generated.
    """
    m_cond = (~edit_mask).float()[None, None]
    return Sample(withhold(source_frame[:, None], m_cond), m_cond, edited_frame[:, None], source_frame, prompt)


def inference(
    source: Pixels, edited_first: Pixels, edit_mask: torch.Tensor, prompt: str = "", anchors: Anchors | None = None, boxes: Boxes = None
) -> Sample:
    """Generate the edited clip from the edited first frame (3.3.1, last paragraph).

    `anchors` are further frames, by position, that are given whole: frames a person insists on, or those that an earlier window made.
    """
    content, m_cond = source.clone(), m_cond_for(edit_mask)
    for position, frame in {**(anchors or {}), 0: edited_first}.items():
        content[:, position] = frame
        m_cond[:, position] = 1.0
    bounds = region_boxes(edit_mask) if boxes is None else boxes
    return Sample(withhold(content, m_cond), m_cond, None, edited_first, prompt, boxes=bounds)


# --- training baselines -------------------------------------------------------------------------------------------------------


def naive_motion(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", boxes: Boxes = None) -> Sample:
    """Eq. 1: the default image-to-video condition, only frame 0 given; no region, so no boxes either."""
    return motion(source, torch.ones_like(edit_mask), prompt)


def all_ones_motion(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", boxes: Boxes = None) -> Sample:
    """Figure 2, third row: everything given."""
    return motion(source, torch.zeros_like(edit_mask), prompt)


def all_zeros_motion(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", boxes: Boxes = None) -> Sample:
    """Figure 2, second row: nothing given, not even frame 0."""
    return _nothing_given(motion(source, edit_mask, prompt))


def unscheduled_appearance(source_frame: Pixels, edited_frame: Pixels, edit_mask: torch.Tensor, prompt: str = "") -> Sample:
    """Appendix B.3: the edited frame is given as frame 0 and is also the target, so copying it is enough."""
    return appearance(edited_frame, edited_frame, torch.zeros_like(edit_mask), prompt)


# --- inference baselines ------------------------------------------------------------------------------------------------------


def naive_inference(
    source: Pixels, edited_first: Pixels, edit_mask: torch.Tensor, prompt: str = "", anchors: Anchors | None = None, boxes: Boxes = None
) -> Sample:
    """Eq. 1 at inference: only the edited first frame is given."""
    return inference(source, edited_first, torch.ones_like(edit_mask), prompt, anchors)


def all_ones_inference(
    source: Pixels, edited_first: Pixels, edit_mask: torch.Tensor, prompt: str = "", anchors: Anchors | None = None, boxes: Boxes = None
) -> Sample:
    """Figure 2, third row: the whole source is given behind the edited first frame."""
    return inference(source, edited_first, torch.zeros_like(edit_mask), prompt, anchors)


def all_zeros_inference(
    source: Pixels, edited_first: Pixels, edit_mask: torch.Tensor, prompt: str = "", anchors: Anchors | None = None, boxes: Boxes = None
) -> Sample:
    """Figure 2, second row: nothing is given."""
    return _nothing_given(inference(source, edited_first, edit_mask, prompt, anchors))


def feature_level_inference(
    source: Pixels, edited_first: Pixels, edit_mask: torch.Tensor, prompt: str = "", anchors: Anchors | None = None, boxes: Boxes = None
) -> Sample:
    """Eq. 3: conditioned like the naive baseline; the source's noisy latents are blended in outside the region at every step."""
    naive = naive_inference(source, edited_first, edit_mask, prompt, anchors)
    return replace(naive, v_blend=inference(source, edited_first, torch.zeros_like(edit_mask)).v_cond, m_blend=m_cond_for(edit_mask))


def _nothing_given(sample: Sample) -> Sample:
    nothing = torch.zeros_like(sample.m_cond)
    return replace(sample, m_cond=nothing, v_cond=withhold(sample.v_cond, nothing), boxes=None)


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
