"""The benchmark of models at real size: it runs at tiny size on a CPU, and counts what the real one takes."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lora_edit.models.checkpoints.locate import locate_model
from source_tree import ROOT


@pytest.fixture(scope="module")
def full_size() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("full_size", ROOT / "benchmarks" / "full_size.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["full_size"] = module
    spec.loader.exec_module(module)
    return module


def test_it_measures_both_steps(full_size: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At tiny size, with everything that a record has to have; what it prints is what it writes."""
    full_size.main(["--scale", "tiny", "--steps", "2", "--json", "--output-dir", str(tmp_path)])
    record = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "full-size-wan2.1-i2v-480p-5-48x32.json").read_text()) == record
    measured = record["measured"]
    for kind in ("training", "sampling"):
        assert len(measured[f"{kind}_seconds"]) == 2 and min(measured[f"{kind}_seconds"]) > 0
        assert 0 < measured[f"{kind}_share"] < 1
    assert len(measured["losses"]) == 3 and record["device"] and record["versions"]["torch"] and "--scale tiny" in record["command"]
    page = (tmp_path / "full-size-wan2.1-i2v-480p-5-48x32.md").read_text()
    assert "training step, measured" in page and record["date"] in page


@pytest.mark.parametrize(
    "name", ["wan2.1-flf2v", "wan2.2-i2v-a14b", "skyreels-v2-i2v", "hunyuan-i2v", "hunyuan-i2v-16", "wan2.2-ti2v-5b", "ltx-video"]
)
def test_its_relatives_run_too(full_size: Any, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two pictures, none, other transformer classes, other inputs."""
    full_size.main(["--model", name, "--scale", "tiny", "--steps", "1", "--json"])
    assert json.loads(capsys.readouterr().out)["measured"]["training_seconds"]


def test_the_count_is_that_of_pencil_and_paper(full_size: Any, tmp_path: Path) -> None:
    """Two blocks as wide as Wan 2.1's: linear layers once forward, once more for checkpointing and once for the way back; attention
    two and a half times as much on the way back, as fused kernels compute it again. Weights in two bytes; nothing of them exists."""
    facts = locate_model("wan2.1-i2v-480p")[0]
    config = facts.read_transformer_config() | {"num_layers": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    counted = full_size.need(full_size.Task(replace(facts, config=str(tmp_path / "config.json")), 49, 480, 832, 16))
    tokens, width, feed, blocks = 13 * 30 * 52, config["num_attention_heads"] * config["attention_head_dim"], config["ffn_dim"], 2
    linear = 2 * tokens * (6 * width**2 + 2 * width * feed) * blocks
    attention = 4 * tokens * (tokens + 512 + 257) * width * blocks
    assert counted.sampling_operations == pytest.approx(2 * (linear + attention), rel=0.03)
    assert counted.training_operations == pytest.approx(3 * linear + 4.5 * attention, rel=0.05)
    assert counted.weights_bytes > 2 * blocks * (8 * width**2 + 2 * width * feed)
    assert counted.hidden_bytes == blocks * tokens * width * 2
    assert 20 * tokens * width * 2 < counted.step_bytes - counted.hidden_bytes < 80 * tokens * width * 2


def test_it_measures_with_less_on_the_device(full_size: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks and hidden states in main memory, weights in 8 bits; file and page say so."""
    full_size.main(["--scale", "tiny", "--steps", "1", "--swap", "2", "--base", "int8", "--park", "--output-dir", str(tmp_path)])
    assert "| main memory | 2 blocks wait there, hidden states too; frozen weights: int8 |" in capsys.readouterr().out
    assert (tmp_path / "full-size-wan2.1-i2v-480p-5-48x32-swap2-int8-park.md").is_file()


def test_a_plan_measures_nothing(full_size: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """And ends well, as it does without a GPU."""
    full_size.main(["--scale", "tiny", "--plan"])
    shown = capsys.readouterr()
    assert "measured |" not in shown.out and "a run needs about" in shown.err


@pytest.mark.parametrize("wrong", [["--size", "830x480"], ["--frames", "48"], ["--model", "tiny"], ["--model", "nothing"]])
def test_what_cannot_be_run_is_said(full_size: Any, wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is built."""
    with pytest.raises(SystemExit) as stopped:
        full_size.main(wrong)
    assert stopped.value.code == 2 and "error:" in capsys.readouterr().err
