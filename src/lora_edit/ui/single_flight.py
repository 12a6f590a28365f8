"""Costly answers that several ask for at the same time, worked out once."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

Value = TypeVar("Value")


class _CacheEntry:
    """Where an answer will be."""

    def __init__(self) -> None:
        self.lock, self.is_computed = threading.Lock(), False
        self.value: Any = None


def single_flight_cache(maxsize: int) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    """A decorator like `lru_cache`, which keeps the `size` newest answers; but who asks while another works the answer out waits for it.

    A failure is not kept.
    """

    def decorate(function: Callable[..., Value]) -> Callable[..., Value]:
        finding = threading.Lock()
        places = functools.lru_cache(maxsize=maxsize)(lambda *args: _CacheEntry())

        @functools.wraps(function)
        def call(*args: Hashable) -> Any:
            with finding:
                place = places(*args)
            with place.lock:
                if not place.is_computed:
                    place.value, place.is_computed = function(*args), True
                return place.value

        return call

    return decorate
