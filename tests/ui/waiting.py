"""Waiting for what another thread does, and holding it."""

from __future__ import annotations

import time
from collections.abc import Callable

NEVER = 10**9


def wait_until(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Wait for the condition; the limit is for failures and leaves time to a busy machine."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.05)


class HeldTraining:
    """Training that stays at a step until it is stopped or released, so that a test need not be faster than the training."""

    def __init__(self) -> None:
        self.step = NEVER

    def hold(self, step: int) -> None:
        """Hold training at this step or a later one."""
        self.step = step

    def release(self) -> None:
        """Let training continue to its end."""
        self.step = NEVER
