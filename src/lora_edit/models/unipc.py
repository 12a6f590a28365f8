"""UniPC, the solver that Wan's own pipelines sample with, on diffusers' grid for flow models.

As diffusers' `scripts/convert_wan_to_diffusers.py` configures it; Wan2.1's own (`wan/utils/fm_solvers_unipc.py`) differs by rounding.
"""

from __future__ import annotations

import torch


class UniPC:
    """One run of `steps`: asked at `times` `[steps]` in [0, 1], with noise levels `sigmas` `[steps + 1]` that fall to 0. Remembers the two
    answers before, so a run takes a fresh one."""

    def __init__(self, steps: int, shift: float, device: torch.device) -> None:
        from diffusers import UniPCMultistepScheduler

        self.scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
        self.scheduler.set_timesteps(steps, device=device)
        # Whole thousandths, as the pipelines hand them to the model.
        self.times: torch.Tensor = self.scheduler.timesteps.double() / 1000
        self.sigmas: torch.Tensor = self.scheduler.sigmas.to(device)

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """The latents at `sigmas[index + 1]`."""
        moved: torch.Tensor = self.scheduler.step(velocity, self.scheduler.timesteps[index], latents, return_dict=False)[0]
        return moved
