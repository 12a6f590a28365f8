"""Records of the HunyuanVideo models, refused settings and checkpoints, and adapted layers."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from lora_edit import pipeline
from lora_edit.conditioning.method import build_motion_sample
from lora_edit.config import resolve_settings
from lora_edit.errors import InputError, ModelError
from lora_edit.models.checkpoints import locate
from lora_edit.models.families.hunyuan.conditioning import HUNYUAN_TARGETS
from lora_edit.models.families.hunyuan.loading import build_hunyuan
from lora_edit.models.family import load_family
from lora_edit.models.record import ModelRecord
from tiny_hunyuan import FRAMES, HUNYUANS, edit_settings, tiny_components

CPU = torch.device("cpu")
NAIVE = "hunyuan-i2v-16"


@pytest.mark.parametrize(
    ("change", "frames", "anchor", "fault"),
    [
        ("method.conditioning=mask-aware", FRAMES, False, "method.conditioning=mask-aware"),
        ("method.conditioning=all-ones", FRAMES, False, "method.conditioning=all-ones"),
        ("method.appearance_mask=scheduled", FRAMES, False, "leave it out .then it is after-first."),
        ("lora.rank=2", FRAMES, True, "leave out --anchor"),
        ("lora.rank=2", 1, False, "makes 2 to 129 frames from the first one, not 1"),
        ("generation.window=5", FRAMES, False, "makes 2 to 5 frames"),
        ("method.conditioning=feature-level", FRAMES, False, None),
    ],
)
def test_settings_that_need_a_mask_are_refused_without_one(
    tmp_path: Path, change: str, frames: int, anchor: bool, fault: str | None
) -> None:
    """Before anything is loaded; the message names the model that allows them."""
    assert pipeline.check(edit_settings(tmp_path, "hunyuan-i2v", change, frames=frames, anchor=anchor))
    settings = edit_settings(tmp_path, NAIVE, change, frames=frames, anchor=anchor)
    if fault is None:
        assert pipeline.check(settings).notes
        return
    with pytest.raises(InputError, match=fault) as error:
        pipeline.check(settings)
    assert "--model hunyuan-i2v" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("record", HUNYUANS.values(), ids=list(HUNYUANS))
def test_records_agree_with_the_configuration(record: ModelRecord) -> None:
    """Noise, latents and one mask channel make the input, or noise alone; the class takes every key; parts are as wide as published."""
    config = record.read_transformer_config()
    latents = config["out_channels"]
    assert config["in_channels"] == (2 * latents + 1 if record.spatial_mask else latents)
    assert record.geometry.token_size == record.geometry.spatial_compression * config["patch_size"] == 16
    assert (
        record.geometry.max_frames - 1
    ) % record.geometry.temporal_compression == 0 and record.geometry.native_area % record.geometry.token_size**2 == 0
    assert sum(config["rope_axes_dim"]) == config["attention_head_dim"]
    kind = getattr(diffusers, config.pop("_class_name"))
    assert set(config) <= set(inspect.signature(kind.__init__).parameters)
    vae = inspect.signature(
        (diffusers.AutoencoderKLHunyuanVideo15 if record.image_encoder else diffusers.AutoencoderKLHunyuanVideo).__init__
    )
    assert vae.parameters["latent_channels"].default == latents
    assert vae.parameters["spatial_compression_ratio"].default == record.geometry.spatial_compression
    assert vae.parameters["temporal_compression_ratio"].default == record.geometry.temporal_compression


def test_the_configuration_of_15_is_the_classs_own() -> None:
    """It is not from the Hub: the converter gives the class's defaults but for size and task, so a change there would be seen here."""
    config = HUNYUANS["hunyuan-1.5-i2v"].read_transformer_config()
    defaults = inspect.signature(diffusers.HunyuanVideo15Transformer3DModel.__init__).parameters
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in config.items() if key != "_class_name"} == {
        key: defaults[key].default for key in config if key != "_class_name"
    }


@pytest.mark.parametrize(
    ("name", "shift", "guidance", "conditioning"),
    [("hunyuan-i2v", 7, 1, "mask-aware"), (NAIVE, 7, 1, "first-frame"), ("hunyuan-1.5-i2v", 5, 6, "mask-aware")],
)
def test_presets_are_the_publishers(name: str, shift: float, guidance: float, conditioning: str) -> None:
    """And the method's variant is what the model allows."""
    settings = resolve_settings({"input": {"source": "a", "first_frame": "b"}, "model": name})
    assert (settings.generation.shift, settings.generation.guidance_scale, settings.generation.steps) == (shift, guidance, 50)
    assert settings.method.conditioning == conditioning


def test_folders_are_identified_by_their_configuration(tmp_path: Path) -> None:
    """No model is confused with another, nor with the text-to-video model, whose older configurations lack the distinguishing key."""
    for name, record in HUNYUANS.items():
        folder = tmp_path / name / "transformer"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(record.read_transformer_config()), "utf-8")
        assert locate.locate_model(str(folder.parent))[0] is record
    config = HUNYUANS[NAIVE].read_transformer_config()
    del config["image_condition_type"]
    (tmp_path / NAIVE / "transformer" / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match=r"nearest is hunyuan-i2v-16 \(image_condition_type None instead of token_replace"):
        locate.locate_model(str(tmp_path / NAIVE))


@pytest.mark.parametrize(
    ("name", "part", "config", "fault"),
    [
        ("hunyuan-i2v", "vae", {"latent_channels": 32}, "vae is not that of hunyuan-i2v .latent_channels 32 instead of 16"),
        ("hunyuan-i2v", "text_encoder", {"text_config": {"hidden_size": 8}}, "text_config.hidden_size 8 instead of 4096"),
        ("hunyuan-i2v", "text_encoder_2", {"hidden_size": 8}, "hidden_size 8 instead of 768"),
        ("hunyuan-1.5-i2v", "text_encoder_2", {"d_model": 8}, "d_model 8 instead of 1472"),
        ("hunyuan-1.5-i2v", "image_encoder", {"hidden_size": 8}, "hidden_size 8 instead of 1152"),
    ],
)
def test_parts_of_another_width_are_refused(tmp_path: Path, name: str, part: str, config: dict[str, Any], fault: str) -> None:
    """Before any weights are read: there are none."""
    parts = {key: {} for key in ("vae", "text_encoder", "text_encoder_2", "image_encoder")}
    for key, own in {**parts, part: config, "transformer": HUNYUANS[name].read_transformer_config()}.items():
        (tmp_path / key).mkdir()
        (tmp_path / key / "config.json").write_text(json.dumps(own), "utf-8")
    with pytest.raises(ModelError, match=fault):
        load_family(f"{name}@{tmp_path}", CPU, torch.float32)


def test_transformer_and_autoencoder_have_to_fit() -> None:
    """Also where components come from elsewhere than a checked folder."""
    record = HUNYUANS["hunyuan-i2v"]
    parts = tiny_components(record)
    parts.vae.register_to_config(latent_channels=8)
    with pytest.raises(ModelError, match="33 input channels do not fit an autoencoder of 8"):
        build_hunyuan(parts, record, CPU, torch.float32)


def test_a_tokenizer_of_another_model_is_refused() -> None:
    """One without a place for the image, or with another place."""
    record = HUNYUANS["hunyuan-i2v"]
    parts = tiny_components(record)
    parts.text_encoder.config.image_token_index = 0
    with pytest.raises(ModelError, match="does not put the picture at place 5"):
        build_hunyuan(parts, record, CPU, torch.float32).encode_prompt("a red coat")


@pytest.mark.parametrize(("setting", "double", "single"), [("attention+ffn", 12, 5), ("attention", 8, 3), ("query+key", 4, 2)])
def test_the_layers_that_are_adapted(setting: str, double: int, single: int) -> None:
    """Counted by block; never the refiner of the text, nor modulation."""
    for record in HUNYUANS.values():
        transformer = tiny_components(record).transformer
        names = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
        chosen = [name for name in names if re.fullmatch(HUNYUAN_TARGETS[setting], name)]
        assert len([name for name in chosen if name.startswith("transformer_blocks.")]) == 2 * double
        assert len([name for name in chosen if name.startswith("single_")]) == (0 if record.image_encoder else single)
        assert not [name for name in chosen if "refiner" in name or "norm" in name]


@pytest.mark.parametrize("record", HUNYUANS.values(), ids=list(HUNYUANS))
def test_bfloat16_runs_and_learns_with_recomputed_blocks(record: ModelRecord) -> None:
    """As on a GPU: weights in bfloat16, velocity in float32, blocks computed again in the backward pass, times of any kind."""
    family = build_hunyuan(tiny_components(record), record, CPU, torch.bfloat16)
    clip = torch.rand(3, 5, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoded = family.encode_sample(build_motion_sample(clip, torch.ones(5, 32, 48, dtype=torch.bool), 'a red coat says "HI"'))
    assert encoded.target is not None and encoded.prompt_embeds.dtype == torch.bfloat16
    weights = [p for n, p in family.transformer.named_parameters() if n.endswith("attn.to_q.weight") and "refiner" not in n]
    for weight in weights:
        weight.requires_grad_(True)
    assert family.transformer.gradient_checkpointing and {p.dtype for p in family.transformer.parameters()} == {torch.bfloat16}
    for time in (0.0, 1e-6, 0.5, 1.0):
        velocity = family.predict_velocity(torch.randn(encoded.target.shape), torch.tensor([time]), encoded)
        assert velocity.dtype == torch.float32 and velocity.shape == encoded.target.shape and bool(velocity.isfinite().all())
    velocity.square().mean().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in weights)
