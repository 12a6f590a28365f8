"""Wan2.2-Fun-5B-InP through a whole edit: its real classes, tiny and random, from a folder to a finished clip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from lora_edit import estimate, pipeline
from lora_edit.models.checkpoints import locate
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.models.family import EncodedSample
from lora_edit.reporting import SilentReporter
from lora_edit.run import Run
from lora_edit.video.read import read_video
from models.test_replace_models import FRAMES, HEIGHT, WIDTH, edit_settings
from tiny_fun import save_tiny


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any, list[tuple[EncodedSample, bool]]]]:
    """Train three steps and one, generate two, composite; the folder, the settings, and the samples with whether gradients were enabled."""
    folder, asked, predict = tmp_path_factory.mktemp("fun"), [], WanFamily.predict_velocity
    record = save_tiny(folder / "model")

    def ask(family: WanFamily, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
        asked.append((encoded, torch.is_grad_enabled()))
        return predict(family, latents, time, encoded)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locate, "KNOWN_MODELS", (record,))
        patch.setattr(estimate, "estimate_large_model", lambda *_: None)
        patch.setattr(WanFamily, "predict_velocity", ask)
        settings = edit_settings(folder, f"{record.name}@{folder / 'model'}")
        pipeline.edit(settings, folder / "out.mkv", folder / "run", SilentReporter())
        yield folder, settings, asked


def test_the_result_differs_from_the_source_in_the_region_only(done: Any) -> None:
    folder, settings, _ = done
    clip, made = pipeline.check(settings), read_video(folder / "out.mkv").frames
    region = clip.edit_mask.frames
    assert made.shape == (FRAMES, HEIGHT, WIDTH, 3) and torch.equal(made[~region], clip.video.frames[~region])
    assert all(not torch.equal(made[n][region[n]], clip.video.frames[n][region[n]]) for n in range(FRAMES))


def test_the_mask_reaches_training_and_generation(done: Any) -> None:
    """The box's token in every latent frame but the first, in the mask channels of both."""
    trained, generated = (next(encoded for encoded, learning in done[2] if learning == which) for which in (True, False))
    wanted = torch.ones(1, 4, 4, 4, 6)
    wanted[:, :, 1:, 2:, 2:4] = 0
    assert torch.equal(trained.condition[:, :4], wanted) and torch.equal(generated.condition[:, :4], wanted)


def test_the_lora_is_trained_in_comfyuis_layout(done: Any) -> None:
    """Ten layers a block; no B is zero."""
    with safe_open(str(Run(done[0] / "run").lora_file("")), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert len(tensors) == 2 * 10 and all(key.startswith("diffusion_model.blocks.0.") and value.any() for key, value in tensors.items())
