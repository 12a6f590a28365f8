"""What the known frames never show."""

from __future__ import annotations

import numpy as np
import torch

from lora_edit.video.disocclusion import compute_unseen_shares, suggest_next_frame


def revealing(frames: int = 9) -> torch.Tensor:
    """A textured ground, and a door in the middle that opens onto another texture from frame 5 on, widest in frame 7."""
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(40, 200, (12, 16, 3)), np.ones((8, 8, 1)))
    behind = np.kron(rng.integers(0, 255, (48, 64, 3)), np.ones((2, 2, 1)))
    clip = np.stack([ground] * frames)
    for number, width in ((5, 8), (6, 20), (7, 40), (8, 20)):
        clip[number, 20:76, 64 - width : 64 + width] = behind[20:76, 64 - width : 64 + width]
    return torch.from_numpy(clip.astype(np.uint8))


def test_the_frame_with_most_that_was_never_shown_is_the_next_to_edit() -> None:
    clip = revealing()
    region = torch.zeros(clip.shape[:3], dtype=torch.bool)
    region[:, 16:80, 16:112] = True
    shares = compute_unseen_shares(clip, region)
    assert max(shares[:5]) < 0.01
    assert shares[7] > shares[6] > shares[5] > 0.01
    assert suggest_next_frame(shares, region) == 7


def test_what_another_edited_frame_shows_is_known() -> None:
    clip = revealing()
    region = torch.zeros(clip.shape[:3], dtype=torch.bool)
    region[:, 16:80, 16:112] = True
    shares = compute_unseen_shares(clip, region, (0, 7))
    assert max(shares) < 0.02
    assert suggest_next_frame(shares, region) is None


def test_outside_of_the_region_nothing_counts() -> None:
    clip = revealing()
    region = torch.zeros(clip.shape[:3], dtype=torch.bool)
    region[:, :12, :12] = True
    assert suggest_next_frame(compute_unseen_shares(clip, region), region) is None
