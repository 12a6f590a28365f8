"""Named presets: what they change, what overrides them, and that settings files store them."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import get_args

import pytest
import torch

from lora_edit.atomic_files import write_text
from lora_edit.canvas import build_canvas
from lora_edit.compositing.settings import CompositingSettings
from lora_edit.config import EditSettings, PresetName, dump_toml, read_toml, resolve_settings
from lora_edit.errors import SettingsError
from lora_edit.inputs import Clip
from lora_edit.models.families.wan.record import WAN21_I2V_480P, WAN22_I2V_A14B
from lora_edit.types import EditMask, Video

INPUT = {"input": {"source": "clip.mp4", "first_frame": "edited.png"}}


def settings(preset: str, model: str = "wan2.1-i2v-480p", *assignments: str) -> EditSettings:
    return resolve_settings({**INPUT, "preset": preset, "model": model}, assignments)


def test_standard_preset_is_that_of_the_model() -> None:
    assert settings("standard") == resolve_settings({**INPUT, "model": "wan2.1-i2v-480p"})


@pytest.mark.parametrize(("model", "sampling"), [("wan2.1-i2v-480p", 27), ("wan2.2-i2v-a14b", 27), ("tiny", 1)])
def test_fast_preset_halves_training_and_disables_guidance(model: str, sampling: int) -> None:
    """Relative to the settings of the model."""
    standard, fast = settings("standard", model), settings("fast", model)
    assert 2 * fast.training.motion_steps == standard.training.motion_steps
    assert 2 * fast.training.appearance_steps == standard.training.appearance_steps
    assert (fast.generation.steps, fast.generation.guidance_scale) == (sampling, 1.0)
    assert fast.generation.shift == standard.generation.shift and fast.lora == standard.lora


def test_low_vram_preset_trains_on_short_windows() -> None:
    assert settings("low-vram").training.window == 9 and settings("low-vram", "tiny").training.window == 13
    assert settings("low-vram").training.motion_steps == settings("standard").training.motion_steps


def test_explicit_settings_override_preset() -> None:
    tables = {**INPUT, "preset": "fast", "training": {"motion_steps": 7}}
    assert resolve_settings(tables, ["generation.steps=9"]).training.motion_steps == 7
    assert resolve_settings(tables, ["generation.steps=9"]).generation.steps == 9


def test_top_level_settings_can_be_assigned() -> None:
    resolved = resolve_settings(INPUT, ["preset=fast", "trigger=sks", "seed=4"])
    assert resolved.training == settings("fast", "tiny").training and (resolved.trigger, resolved.seed) == ("sks", 4)
    with pytest.raises(SettingsError, match=r"--set steps=3: write section\.setting=value .* or name=value with one of model, prompt"):
        resolve_settings(INPUT, ["steps=3"])


def test_unknown_preset_is_rejected() -> None:
    with pytest.raises(SettingsError, match=r"preset: .*'standard', 'fast' or 'low-vram'"):
        settings("faster")


@pytest.mark.parametrize("preset", get_args(PresetName))
@pytest.mark.parametrize("model", ["tiny", WAN22_I2V_A14B.name])
def test_settings_file_round_trip(tmp_path: Path, preset: str, model: str) -> None:
    resolved = settings(preset, model, "lora.rank=3")
    (tmp_path / "edit.toml").write_text(dump_toml(resolved), "utf-8")
    assert resolve_settings(read_toml(tmp_path / "edit.toml")) == resolved


@pytest.mark.parametrize(
    "prompt", ["a\a", "\0\b\t\n\v\f\r\x1b\x7f", "\"\\\" and 'quotes'", "caf\N{LATIN SMALL LETTER E WITH ACUTE}\u2028\U0001f9e2"]
)
def test_settings_file_preserves_control_characters(tmp_path: Path, prompt: str) -> None:
    """In a prompt, in the name of an object, and in a file name."""
    boxes = [{"x": 1, "y": 2, "width": 3, "height": 4, "object": prompt}]
    loras = [{"file": f"/loras/{prompt}", "strength": 0.5}]
    original = resolve_settings({"input": {**INPUT["input"], "boxes": boxes}, "prompt": prompt, "generation": {"loras": loras}})
    write_text(tmp_path / "edit.toml", dump_toml(original))
    assert resolve_settings(read_toml(tmp_path / "edit.toml")) == original


def test_all_presets_but_standard_change_settings() -> None:
    for name in get_args(PresetName):
        changed = settings(name).model_copy(update={"preset": "standard"}) != settings("standard")
        assert changed == (name != "standard")


def test_region_keeps_scale_of_frame_without_zoom() -> None:
    """A crop of a third of the frame gets a third of the model's pixels; with zoom, all of them."""
    region = torch.zeros(5, 192, 320, dtype=torch.bool)
    region[:, 60:130, 100:190] = True
    frames = torch.zeros(5, 192, 320, 3, dtype=torch.uint8)
    clip = Clip(Video(frames, Fraction(8), tuple(i / 8 for i in range(5))), EditMask(region), frames[0], {}, {})
    geometry = replace(WAN21_I2V_480P.geometry, native_area=96 * 160)
    whole, zoomed, plain = (
        build_canvas(clip, geometry, CompositingSettings(crop=crop, zoom=zoom), align_to_tokens=True)
        for crop, zoom in ((False, True), (True, True), (True, False))
    )
    share = plain.crop.size.height * plain.crop.size.width / (192 * 320)
    assert share < 0.4 and zoomed.crop == plain.crop
    assert whole.size.height * whole.size.width == 96 * 160
    assert zoomed.size.height * zoomed.size.width > 0.8 * 96 * 160
    assert plain.size.height * plain.size.width == pytest.approx(share * 96 * 160, rel=0.3)
    assert torch.equal(zoomed.edit_mask.any(), plain.edit_mask.any())
