"""The cache for concurrent calls."""

from __future__ import annotations

import threading

import pytest

from lora_edit.errors import InputError

pytest.importorskip("cachetools", reason="cachetools is not installed: pip install 'lora-edit[ui]'")

from lora_edit.ui.single_flight import single_flight_cache


def test_concurrent_calls_run_the_function_once() -> None:
    calls, gate, values = [], threading.Event(), []

    @single_flight_cache(2)
    def compute(key: str) -> str:
        calls.append(key)
        assert gate.wait(60)
        return key.upper()

    threads = [threading.Thread(target=lambda: values.append(compute("a"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(60)
    assert (calls, values) == (["a"], ["A"] * 3)
    assert [compute("b"), compute("c"), compute("a")] == ["B", "C", "A"], "the least recently used value is dropped"
    assert calls == ["a", "b", "c", "a"]


def test_calls_with_other_arguments_do_not_wait() -> None:
    gate, started = threading.Event(), threading.Event()

    @single_flight_cache(2)
    def compute(key: str) -> str:
        if key == "slow":
            started.set()
            assert gate.wait(60)
        return key

    thread = threading.Thread(target=compute, args=("slow",))
    thread.start()
    assert started.wait(60)
    assert compute("fast") == "fast"
    gate.set()
    thread.join(60)


def test_exceptions_are_not_cached() -> None:
    calls = []

    @single_flight_cache(1)
    def compute(key: str) -> str:
        calls.append(key)
        if len(calls) == 1:
            raise InputError("not yet")
        return key

    with pytest.raises(InputError):
        compute("a")
    assert compute("a") == "a"
