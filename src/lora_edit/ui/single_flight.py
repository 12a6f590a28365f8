"""A cache for expensive functions that several threads call at the same time."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from typing import Any, TypeVar

from cachetools import LRUCache, cached

Value = TypeVar("Value")


def single_flight_cache(maxsize: int) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    """Create a decorator that caches the `maxsize` most recently used values of a function with hashable arguments.

    Concurrent calls with equal arguments run the function once: the others wait for its value. Exceptions are not cached.
    """
    cache: LRUCache[Any, Any] = LRUCache(maxsize)
    return cached(cache, condition=Condition())
