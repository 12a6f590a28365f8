"""Condition layout of the embedded model: Wan's, with a prediction in the hole and its expected error, and preconditioned.

The preconditioning follows Karras et al. (2022, "Elucidating the design space", section 5) for flow matching, around a `start` instead of
zero: with data = start + r, r normal with `std` per channel and cell, the expected velocity is linear in the noisy latents. The network
predicts the remainder alone, scaled to unit variance. A predicted clip is then copied without passing through the network, and changes
little where the prediction is certain.
"""

from __future__ import annotations

import torch

from lora_edit.conditioning.sample import Sample
from lora_edit.models.families.base import FamilyParts
from lora_edit.models.families.condition_packing import pack_error
from lora_edit.models.families.wan.conditioning import WanFamily

HOLE_ERROR, GIVEN_ERROR = 0.7, 2.0 / 127.5
"""Expected errors, in [-1, 1], of a hole without a hint, and of given pixels, which pass through the autoencoder."""


class EmbeddedFamily(WanFamily):
    """`Family` of a Wan transformer that refines a prediction (`Sample.hint`) in the hole instead of grey.

    `hint_std` `[z]` is the deviation of the true latents from the prediction, per channel and unit of expected error. The expected error
    follows V_cond in the transformer's input.
    """

    def __init__(self, parts: FamilyParts, hint_std: torch.Tensor) -> None:
        super().__init__(parts)
        self.hint_std = hint_std

    def _encode_condition(self, sample: Sample, mask: torch.Tensor) -> torch.Tensor:
        """Build the condition channels: the packed mask, the latents of V_cond with the hint, and the packed expected error."""
        pixels, error = _apply_hint(sample)
        latents = self.parts.autoencoder.encode(pixels[None].to(self.device))
        packed = pack_error(error[None].to(self.device), self.geometry.spatial_compression, self.geometry.temporal_compression)
        return torch.cat([torch.cat([mask, latents], 1), packed], 1)

    def _precondition(
        self, latents: torch.Tensor, time: torch.Tensor, condition: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Precondition around the predicted latents."""
        group = self.geometry.temporal_compression
        start, error = condition[:, group : group + self.z_dim].float(), condition[:, -group:].float()
        return precondition(latents, start, time, compute_cell_std(error, self.hint_std))


def _apply_hint(sample: Sample) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the hint into V_cond's withheld pixels; returns the pixels and their expected error `[1, T, H, W]`."""
    given = sample.m_cond > 0.5
    if sample.hint is None:
        return sample.v_cond, torch.where(given, GIVEN_ERROR, HOLE_ERROR)
    return torch.where(given, sample.v_cond, sample.hint.pixels), torch.where(given, GIVEN_ERROR, sample.hint.error)


def precondition(
    noisy: torch.Tensor, start: torch.Tensor, time: torch.Tensor, std: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Precondition `noisy` and `start` `[B, z, F, h, w]` at `time` `[B]` in [0, 1]; `std` broadcasts to `[B, z, F, h, w]`.

    Returns the expected velocity (noise - data), the factor of the network's output before it is added, and the network's input.
    """
    t = time.view(-1, 1, 1, 1, 1)
    offset = noisy - (1 - t) * start
    variance = ((1 - t) * std).square() + t.square()
    expected = offset * (t - (1 - t) * std.square()) / variance - start
    return expected, std / variance.sqrt(), offset / variance.sqrt()


def compute_cell_std(error: torch.Tensor, unit_std: torch.Tensor) -> torch.Tensor:
    """Compute the standard deviation of the latents `[B, z, F, h, w]` around their prediction.

    `error` `[B, 4, F, h, w]` is the expected error per cell (root mean square of pixels in [-1, 1]), `unit_std` `[z]` the deviation per
    unit of it.
    """
    return error.square().mean(1, keepdim=True).sqrt() * unit_std.view(1, -1, 1, 1, 1)
