"""A third party's family in one file: `examples/mask_last_family.py`, named as `module:RECORD`."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from lora_edit.cli.main import app
from lora_edit.config import resolve_settings
from lora_edit.devices import Machine
from lora_edit.memory_estimate import estimate_resources, supports_estimate
from lora_edit.models.checkpoints.locate import locate_model
from lora_edit.types import Size, Video
from lora_edit.video.read import read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = "mask_last_family:RECORD"


def test_an_edit_with_a_third_party_s_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the command line to a LoRA and a clip, without a change in the package."""
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


def test_costs_are_counted_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The record's hook gives the sample, the family's loader the transformer on the meta device."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    record = locate_model(MODEL)[0]
    settings = resolve_settings({"input": {"source": "a", "first_frame": "b"}, "model": MODEL})
    machine = Machine(24e9, 128e9, 1.6e14, torch.float32)
    assert supports_estimate(record)
    output = estimate_resources(settings, record, Size(64, 64), 17, False, machine)
    assert output.blocks == 2 and 0 < output.generate_bytes < output.train_bytes and output.seconds_train > 0


def test_preset_and_card_are_the_family_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings start from its preset, and `lora-edit models NAME` describes it."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    assert resolve_settings({"input": {"source": "a", "first_frame": "b"}, "model": MODEL}).generation.steps == 10
    card = json.loads(CliRunner().invoke(app, ["models", MODEL, "--json"]).stdout)["models"][0]
    assert (card["name"], card["frames"], card["size"], card["needs"]) == ("mask-last", 17, "64x64", "edited first frame")


def test_an_unknown_module_is_one_line(tmp_path: Path) -> None:
    """Exit code 2."""
    outcome = CliRunner().invoke(app, ["models", "no_such_module:RECORD"])
    assert outcome.exit_code == 2 and "install the package or correct module:NAME" in outcome.stderr
