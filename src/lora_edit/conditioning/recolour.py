"""Appearance-debiased motion learning (ours): recolour the edit region of a motion sample, the same way in every frame.

A LoRA that sees one clip can lower its loss by remembering the clip's colours, and then paints them over the edit. If the region's
colours change from sample to sample, in frame 0 and target alike, the look can only come from frame 0 and what remains to be
learned is motion. Nothing in the paper does this; we found no earlier use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from lora_edit.conditioning.sample import Sample


@dataclass(frozen=True)
class ColourMap:
    """An affine map of RGB in [-1, 1]: `matrix` `[3, 3]` and `offset` `[3]`."""

    matrix: torch.Tensor
    offset: torch.Tensor

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Apply to `[3, ...]` pixels, clamped to [-1, 1]."""
        mapped = torch.einsum("ij,j...->i...", self.matrix, pixels)
        return (mapped + self.offset.view(3, *[1] * (pixels.ndim - 1))).clamp(-1, 1)


def draw_colour_map(generator: torch.Generator) -> ColourMap:
    """Channel order, signs of contrast, gains, saturation and shift at random; never fades to a flat colour."""
    order = torch.randperm(3, generator=generator)
    gains = 0.5 + 0.7 * torch.rand(3, generator=generator)
    flip = torch.where(torch.rand(3, generator=generator) < 0.25, -1.0, 1.0)
    mix = torch.eye(3)[order] * (gains * flip)[:, None]
    grey = 0.5 * torch.rand(1, generator=generator)
    saturation = (1 - grey) * torch.eye(3) + grey / 3
    return ColourMap(saturation @ mix, 0.4 * (2 * torch.rand(3, generator=generator) - 1))


def recolour(sample: Sample, edit_mask: torch.Tensor, colours: ColourMap) -> Sample:
    """`sample` with the region (`[T, H, W]` bool) recoloured in V_cond, V_target and image; the kept background stays as it is."""
    region = edit_mask[None]
    given = sample.m_cond > 0.5
    target = sample.v_target
    return replace(
        sample,
        v_cond=torch.where(region & given, colours(sample.v_cond), sample.v_cond),
        v_target=None if target is None else torch.where(region, colours(target), target),
        image=torch.where(region[:, 0], colours(sample.image), sample.image),
    )
