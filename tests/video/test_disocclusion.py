"""Tests of disocclusion: content that the known frames never show."""

from __future__ import annotations

import numpy as np
import torch

from lora_edit.video.disocclusion import compute_unseen_shares, suggest_next_frame


def make_revealing_clip(frames: int = 9) -> torch.Tensor:
    """Make a clip of a texture with an opening in the middle onto another texture from frame 5 on, widest in frame 7."""
    rng = np.random.default_rng(0)
    background = np.kron(rng.integers(40, 200, (12, 16, 3)), np.ones((8, 8, 1)))
    behind = np.kron(rng.integers(0, 255, (48, 64, 3)), np.ones((2, 2, 1)))
    clip = np.stack([background] * frames)
    for number, width in ((5, 8), (6, 20), (7, 40), (8, 20)):
        clip[number, 20:76, 64 - width : 64 + width] = behind[20:76, 64 - width : 64 + width]
    return torch.from_numpy(clip.astype(np.uint8))


def test_frame_with_largest_unseen_area_is_suggested() -> None:
    clip = make_revealing_clip()
    region = torch.zeros(clip.shape[:3], dtype=torch.bool)
    region[:, 16:80, 16:112] = True
    shares = compute_unseen_shares(clip, region)
    assert max(shares[:5]) < 0.01
    assert shares[7] > shares[6] > shares[5] > 0.01
    assert suggest_next_frame(shares, region) == 7


def test_content_of_a_second_known_frame_is_seen() -> None:
    clip = make_revealing_clip()
    region = torch.zeros(clip.shape[:3], dtype=torch.bool)
    region[:, 16:80, 16:112] = True
    shares = compute_unseen_shares(clip, region, (0, 7))
    assert max(shares) < 0.02
    assert suggest_next_frame(shares, region) is None


def test_content_outside_the_region_is_ignored() -> None:
    clip = make_revealing_clip()
    region = torch.zeros(clip.shape[:3], dtype=torch.bool)
    region[:, :12, :12] = True
    assert suggest_next_frame(compute_unseen_shares(clip, region), region) is None
