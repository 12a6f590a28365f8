"""Appearance-debiased motion training (ours): recolours the edit region of a motion sample identically in every frame.

A LoRA trained on one clip can lower its loss by memorizing the clip's colours, and then applies them to the edit. If the region's
colours vary between samples, in both frame 0 and the target, appearance can only come from frame 0, and the LoRA learns motion
only. A random texture, blended in and moved along the source's optical flow, does the same for patterns and makes the motion of
uniform surfaces visible. The paper contains nothing of this kind; we know of no earlier use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from lora_edit.conditioning.sample import Sample

CHANGE_RANGE = (0.06, 0.2)
"""Differences, in units of pixels in [-1, 1], up to which a pixel of frame 0 counts as unedited, and from which as edited."""


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
    """Draw a map with random channel order, contrast signs, gains, saturation and shift that never reduces to a flat colour."""
    order = torch.randperm(3, generator=generator)
    gains = 0.5 + 0.7 * torch.rand(3, generator=generator)
    flip = torch.where(torch.rand(3, generator=generator) < 0.25, -1.0, 1.0)
    mix = torch.eye(3)[order] * (gains * flip)[:, None]
    grey = 0.5 * torch.rand(1, generator=generator)
    saturation = (1 - grey) * torch.eye(3) + grey / 3
    return AffineColourMap(saturation @ mix, 0.4 * (2 * torch.rand(3, generator=generator) - 1))


@dataclass(frozen=True)
class Texture:
    """A pattern that moves with the clip: `pixels` `[3, T, H, W]` in [-1, 1] and its opacity `amount` in [0, 1]."""

    pixels: torch.Tensor
    amount: float

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Blend the pattern into pixels `[3, T', H, W]` of the clip's first T' frames."""
        return torch.lerp(pixels, self.pixels[:, : pixels.shape[1]], self.amount)


def draw_texture(generator: torch.Generator, correspondence: torch.Tensor) -> Texture:
    """Draw a random pattern of random coarseness on frame 0 and move it along `correspondence` `[T, H, W, 2]`."""
    height, width = correspondence.shape[1:3]
    cells = 3 + int(torch.randint(10, (1,), generator=generator))
    coarse = 2 * torch.rand(1, 3, cells, max(2, round(cells * width / height)), generator=generator) - 1
    pattern = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(-1, 1)
    return Texture(warp_from_first_frame(pattern[0], correspondence), 0.2 + 0.6 * float(torch.rand(1, generator=generator)))


def warp_from_first_frame(picture: torch.Tensor, correspondence: torch.Tensor) -> torch.Tensor:
    """Warp a picture `[C, H, W]` of frame 0 to every frame, `[C, T, H, W]`.

    `correspondence` `[T, H, W, 2]` is each pixel's position in frame 0 (x, y; pixels).
    """
    size = torch.tensor([correspondence.shape[2], correspondence.shape[1]])
    grid = (2 * correspondence + 1) / size - 1
    return F.grid_sample(picture.expand(len(correspondence), -1, -1, -1), grid, padding_mode="border", align_corners=False).transpose(0, 1)


def estimate_changed_region(source: torch.Tensor, edited: torch.Tensor, correspondence: torch.Tensor) -> torch.Tensor:
    """Estimate the weight, `[T, H, W]` in [0, 1], with which each pixel belongs to the part that the edit changes.

    It is computed in frame 0 from `source` and `edited` (both `[3, H, W]`) and moved along `correspondence`. A loose box also contains
    background; if that were recoloured with the object, the LoRA would learn to paint boxes.
    """
    difference = F.max_pool2d((source - edited).abs().amax(0)[None], 3, stride=1, padding=1)
    weight = ((F.avg_pool2d(difference, 3, stride=1, padding=1) - CHANGE_RANGE[0]) / (CHANGE_RANGE[1] - CHANGE_RANGE[0])).clamp(0, 1)
    return warp_from_first_frame(weight, correspondence)[0]


def recolour_sample(sample: Sample, region: torch.Tensor, colour_map: AffineColourMap, texture: Texture | None = None) -> Sample:
    """Recolour and texture `sample` in V_cond, V_target and image, weighted by `region` `[T, H, W]` in [0, 1]."""

    def recolour(pixels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        mapped = colour_map(pixels)
        return torch.lerp(pixels, mapped if texture is None else texture(mapped), weight)

    target, weight = sample.v_target, region[None].to(sample.v_cond)
    return replace(
        sample,
        v_cond=torch.where(sample.m_cond > 0.5, recolour(sample.v_cond, weight), sample.v_cond),
        v_target=None if target is None else recolour(target, weight),
        image=recolour(sample.image[:, None], weight[:, :1])[:, 0],
    )
