"""The method: builds the model's condition from a clip, an edit mask and edited frames (paper 3.2, 3.3, appendix B).

| setting | V_cond | M_cond (1 = given, 0 = to generate) | V_target | image |
|---|---|---|---|---|
| `motion` (3.3.1) | source frame 0, then the source with the edit region filled | 1; then 1 - edit_mask | source | source frame 0 |
| `appearance` (3.3.2), per edited frame i | source frame i, edit region filled | 1 - edit_mask_i | edited frame i | source frame i |
| `inference` | edited frame 0, then the source with the edit region filled | 1; then 1 - edit_mask | none | edited frame 0 |

Baselines (`baselines.py`) call one of these and replace one part. All functions are pure functions of pixels: `[3, T, H, W]` in [-1, 1]
for clips, `[3, H, W]` for frames, `[T, H, W]` bool for the edit mask (True = edit). `build_m_cond` inverts the edit mask's polarity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from lora_edit.conditioning.fill import mask_video
from lora_edit.conditioning.sample import Hint, Sample

Pixels = torch.Tensor
Anchors = Mapping[int, torch.Tensor]


def build_m_cond(edit_mask: torch.Tensor) -> torch.Tensor:
    """Build `M_cond` `[1, T, H, W]`: frame 0 is given as the reference, later frames are given outside the edit region."""
    given = (~edit_mask).float()
    given[0] = 1.0
    return given[None]


def build_motion_sample(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None) -> Sample:
    """Build the sample that trains the clip's motion inside the edit region and preservation of given pixels (3.3.1).

    `hint` is the prediction of the region from the source's frame 0.
    """
    m_cond = build_m_cond(edit_mask)
    return Sample(mask_video(source, m_cond), m_cond, source, source[:, 0], prompt, hint=hint)


def build_appearance_sample(source_frame: Pixels, edited_frame: Pixels, edit_mask: torch.Tensor, prompt: str = "") -> Sample:
    """Build the sample that trains the appearance of one later frame, as a clip of one frame without motion (3.3.2).

    `edit_mask` is `[H, W]`. The frame's region is not given, although it is frame 0 of the sample: the model has to generate it.
    """
    m_cond = (~edit_mask).float()[None, None]
    return Sample(mask_video(source_frame[:, None], m_cond), m_cond, edited_frame[:, None], source_frame, prompt)


def build_inference_sample(
    source: Pixels,
    edited_first: Pixels,
    edit_mask: torch.Tensor,
    prompt: str = "",
    anchors: Anchors | None = None,
    hint: Hint | None = None,
) -> Sample:
    """Build the sample that generates the edited clip from the edited first frame (3.3.1, last paragraph).

    `anchors` are further frames, by position, that are given completely: frames that the person fixed, or output of an earlier window.
    """
    content, m_cond = source.clone(), build_m_cond(edit_mask)
    for position, frame in {**(anchors or {}), 0: edited_first}.items():
        content[:, position] = frame
        m_cond[:, position] = 1.0
    return Sample(mask_video(content, m_cond), m_cond, None, edited_first, prompt, hint=hint)


def build_appearance_after_first_sample(
    source: Pixels, edited_first: Pixels, edited_frame: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None
) -> Sample:
    """Build the sample whose target is the edited first frame followed by the still edited later frame, conditioned as `inference` (ours).

    `source` and `edit_mask` hold frame 0, then the later frame repeated for one latent frame; `hint` is its prediction from the other
    edited frames. A model that refines a prediction learns to correct it from this sample, which a single frame does not allow.
    """
    target = edited_frame[:, None].expand_as(source).clone()
    target[:, 0] = edited_first
    return replace(build_inference_sample(source, edited_first, edit_mask, prompt, hint=hint), v_target=target)
