"""VACE against diffusers' pipeline around the same modules; hidden pixels do not reach it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanVACEPipeline
from diffusers.pipelines.wan import pipeline_wan_vace
from PIL import Image

from lora_edit.conditioning.method import build_inference_sample
from lora_edit.errors import ModelError
from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.families.vace.conditioning import VaceFamily, pack_vace_mask
from lora_edit.models.families.vace.loading import build_vace, load_vace
from lora_edit.models.families.vace.record import VACE_1_3B, VACE_14B, VACE_MODELS, locate_vace
from lora_edit.models.families.wan.loading import Components
from official_wan import autoencoders_pair
from tiny_vace import save_tiny_vace, tiny_vace
from upstream import agree, checkout, take

FRAMES, ROWS, COLUMNS, STEPS = 9, 32, 48, 3
CPU = torch.device("cpu")
METHODS = ("vace_encode_frames", "vace_encode_masks", "vace_latent")
"""Of the official pipeline's class."""


@pytest.fixture(scope="module")
def parts() -> Components:
    return tiny_vace()


@pytest.fixture(scope="module")
def family(parts: Components) -> VaceFamily:
    return build_vace(parts, VACE_1_3B, CPU, torch.float32)


def a_clip() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Source in [-1, 1], a picture for frame 0 in whole eighths of a bit, and a ragged mask."""
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(3, FRAMES, ROWS, COLUMNS, generator=generator) * 2 - 1
    edited = torch.randint(256, (3, ROWS, COLUMNS), generator=generator).float() / 127.5 - 1
    mask = torch.zeros(FRAMES, ROWS, COLUMNS, dtype=torch.bool)
    mask[:, 5:27, 11:40] = True
    return source, edited, mask


def stock(parts: Components, steps: int) -> Any:
    """diffusers' pipeline on Euler's grid."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=16.0)
    pipeline = WanVACEPipeline(parts.tokenizer, parts.text_encoder, parts.vae, scheduler, parts.transformers[0])
    pipeline.set_progress_bar_config(disable=True)
    grid = pipeline.scheduler.set_timesteps
    pipeline.scheduler.set_timesteps = lambda *args, **kwargs: grid(sigmas=np.linspace(1, 0, steps + 1)[:-1])
    return pipeline


def frames_of(pixels: torch.Tensor) -> list[torch.Tensor]:
    """`[C, T, H, W]` in [-1, 1] as the pipelines take a clip: `[T, C, H, W]` in [0, 1]."""
    return [(pixels * 0.5 + 0.5).transpose(0, 1)]


def asked(mask: torch.Tensor) -> list[torch.Tensor]:
    """White where it is to generate; frame 0 is given."""
    white = mask.clone()
    white[0] = False
    return [white.float()[:, None].expand(-1, 3, -1, -1)]


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_a_whole_run_equals_the_stock_pipelines(
    family: VaceFamily, parts: Components, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the hole grey, the edited first frame as first frame and as reference picture: latents and decoded clip."""
    monkeypatch.setattr(pipeline_wan_vace, "prompt_clean", lambda text: text)  # it needs ftfy
    source, edited, mask = a_clip()
    sample = build_inference_sample(source, edited, mask, "a red coat")
    encoded = family.encode_sample(sample)
    negative = replace(encoded, prompt_embeds=family.encode_prompt("green"))
    settings = GenerationSettings(steps=STEPS, shift=16.0, guidance_scale=guidance)
    ours = denoise(family, encoded, settings, torch.Generator().manual_seed(7), negative=negative)
    picture = Image.fromarray(((edited + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy())
    given = {
        "video": frames_of(sample.v_cond), "mask": asked(mask), "reference_images": [picture], "height": ROWS, "width": COLUMNS,
        "num_frames": FRAMES, "num_inference_steps": STEPS, "guidance_scale": guidance, "prompt": "a red coat", "negative_prompt": "green",
        "latents": torch.randn((1, 16, 4, ROWS // 8, COLUMNS // 8), generator=torch.Generator().manual_seed(7)),
    }  # fmt: skip
    agree(ours, stock(parts, STEPS)(**given, output_type="latent").frames, 2e-5)
    clip = torch.from_numpy(stock(parts, STEPS)(**given).frames[0]).permute(3, 0, 1, 2) * 2 - 1
    agree(family.decode(ours), clip, 1e-4)
    assert family.decode(ours).shape == source.shape


def test_the_condition_equals_the_stock_pipelines(family: VaceFamily, parts: Components) -> None:
    """All 96 channels, the reference's frame in front."""
    source, edited, mask = a_clip()
    sample, pipeline = build_inference_sample(source, edited, mask), stock(parts, 1)
    video, white = sample.v_cond[None], 1 - sample.m_cond[None].expand(-1, 3, -1, -1, -1)
    pictures = [[edited]]
    theirs = torch.cat([pipeline.prepare_video_latents(video, white, pictures, None, CPU), pipeline.prepare_masks(white, pictures)], 1)
    agree(family.encode_sample(sample).condition, theirs, 1e-5)


@pytest.mark.filterwarnings("ignore:.*autocast:FutureWarning", "ignore:.*autocast:UserWarning")
def test_the_condition_equals_the_official_one(parts: Components) -> None:
    """Wan2.1's own encoding of clip, mask and reference picture, on its own autoencoder."""
    vae, official = autoencoders_pair()
    ours = build_vace(replace(parts, vae=vae), VACE_1_3B, CPU, torch.float32)
    source, edited, mask = a_clip()
    sample = build_inference_sample(source, edited, mask)
    itself = SimpleNamespace(vae=official, vae_stride=(4, 8, 8))
    frames, white, pictures = [sample.v_cond], [1 - sample.m_cond], [[edited[:, None]]]
    latents, masks, joined = (take(checkout("Wan2.1") / "wan/vace.py", f"WanVace.{name}") for name in METHODS)
    encoded = joined(itself, latents(itself, frames, pictures, white), masks(itself, white, pictures))
    agree(ours.encode_sample(sample).condition[0], encoded[0], 1e-5)


def test_hidden_pixels_do_not_reach_vace(family: VaceFamily, parts: Components) -> None:
    """Other source pixels in the hole give the same condition bit for bit. The stock pipeline would encode the source itself."""
    source, edited, mask = a_clip()
    mask[0] = False
    other = torch.where(mask, -source, source)
    first, second = (family.encode_sample(build_inference_sample(each, edited, mask)).condition for each in (source, other))
    assert torch.equal(first, second)
    grey = family.parts.autoencoder.encode(torch.zeros(1, 3, FRAMES, ROWS, COLUMNS))
    assert torch.equal(first[:, 16:32, 1:], grey) and not first[:, 16:32, :1].any(), "nothing to work from, in any cell"
    white = mask.float()[None, None].expand(-1, 3, -1, -1, -1)
    told = [stock(parts, 1).prepare_video_latents(each[None], white, [[edited]], None, CPU)[:, 16:] for each in (source, other)]
    assert not torch.equal(*told)


def test_masks_keep_every_pixel_of_one_frame_in_four() -> None:
    """Of 49 frames; frame 0 is not among them."""
    looked_at = [1, 5, 9, 13, 16, 20, 24, 28, 32, 35, 39, 43, 47]
    for frame in range(49):
        mask = torch.zeros(1, 1, 49, 16, 16)
        mask[:, :, frame, 9, 3] = 1
        packed = pack_vace_mask(mask)
        assert packed.shape == (1, 64, 13, 2, 2)
        assert packed.sum() == (frame in looked_at)
        if frame in looked_at:
            assert packed[0, 8 + 3, looked_at.index(frame), 1, 0] == 1


def test_vace_loads_from_a_folder(tmp_path: Path) -> None:
    """In diffusers' layout; the weights decide the fingerprint."""
    record = save_tiny_vace(tmp_path)
    loaded = load_vace(record, str(tmp_path), CPU, torch.float32)
    source, edited, mask = a_clip()
    direct = build_vace(tiny_vace(), VACE_1_3B, CPU, torch.float32)
    sample = build_inference_sample(source, edited, mask, "a red coat")
    assert torch.equal(loaded.encode_sample(sample).condition, direct.encode_sample(sample).condition)
    assert loaded.fingerprint() == direct.fingerprint()


def test_vace_is_located_by_name_repository_or_folder(tmp_path: Path) -> None:
    """By configuration; anything else is an error of one line."""
    assert locate_vace("wan2.1-vace-1.3b") == locate_vace(VACE_1_3B.repo) == (VACE_1_3B, VACE_1_3B.repo)
    (tmp_path / "transformer").mkdir()
    config = tmp_path / "transformer" / "config.json"
    for record in VACE_MODELS:
        config.write_text(json.dumps(record.read_transformer_config()))
        assert locate_vace(str(tmp_path)) == (record, str(tmp_path))
    config.write_text(json.dumps(VACE_14B.read_transformer_config() | {"num_layers": 3}))
    for wrong, words in ((str(tmp_path), "is not that of"), (str(tmp_path / "none"), "no such folder"), ("a/b", "no such folder")):
        with pytest.raises(ModelError, match=words):
            locate_vace(wrong)


@pytest.mark.parametrize("record", VACE_MODELS, ids=lambda record: record.name)
def test_the_configuration_fits_the_class(record: Any) -> None:
    """Every key; two times the latents and a channel for every pixel of a cell."""
    config = record.read_transformer_config()
    assert config["vace_in_channels"] == 2 * config["out_channels"] + record.geometry.spatial_compression**2 == 96
    kind = getattr(diffusers, config.pop("_class_name"))
    with torch.device("meta"):
        assert kind.from_config(config).config.num_layers == config["num_layers"]
