"""A family that somebody else adds, in one file of theirs: `examples/mask_last_family.py`, named as `module:FACTS`."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lora_edit.cli.main import app
from lora_edit.config import resolve_settings
from lora_edit.types import Video
from lora_edit.video.read import read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = "mask_last_family:FACTS"


def test_an_edit_with_a_family_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line to a LoRA and a clip; nothing in the package knows of it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    frames = torch.randint(0, 256, (6, 24, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_video(tmp_path / "source.mkv", Video(frames, Fraction(8), tuple(i / 8 for i in range(6))), "ffv1")
    save_image(tmp_path / "first.png", frames[0])
    outcome = CliRunner().invoke(
        app,
        ["edit", str(tmp_path / "source.mkv"), "--first-frame", str(tmp_path / "first.png"), "--box", "8,8,12,8", "--model", MODEL,
         "--output", str(tmp_path / "out.mkv"), "--codec", "ffv1", "--set", "training.motion_steps=3", "--set", "lora.rank=2",
         "--set", "generation.steps=2", "--json"],
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.stderr
    assert json.loads(outcome.stdout)["num_frames"] == 6
    assert read_video(tmp_path / "out.mkv").frames.shape == frames.shape
    assert (tmp_path / "out.run" / "lora" / "edit.safetensors").stat().st_size > 0
    assert json.loads((tmp_path / "out.run" / "manifest.json").read_text())["losses"]


def test_its_preset_and_its_card_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings start from its preset, and `lora-edit models NAME` describes it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    assert resolve_settings({"input": {"source": "a", "first_frame": "b"}, "model": MODEL}).generation.steps == 10
    card = json.loads(CliRunner().invoke(app, ["models", MODEL, "--json"]).stdout)["models"][0]
    assert (card["name"], card["frames"], card["size"], card["needs"]) == ("mask-last", 17, "64x64", "edited first frame")


def test_a_name_that_leads_nowhere_is_one_line(tmp_path: Path) -> None:
    """Exit code 2."""
    outcome = CliRunner().invoke(app, ["models", "no_such_module:FACTS"])
    assert outcome.exit_code == 2 and "install the package or correct module:NAME" in outcome.stderr
