"""Encoders that wait in their files until they are asked, and go back there when the transformer's turn comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from torch import nn


class LazyModule:
    """A frozen module, read at its first use; `config` is its configuration, there from the start.

    `identify` gives a short hash of its files and number format, the same whenever the module is; empty where nobody knows, and then
    nothing that it says is kept beyond this process.
    """

    def __init__(self, read_module: Callable[[], nn.Module], config: Any, compute_identity: Callable[[], str]) -> None:
        self.read_module, self.config, self.compute_identity = read_module, config, compute_identity
        self._module: nn.Module | None = None

    @cached_property
    def identity(self) -> str:
        """What `identify` gives, asked once."""
        return self.compute_identity()

    def load_module(self) -> Any:
        """The module, read now if it was not. Raises `ModelError` when its files cannot be read any more."""
        if self._module is None:
            self._module = self.read_module().eval().requires_grad_(False)
        return self._module

    def release(self) -> nn.Module | None:
        """Forget the module; it is read again when it is asked again. Returns what was forgotten."""
        gone, self._module = self._module, None
        return gone


class LoadedModule(LazyModule):
    """A module that somebody has in memory already: there is nothing to read, and it is never let go."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(lambda: module, getattr(module, "config", None), str)

    def release(self) -> None:
        """It stays."""


def to_lazy_module(module: nn.Module | LazyModule) -> LazyModule:
    """The same for modules that are read later and for those that are here."""
    return module if isinstance(module, LazyModule) else LoadedModule(module)
