"""The flow-matching loss of one noise draw, and two published ways to keep the look of the one clip out of it."""

from __future__ import annotations

import torch

from lora_edit.models.family import EncodedSample, Expert
from lora_edit.training.noise import add_noise, draw_time
from lora_edit.training.settings import TrainingSettings

ANCHOR_BETA = 1.0
"""beta of the anchor-debiased loss (MotionDirector 2310.08465, section 4)."""

OFFSET_NOISE_STD = 0.1
"""Standard deviation of the offset noise, against 1 of the noise itself."""


def compute_velocity_loss(
    expert: Expert, sample: EncodedSample, settings: TrainingSettings, generator: torch.Generator, time: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared velocity error of one noise draw, in float32 over all latent cells; at `time`, of shape `[1]`, else at one drawn."""
    assert sample.target is not None
    noise = torch.randn(sample.target.shape, generator=generator)
    if settings.debias == "offset-noise":
        noise = noise + draw_offset_noise(noise.shape, generator)
    noise = noise.to(sample.target.device)
    if time is None:
        time = draw_time(settings.time_sampling, settings.shift, generator, expert.time_range)
    time = time.to(sample.target.device)
    velocity = expert.predict_velocity(add_noise(sample.target, noise, time), time, sample)
    wanted = noise - sample.target
    loss = (velocity - wanted).square().mean()
    if settings.debias == "anchor" and wanted.shape[2] > 1:
        anchor = int(torch.randint(wanted.shape[2], (1,), generator=generator))
        loss = loss + (subtract_anchor(velocity, anchor) - subtract_anchor(wanted, anchor)).square().mean()
    return loss


def draw_offset_noise(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """One random offset per channel, the same in every frame and place, for noise `[B, C, F, h, w]`: the level of a look becomes
    unreliable and motion does not (JointTuner 2503.23951, appearance-independent temporal loss)."""
    return OFFSET_NOISE_STD * torch.randn(shape[0], shape[1], 1, 1, 1, generator=generator)


def subtract_anchor(values: torch.Tensor, anchor: int) -> torch.Tensor:
    """`sqrt(beta^2 + 1) * v_i - beta * v_anchor` for each latent frame i of `[B, C, F, h, w]`: what all frames share weighs less
    (MotionDirector 2310.08465, appearance-debiased temporal loss)."""
    return (ANCHOR_BETA**2 + 1) ** 0.5 * values - ANCHOR_BETA * values[:, :, anchor : anchor + 1]
