"""Costly answers that several ask for at the same time, worked out once."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class _Place:
    """Where an answer will be."""

    def __init__(self) -> None:
        self.lock, self.known = threading.Lock(), False
        self.answer: Any = None


def once(size: int) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """A decorator like `lru_cache`, which keeps the `size` newest answers; but who asks while another works the answer out waits for it.

    A failure is not kept.
    """

    def decorate(function: Callable[..., Answer]) -> Callable[..., Answer]:
        finding = threading.Lock()
        places = functools.lru_cache(maxsize=size)(lambda *args: _Place())

        @functools.wraps(function)
        def call(*args: Hashable) -> Any:
            with finding:
                place = places(*args)
            with place.lock:
                if not place.known:
                    place.answer, place.known = function(*args), True
                return place.answer

        return call

    return decorate
