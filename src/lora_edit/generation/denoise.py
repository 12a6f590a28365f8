"""The denoising loop: integrates the model's velocity from noise to latents, by Euler steps or UniPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch

from lora_edit.errors import NonFiniteError
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.family import EncodedSample, Family
from lora_edit.models.unipc import UniPC

NON_FINITE_REMEDY = "check the run's LoRA and --lora, lower generation.guidance_scale, or train again with a lower training.learning_rate"
"""What to do about an output that is not finite."""

OnDenoise = Callable[[int, int], None]
"""Callback after each step, with the number of steps done and in total."""


def compute_sigmas(steps: int, shift: float) -> torch.Tensor:
    """Compute noise levels from 1 to 0, `[steps + 1]`: evenly spaced, then shifted toward noise by s t / (1 + (s - 1) t).

    Equals the grid of the reference's scheduler, and of diffusers' `FlowMatchEulerDiscreteScheduler` with explicit sigmas.
    """
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return (shift * times / (1 + (shift - 1) * times)).float()


class Scheduler(Protocol):
    """Solver from each noise level of `sigmas` `[steps + 1]` to the next; the model is evaluated at `times` `[steps]`."""

    sigmas: torch.Tensor
    times: torch.Tensor

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The latents at `sigmas[index + 1]`."""
        ...


class EulerScheduler:
    """Euler solver."""

    def __init__(self, steps: int, shift: float, device: torch.device) -> None:
        self.sigmas = compute_sigmas(steps, shift).to(device)
        self.times = self.sigmas[:-1]

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The latents at `sigmas[index + 1]`."""
        return latents + (self.sigmas[index + 1] - self.sigmas[index]) * velocity


SCHEDULERS: dict[str, Callable[[int, float, torch.device], Scheduler]] = {"euler": EulerScheduler, "unipc": UniPC}


@contextmanager
def _enter_cache_context(transformers: Sequence[Any], context_name: str) -> Iterator[None]:
    """Enter diffusers' cache context of one pass; conditional and unconditional passes have separate caches."""
    with ExitStack() as stack:
        for transformer in transformers:
            stack.enter_context(transformer.cache_context(context_name))
        yield


@torch.no_grad()
def denoise(
    family: Family,
    sample: EncodedSample,
    settings: GenerationSettings,
    generator: torch.Generator,
    *,
    negative: EncodedSample | None = None,
    on_step: OnDenoise | None = None,
) -> torch.Tensor:
    """Generate latents `[1, z, F, h, w]` for one encoded sample.

    With `negative` and a guidance scale other than 1, two passes are combined as v_neg + scale * (v - v_neg). In a feature-level sample,
    the cells of `blend_mask` are replaced by the source at the step's noise level (Eq. 3). Raises `NonFiniteError`.
    """
    device = sample.condition.device
    cached_transformers: list[Any] = [
        expert.transformer for expert in family.experts() if getattr(expert.transformer, "is_cache_enabled", False)
    ]
    for transformer in cached_transformers:  # as diffusers' pipelines do after each call: caches of another clip are invalid
        transformer._reset_stateful_cache()
    noise = torch.randn((1, family.z_dim, *sample.latent_shape), generator=generator).to(device)
    latents, solver = noise, SCHEDULERS[settings.sampler](settings.steps, settings.shift, device)
    for index in range(settings.steps):
        time = solver.times[index].float()
        with _enter_cache_context(cached_transformers, "cond"):
            velocity = family.predict_velocity(latents, time[None], sample)
        if negative is not None and settings.guidance_scale != 1:
            with _enter_cache_context(cached_transformers, "uncond"):
                negative_velocity = family.predict_velocity(latents, time[None], negative)
            velocity = negative_velocity + settings.guidance_scale * (velocity - negative_velocity)
        if not bool(torch.isfinite(velocity).all()):
            raise NonFiniteError(f"the model's output at step {index + 1} of {settings.steps} is not finite; {NON_FINITE_REMEDY}")
        latents = solver.step(index, velocity, latents)
        if sample.blend_latents is not None and sample.blend_mask is not None:
            next_sigma = solver.sigmas[index + 1]
            noisy_source = (1 - next_sigma) * sample.blend_latents + next_sigma * noise
            latents = latents + sample.blend_mask * (noisy_source - latents)
        if on_step:
            on_step(index + 1, settings.steps)
    return latents
