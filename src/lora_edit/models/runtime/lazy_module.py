"""Encoders that are read from their files at their first use and released when the transformer comes to the device."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import nn


class LazyModule:
    """A frozen module that is read at its first use; `config`, its configuration, is available at once.

    `compute_identity` returns a short hash of the module's files and number format, which is equal whenever the module is. It is empty
    where that is unknown, and then no output of the module is kept on disk.
    """

    def __init__(self, read_module: Callable[[], nn.Module], config: Any, compute_identity: Callable[[], str]) -> None:
        self.read_module, self.config, self.compute_identity = read_module, config, compute_identity
        self._module: nn.Module | None = None

    @cached_property
    def identity(self) -> str:
        """Result of `compute_identity`, computed once."""
        return self.compute_identity()

    def load_module(self) -> Any:
        """Return the module, reading it if it is not in memory. Raises `ModelError` when its files cannot be read any more."""
        if self._module is None:
            self._module = self.read_module().eval().requires_grad_(False)
        return self._module

    def release(self) -> nn.Module | None:
        """Drop the module and return it; it is read again at its next use."""
        module, self._module = self._module, None
        return module


class LoadedModule(LazyModule):
    """A module that is in memory already: it is neither read nor released."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(lambda: module, getattr(module, "config", None), str)

    def release(self) -> None:
        """Keep the module, because it cannot be read again."""


def to_lazy_module(module: nn.Module | LazyModule) -> LazyModule:
    """Wrap a module in memory; a `LazyModule` is returned as it is."""
    return module if isinstance(module, LazyModule) else LoadedModule(module)
