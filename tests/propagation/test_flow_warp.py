"""Tests of the flow-warp baseline."""

from __future__ import annotations

import torch

from lora_edit.propagation.flow_warp import warp_with_flow
from lora_edit.types import EditMask


def texture(height: int, width: int, seed: int) -> torch.Tensor:
    coarse = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(seed))
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return (smooth[0] * 255).to(torch.uint8).permute(1, 2, 0).contiguous()


def test_patch_follows_its_object() -> None:
    background, square = texture(72, 112, 0), texture(32, 32, 1)
    source = background.expand(5, -1, -1, -1).clone()
    mask = torch.zeros(5, 72, 112, dtype=torch.bool)
    for t in range(5):
        source[t, 20:52, 20 + 4 * t : 52 + 4 * t] = square
        mask[t, 20:52, 20 + 4 * t : 52 + 4 * t] = True
    edited = source[0].clone()
    edited[30:42, 30:42] = torch.tensor([255, 0, 0], dtype=torch.uint8)
    out = warp_with_flow(source, edited, EditMask(mask))
    truth = source.clone()
    for t in range(5):
        truth[t, 30:42, 30 + 4 * t : 42 + 4 * t] = edited[35, 35]
    assert torch.equal(out[~mask], source[~mask])
    assert torch.equal(out[0], edited)
    inside = mask[4]
    error = (out[4].float() - truth[4].float()).abs()[inside].mean()
    assert error < 12
    assert error < (source[4].float() - truth[4].float()).abs()[inside].mean() / 2


def test_still_scene_keeps_the_edit() -> None:
    source = texture(48, 64, 2).expand(3, -1, -1, -1).clone()
    edited = 255 - source[0]
    mask = torch.zeros(3, 48, 64, dtype=torch.bool)
    mask[:, 10:30, 10:40] = True
    out = warp_with_flow(source, edited, EditMask(mask))
    assert (out[2][mask[2]].float() - edited[mask[2]].float()).abs().max() <= 2
