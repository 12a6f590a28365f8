"""The denoising loop: noise to latents along the model's velocity, by Euler steps or UniPC."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch

from lora_edit.errors import NonFiniteError
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.family import EncodedSample, Family
from lora_edit.models.unipc import UniPC

OnDenoise = Callable[[int, int], None]
"""Called after each step with steps done and to do."""


def compute_sigmas(steps: int, shift: float) -> torch.Tensor:
    """Times from 1 to 0, `[steps + 1]`: even, then shifted toward noise, s t / (1 + (s - 1) t).

    Equals the grid of the reference's scheduler and of diffusers' `FlowMatchEulerDiscreteScheduler` given explicit sigmas.
    """
    even = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return (shift * even / (1 + (shift - 1) * even)).float()


class Scheduler(Protocol):
    """From each noise level of `sigmas` `[steps + 1]` to the next; `times` `[steps]` are those that the model is asked at."""

    sigmas: torch.Tensor
    times: torch.Tensor

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The latents at `sigmas[index + 1]`."""
        ...


class EulerScheduler:
    """Straight along the velocity."""

    def __init__(self, steps: int, shift: float, device: torch.device) -> None:
        self.sigmas = compute_sigmas(steps, shift).to(device)
        self.times = self.sigmas[:-1]

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The latents at `sigmas[index + 1]`."""
        return latents + (self.sigmas[index + 1] - self.sigmas[index]) * velocity


SCHEDULERS: dict[str, Callable[[int, float, torch.device], Scheduler]] = {"euler": EulerScheduler, "unipc": UniPC}


@contextmanager
def _enter_cache_context(transformers: Sequence[Any], context_name: str) -> Iterator[None]:
    """Tell caches of diffusers which of the passes this is: each has its own memory."""
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
    """Latents `[1, z, F, h, w]` for one encoded sample.

    With `negative` and a guidance scale other than 1, two passes are combined as v_neg + scale * (v - v_neg). A feature-level sample has
    its kept cells replaced by the source at the step's noise level (Eq. 3). Raises `NotFinite`.
    """
    device = sample.condition.device
    cached: list[Any] = [expert.transformer for expert in family.experts() if getattr(expert.transformer, "is_cache_enabled", False)]
    for transformer in cached:  # as diffusers' pipelines do after each call: another clip's memory is of no use
        transformer._reset_stateful_cache()
    noise = torch.randn((1, family.z_dim, *sample.latent_shape), generator=generator).to(device)
    latents, solver = noise, SCHEDULERS[settings.sampler](settings.steps, settings.shift, device)
    for index in range(settings.steps):
        now = solver.times[index].float()
        with _enter_cache_context(cached, "cond"):
            velocity = family.predict_velocity(latents, now[None], sample)
        if negative is not None and settings.guidance_scale != 1:
            with _enter_cache_context(cached, "uncond"):
                other = family.predict_velocity(latents, now[None], negative)
            velocity = other + settings.guidance_scale * (velocity - other)
        if not bool(torch.isfinite(velocity).all()):
            raise NonFiniteError(f"the model's answer at step {index + 1} of {settings.steps} holds numbers that are not finite")
        latents = solver.step(index, velocity, latents)
        if sample.blend_latents is not None and sample.blend_mask is not None:
            later = solver.sigmas[index + 1]
            known = (1 - later) * sample.blend_latents + later * noise
            latents = latents + sample.blend_mask * (known - latents)
        if on_step:
            on_step(index + 1, settings.steps)
    return latents
