"""The flow-matching loss of one noise draw, and two published methods that debias it from the clip's appearance."""

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
    """Compute the mean squared velocity error of one noise draw, in float32 over all latent cells.

    It is evaluated at `time`, of shape `[1]`, or at a drawn time without it.
    """
    assert sample.target is not None
    noise = torch.randn(sample.target.shape, generator=generator)
    if settings.debias == "offset-noise":
        noise = noise + draw_offset_noise(noise.shape, generator)
    noise = noise.to(sample.target.device)
    if time is None:
        time = draw_time(settings.time_sampling, settings.shift, generator, expert.time_range)
    time = time.to(sample.target.device)
    velocity = expert.predict_velocity(add_noise(sample.target, noise, time), time, sample)
    target_velocity = noise - sample.target
    loss = (velocity - target_velocity).square().mean()
    if settings.debias == "anchor" and target_velocity.shape[2] > 1:
        anchor = int(torch.randint(target_velocity.shape[2], (1,), generator=generator))
        loss = loss + (subtract_anchor(velocity, anchor) - subtract_anchor(target_velocity, anchor)).square().mean()
    return loss


def draw_offset_noise(shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Draw one random offset per channel, equal in every frame and position, for noise `[B, C, F, h, w]`.

    It makes the level of the appearance unreliable, but not motion (JointTuner 2503.23951, appearance-independent temporal loss).
    """
    return OFFSET_NOISE_STD * torch.randn(shape[0], shape[1], 1, 1, 1, generator=generator)


def subtract_anchor(values: torch.Tensor, anchor: int) -> torch.Tensor:
    """Compute `sqrt(beta^2 + 1) * v_i - beta * v_anchor` for each latent frame i of `[B, C, F, h, w]`.

    It reduces the weight of content that all frames share (MotionDirector 2310.08465, appearance-debiased temporal loss).
    """
    return (ANCHOR_BETA**2 + 1) ** 0.5 * values - ANCHOR_BETA * values[:, :, anchor : anchor + 1]
