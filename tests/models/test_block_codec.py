"""The linear codec: locality, grouping, and what comes back."""

from __future__ import annotations

import pytest
import torch

from lora_edit.models.block_codec import BlockCodec, cosine_basis


@pytest.fixture(scope="module")
def codec() -> BlockCodec:
    """Fitted to smooth random clips."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(12, 3, 3, 4, 4, generator=generator) * 2 - 1
    clips = torch.nn.functional.interpolate(coarse, (9, 32, 32), mode="trilinear", align_corners=True)
    return BlockCodec.fit(clips, z_dim=48).eval()


def test_basis_is_orthonormal() -> None:
    """Rows over time."""
    basis = cosine_basis()
    torch.testing.assert_close(basis @ basis.T, torch.eye(4), atol=1e-6, rtol=0)


def test_smooth_clips_come_back(codec: BlockCodec) -> None:
    """Another clip of the same kind, better than 35 dB."""
    coarse = torch.rand(1, 3, 3, 4, 4, generator=torch.Generator().manual_seed(5)) * 1.6 - 0.8
    clip = torch.nn.functional.interpolate(coarse, (9, 32, 32), mode="trilinear", align_corners=True)
    latents = codec.encode(clip)
    assert latents.shape == (1, 48, 3, 4, 4)
    error = (codec.decode(latents) - clip).square().mean()
    assert 10 * torch.log10(4 / error) > 35


def test_a_cell_depends_on_its_own_pixels_only(codec: BlockCodec) -> None:
    """A hole never leaks into a neighbour, in space or time."""
    clip = torch.rand(1, 3, 9, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    changed = clip.clone()
    changed[:, :, 6, 8:16, 16:24] = 0
    difference = (codec.encode(clip) - codec.encode(changed)).abs().amax(1)[0] > 1e-6
    expected = torch.zeros_like(difference)
    expected[2, 1, 2] = True
    assert torch.equal(difference, expected)


def test_a_still_block_has_the_same_values_in_frame_0_and_later(codec: BlockCodec) -> None:
    """Carrying a look through time starts as a copy."""
    clip = (torch.rand(1, 3, 1, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1).expand(1, 3, 5, 8, 8)
    latents = codec.encode(clip)[0, :, :, 0, 0]
    still = codec.frequency == 0
    torch.testing.assert_close(latents[still, 0], latents[still, 1], atol=1e-4, rtol=1e-4)
    assert latents[~still, 1].abs().max() < 1e-4 if (~still).any() else True
