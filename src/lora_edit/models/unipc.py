"""UniPC, the solver of Wan's own pipelines, on diffusers' grid for flow models.

Configured as in diffusers' `scripts/convert_wan_to_diffusers.py`; Wan2.1's own (`wan/utils/fm_solvers_unipc.py`) differs by rounding.
"""

from __future__ import annotations

import torch


class UniPC:
    """Solver of one run of `steps`: predictions at `times` `[steps]` in [0, 1], noise levels `sigmas` `[steps + 1]` that fall to 0.

    It keeps the two previous predictions, so each run needs a new instance.
    """

    def __init__(self, steps: int, shift: float, device: torch.device) -> None:
        from diffusers import UniPCMultistepScheduler

        self.scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
        self.scheduler.set_timesteps(steps, device=device)
        # Whole thousandths, as in the pipelines.
        self.times: torch.Tensor = self.scheduler.timesteps.double() / 1000
        self.sigmas: torch.Tensor = self.scheduler.sigmas.to(device)

    def step(self, index: int, velocity: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Return the latents at `sigmas[index + 1]`."""
        output: torch.Tensor = self.scheduler.step(velocity, self.scheduler.timesteps[index], latents, return_dict=False)[0]
        return output
