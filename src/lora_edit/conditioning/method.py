"""The heart: how a clip, an edit mask and edited frames become what the model is given (paper 3.2, 3.3, appendix B).

| setting | V_cond | M_cond (1 = given, 0 = to generate) | V_target | image |
|---|---|---|---|---|
| `motion` (3.3.1) | source frame 0, then the source with the edit region emptied | 1; then 1 - edit_mask | source | source frame 0 |
| `appearance` (3.3.2), per edited frame i | source frame i, edit region emptied | 1 - edit_mask_i | edited frame i | source frame i |
| `inference` | edited frame 0, then the source with the edit region emptied | 1; then 1 - edit_mask | none | edited frame 0 |

Baselines (`baselines.py`) call one of these and replace one thing. Everything here is a pure function of pixels: `[3, T, H, W]` in [-1, 1]
for clips, `[3, H, W]` for frames, `[T, H, W]` bool for the edit mask (True = edit). Polarity meets once, in `m_cond_for`.
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
    """`M_cond` `[1, T, H, W]`: frame 0 given as the reference, later frames given outside the edit region."""
    given = (~edit_mask).float()
    given[0] = 1.0
    return given[None]


def build_motion_sample(source: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None) -> Sample:
    """Learn the clip's motion inside the edit region, and to keep what the mask marks as given (3.3.1).

    `hint` is what the source's own frame 0 predicts there.
    """
    m_cond = build_m_cond(edit_mask)
    return Sample(mask_video(source, m_cond), m_cond, source, source[:, 0], prompt, hint=hint)


def build_appearance_sample(source_frame: Pixels, edited_frame: Pixels, edit_mask: torch.Tensor, prompt: str = "") -> Sample:
    """Learn how one later frame should look, as a clip of one frame so that no motion is learned (3.3.2).

    `edit_mask` is `[H, W]`. Frame 0 is not forced to be given: the region itself has to be generated.
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
    """Generate the edited clip from the edited first frame (3.3.1, last paragraph).

    `anchors` are further frames, by position, that are given whole: frames a person insists on, or those that an earlier window made.
    """
    content, m_cond = source.clone(), build_m_cond(edit_mask)
    for position, frame in {**(anchors or {}), 0: edited_first}.items():
        content[:, position] = frame
        m_cond[:, position] = 1.0
    return Sample(mask_video(content, m_cond), m_cond, None, edited_first, prompt, hint=hint)


def build_appearance_after_first_sample(
    source: Pixels, edited_first: Pixels, edited_frame: Pixels, edit_mask: torch.Tensor, prompt: str = "", hint: Hint | None = None
) -> Sample:
    """Ours: the edited later frame, standing still, behind the edited first frame, asked for as `inference` will.

    `source` and `edit_mask` are those of frame 0 and of the later frame as often as a latent frame has frames; `hint` is what the other
    edited frames predict of it. A model that refines a prediction learns here what it gets wrong, which a single frame cannot show.
    """
    target = edited_frame[:, None].expand_as(source).clone()
    target[:, 0] = edited_first
    return replace(build_inference_sample(source, edited_first, edit_mask, prompt, hint=hint), v_target=target)
