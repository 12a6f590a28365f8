"""Appearance-debiased motion learning (ours): recolour the edit region of a motion sample, the same way in every frame.

A LoRA that sees one clip can lower its loss by remembering the clip's colours, and then paints them over the edit. If the region's
colours change from sample to sample, in frame 0 and target alike, the look can only come from frame 0 and what remains to be
learned is motion. A random texture mixed in and moved along the source's optical flow does the same for patterns, and shows the
motion of plain surfaces. Nothing in the paper does this; we found no earlier use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from lora_edit.conditioning.sample import Sample

CHANGE_RANGE = (0.06, 0.2)
"""Differences in [-1, 1] at which a pixel of frame 0 counts as left alone, and as edited."""


@dataclass(frozen=True)
class AffineColourMap:
    """An affine map of RGB in [-1, 1]: `matrix` `[3, 3]` and `offset` `[3]`."""

    matrix: torch.Tensor
    offset: torch.Tensor

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Apply to `[3, ...]` pixels, clamped to [-1, 1]."""
        mapped = torch.einsum("ij,j...->i...", self.matrix, pixels)
        return (mapped + self.offset.view(3, *[1] * (pixels.ndim - 1))).clamp(-1, 1)


def draw_colour_map(generator: torch.Generator) -> AffineColourMap:
    """Channel order, signs of contrast, gains, saturation and shift at random; never fades to a flat colour."""
    order = torch.randperm(3, generator=generator)
    gains = 0.5 + 0.7 * torch.rand(3, generator=generator)
    flip = torch.where(torch.rand(3, generator=generator) < 0.25, -1.0, 1.0)
    mix = torch.eye(3)[order] * (gains * flip)[:, None]
    grey = 0.5 * torch.rand(1, generator=generator)
    saturation = (1 - grey) * torch.eye(3) + grey / 3
    return AffineColourMap(saturation @ mix, 0.4 * (2 * torch.rand(3, generator=generator) - 1))


@dataclass(frozen=True)
class Texture:
    """A pattern that moves with the clip: `pixels` `[3, T, H, W]` in [-1, 1] and how much of it shows, in [0, 1]."""

    pixels: torch.Tensor
    amount: float

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Mixed into `[3, T', H, W]` pixels of the clip's first T' frames."""
        return torch.lerp(pixels, self.pixels[:, : pixels.shape[1]], self.amount)


def draw_texture(generator: torch.Generator, correspondence: torch.Tensor) -> Texture:
    """A random pattern of random coarseness, painted on frame 0 and moved along `places` `[T, H, W, 2]`."""
    height, width = correspondence.shape[1:3]
    cells = 3 + int(torch.randint(10, (1,), generator=generator))
    coarse = 2 * torch.rand(1, 3, cells, max(2, round(cells * width / height)), generator=generator) - 1
    painted = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(-1, 1)
    return Texture(warp_from_first_frame(painted[0], correspondence), 0.2 + 0.6 * float(torch.rand(1, generator=generator)))


def warp_from_first_frame(picture: torch.Tensor, correspondence: torch.Tensor) -> torch.Tensor:
    """A picture `[C, H, W]` of frame 0 moved to every frame, `[C, T, H, W]`; `places` `[T, H, W, 2]` says where each pixel lies in frame 0
    (x, y; pixels)."""
    size = torch.tensor([correspondence.shape[2], correspondence.shape[1]])
    spots = (2 * correspondence + 1) / size - 1
    return F.grid_sample(picture.expand(len(correspondence), -1, -1, -1), spots, padding_mode="border", align_corners=False).transpose(0, 1)


def estimate_changed_region(source: torch.Tensor, edited: torch.Tensor, correspondence: torch.Tensor) -> torch.Tensor:
    """How far each pixel belongs to what the edit changes, `[T, H, W]` in [0, 1].

    Found in frame 0, where both pictures `[3, H, W]` are known, and moved along `places`. A loose box holds background too; were that
    recoloured with the object, the LoRA would learn to paint boxes.
    """
    away = F.max_pool2d((source - edited).abs().amax(0)[None], 3, stride=1, padding=1)
    weight = ((F.avg_pool2d(away, 3, stride=1, padding=1) - CHANGE_RANGE[0]) / (CHANGE_RANGE[1] - CHANGE_RANGE[0])).clamp(0, 1)
    return warp_from_first_frame(weight, correspondence)[0]


def recolour_sample(sample: Sample, region: torch.Tensor, colour_map: AffineColourMap, texture: Texture | None = None) -> Sample:
    """`sample` recoloured, and textured, in V_cond, V_target and image, as far as `region` `[T, H, W]` (0 to 1) says."""

    def changed(pixels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        mapped = colour_map(pixels)
        return torch.lerp(pixels, mapped if texture is None else texture(mapped), weight)

    target, weight = sample.v_target, region[None].to(sample.v_cond)
    return replace(
        sample,
        v_cond=torch.where(sample.m_cond > 0.5, changed(sample.v_cond, weight), sample.v_cond),
        v_target=None if target is None else changed(target, weight),
        image=changed(sample.image[:, None], weight[:, :1])[:, 0],
    )
