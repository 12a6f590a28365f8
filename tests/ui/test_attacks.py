"""The attacks of `benchmarks/attack_page.py` against the server of the tests, but for those that take minutes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'lora-edit[ui]'")

from source_tree import ROOT


def load_attacks() -> Any:
    """Import the script."""
    spec = importlib.util.spec_from_file_location("attack_page", ROOT / "benchmarks" / "attack_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["attack_page"] = module
    spec.loader.exec_module(module)
    return module


attack_page = load_attacks()


@pytest.fixture(scope="session")
def target(server: str, projects: Path) -> Any:
    """The server of the tests as a target."""
    return attack_page.Target(server, projects, patience=5)


@pytest.mark.parametrize("attack", [each for each in attack_page.ATTACKS if not each.is_slow], ids=lambda each: each.name)
def test_an_attack_does_only_what_is_expected(target: Any, attack: Any) -> None:
    attack.run(target)


def test_a_response_with_a_traceback_or_an_object_is_noticed(target: Any) -> None:
    for text in ('{"error": "Traceback (most recent call last)"}', "<Video object at 0x7f>", f"{target.folder}/a/states.json"):
        with pytest.raises(AssertionError):
            attack_page.check_leaks(text.encode(), target)


def test_every_line_of_the_script_expects_something(target: Any) -> None:
    """`expect` is what fails an attack."""
    with pytest.raises(AssertionError, match="taken"):
        attack_page.expect(False, "taken")
