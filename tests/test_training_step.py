"""The benchmark of a training step runs, and the two loops that it compares learn alike."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_edit.training.lora import get_lora_parameters
from source_tree import ROOT


@pytest.fixture(scope="module")
def bench() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("training_step", ROOT / "benchmarks" / "training_step.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["training_step"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_it_answers_all_questions(bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a model and clips of next to nothing."""
    monkeypatch.setattr(bench, "LENGTHS", ((2, 4, 4), (2, 4, 8), (2, 8, 8)))
    small = ["--width", "64", "--blocks", "2", "--rounds", "1", "--steps", "2", "--memory-steps", "20"]
    bench.main([*small, "--output-dir", str(tmp_path)])
    found = json.loads((tmp_path / "training-step.json").read_text())
    assert found["plain"]["ratio"] > 0 and len(found["tokens"]) == 3 and len(found["places"]) == 7 and len(found["memory"]) == 2
    text = (tmp_path / "training-step.md").read_text()
    assert "Ratio **" in text and (tmp_path / found["plot"]).stat().st_size > 1000


def test_both_loops_train_the_same_layers(bench: Any) -> None:
    """As many numbers, and each of them moves every B away from zero."""
    model, counts = bench.Model(64, 2), []
    for loop in (bench.our_steps, bench.plain_steps):
        family = model.family(torch.device("cpu"), torch.float32)
        held: list[int] = []
        delete = family.transformer.delete_adapters
        family.transformer.delete_adapters = lambda *_, delete=delete: delete  # the plain loop cleans up behind itself
        loop(family, model.sample((2, 4, 4), torch.device("cpu"), torch.float32), 2)
        parameters = get_lora_parameters(family)
        assert all(bool(each.any()) for name, each in parameters.items() if "lora_B" in name)
        held.append(sum(each.numel() for each in parameters.values()))
        counts += held
    assert counts[0] == counts[1] > 0


def test_a_fit_finds_the_law(bench: Any) -> None:
    """Of seconds that follow one."""
    rows = [{"tokens": n, "seconds": 0.2 + 1e-3 * n + 1e-7 * n**2} for n in (100, 500, 2000, 7000)]
    answer, error = bench.fitted(rows)
    assert answer == pytest.approx([0.2, 1e-3, 1e-7], rel=1e-6) and error < 1e-6
