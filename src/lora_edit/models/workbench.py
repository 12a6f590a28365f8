"""One large module on the device at a time: encoders first, then the transformer, so that the largest decides what fits."""

from __future__ import annotations

import torch
from torch import nn


class Workbench:
    """A device that holds one of several modules; the others wait in main memory. Number formats are left alone."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._held: nn.Module | None = None

    def take(self, module: nn.Module) -> None:
        """Bring a module to the device, and what was there back to main memory."""
        if module is self._held:
            return
        if self._held is not None:
            self._held.to("cpu")
        module.to(self.device)
        self._held = module

    def clear(self) -> None:
        """Bring what is there back to main memory: another model needs the device."""
        if self._held is not None:
            self._held.to("cpu")
        self._held = None
