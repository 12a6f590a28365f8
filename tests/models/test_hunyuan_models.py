"""Every HunyuanVideo model through a whole edit: its real classes, tiny and random, from a folder to a finished clip."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from lora_edit import estimate, pipeline
from lora_edit.config import EditSettings
from lora_edit.loras.layouts import detect_layout
from lora_edit.models.checkpoints import locate
from lora_edit.models.families.hunyuan.conditioning import HunyuanFamily
from lora_edit.models.family import load_family
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.reporting import SilentReporter
from lora_edit.run import Run
from lora_edit.video.png_frames import load_frames
from lora_edit.video.read import read_video
from tiny_hunyuan import FRAMES, HEIGHT, HUNYUANS, LONG, edit_settings, save_tiny

CPU = torch.device("cpu")


@dataclass
class Done:
    """A finished edit, and the calls of the model."""

    record: ModelRecord
    settings: EditSettings
    folder: Path
    asked: list[tuple[float, bool]] = field(default_factory=list)
    """Time, and whether gradients were enabled."""
    taken: list[str] = field(default_factory=list)
    """Classes of the modules that came to the device, in order."""
    conditions: dict[bool, torch.Tensor] = field(default_factory=dict)
    """The condition of the first motion step (True) and of generation."""


@pytest.fixture(scope="module", params=sorted(HUNYUANS))
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """Train three steps and one, generate two, composite."""
    folder = tmp_path_factory.mktemp("hunyuan")
    record = save_tiny(HUNYUANS[request.param], folder / "model")
    predict, take = HunyuanFamily._predict, DeviceManager.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locate, "KNOWN_MODELS", (record,))
        patch.setattr(estimate, "estimate_large_model", lambda *_: None)  # it asks the model too
        settings = edit_settings(folder, f"{record.name}@{folder / 'model'}")
        out = Done(record, settings, folder)

        def asked(family: HunyuanFamily, shown: torch.Tensor, time: torch.Tensor, encoded: Any) -> torch.Tensor:
            out.asked.append((time.item(), torch.is_grad_enabled()))
            out.conditions.setdefault(torch.is_grad_enabled(), encoded.condition)
            return original(family, shown, time, encoded)

        def taken(manager: DeviceManager, module: Any) -> Any:
            before, found = manager._active_module, take(manager, module)
            if found is not before:
                out.taken.append(type(found).__name__)
            return found

        kind = type(load_family(settings.model, CPU, torch.float32))
        original = kind.__dict__.get("_predict", predict)
        patch.setattr(kind, "_predict", asked)
        patch.setattr(DeviceManager, "load", taken)
        pipeline.edit(settings, folder / "out.mkv", folder / "run", SilentReporter())
        yield out


def test_the_result_differs_from_the_source_in_the_region_only(done: Done) -> None:
    """Frame count, size, and every pixel outside the region are the source's; inside, something else; the first frame is the edited one."""
    clip, made = pipeline.check(done.settings), read_video(done.folder / "out.mkv").frames
    assert made.shape == (FRAMES, HEIGHT, LONG, 3)
    region = clip.edit_mask.frames
    assert torch.equal(made[~region], clip.video.frames[~region])
    assert all(not torch.equal(made[n][region[n]], clip.video.frames[n][region[n]]) for n in range(FRAMES))
    assert torch.equal(made, load_frames(done.folder / "run" / "result"))
    inner = (0, slice(26, 34), slice(44, 52))
    assert torch.equal(made[inner], clip.first_frame[inner[1:]])


def test_the_lora_is_trained_and_in_diffusers_layout(done: Done) -> None:
    """Every layer but those of a last block whose text nobody reads; joint matrices of the original names stay apart."""
    run = Run(done.folder / "run")
    with safe_open(str(run.lora_file()), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    assert detect_layout(tensors) == "diffusers" and not [key for key in tensors if "context_embedder" in key]
    joint, single = 12, 5
    assert len(tensors) == 2 * (2 * joint + (0 if done.record.image_encoder else single))
    unread = r"transformer_blocks\.1\.(attn\.(add_q_proj|to_add_out)|ff_context)" if done.record.image_encoder else "none"
    still = {key for key, tensor in tensors.items() if not tensor.any()}
    assert still == {key for key in tensors if re.search(unread, key) and "lora_B" in key}
    assert metadata["base_model"] == done.record.name and metadata["time_range"] == "0-1"
    assert metadata["method"] == ("mask-aware" if done.record.spatial_mask else "first-frame")
    manifest = run.read_manifest()
    assert [name for name, _ in manifest["stages"]] == ["motion", "appearance"] and len(manifest["losses"]) == 4


def test_training_and_generation_use_the_same_mask(done: Done) -> None:
    """The region's cells are withheld behind the first frame; the model without a mask is given the first frame alone, in both."""
    trained, generated = done.conditions[True], done.conditions[False]
    assert trained.shape == generated.shape
    if done.record.spatial_mask:
        assert torch.equal(trained[:, -1], generated[:, -1])
        assert bool(trained[0, -1, 0].all()) and 0 < trained[0, -1, 1].mean() < 1
    else:
        assert not trained[:, :, 1:].any() and not generated[:, :, 1:].any()
    assert not torch.equal(trained[:, :-1, 0], generated[:, :-1, 0]), "the source's first frame, then the edited one"


def test_encoders_are_released_for_the_transformer(done: Done) -> None:
    """No encoder is loaded within training or a window: each is loaded once, for any number of steps and images."""
    kind = done.record.read_transformer_config()["_class_name"]
    if done.record.image_encoder:
        codec, picture = "AutoencoderKLHunyuanVideo15", "SiglipVisionModel"
        training, generation = ["Qwen2_5_VLTextModel", picture, codec, picture, codec], [picture, codec, "Qwen2_5_VLTextModel"]
    else:
        codec, picture = "AutoencoderKLHunyuanVideo", "LlavaForConditionalGeneration"
        training, generation = ["CLIPTextModel", picture, codec, picture, codec], [picture, codec]
    if not done.record.spatial_mask:
        # What the naive model learns of later frames stands behind the edited first frame, which is read then already.
        generation = [codec]
    assert done.taken == [*training, kind, *generation, kind, codec]
    passes = 2 if done.record.image_encoder else 1  # the first version is distilled: no guidance
    assert [learning for _, learning in done.asked] == [True] * 4 + [False] * 2 * passes


def test_generating_again_needs_no_training(done: Done) -> None:
    """The run opens with the model and its LoRA, and another seed makes another clip."""
    before = Run(done.folder / "run").lora_file().read_bytes()
    result = pipeline.generate(done.folder / "run", SilentReporter(), seed=5)
    assert not any(learning for _, learning in done.asked[-2:])
    assert Run(done.folder / "run").lora_file().read_bytes() == before
    assert not torch.equal(read_video(result.output).frames, read_video(done.folder / "out.mkv").frames)


def test_the_naive_model_is_announced(done: Done) -> None:
    """In the run's notes; the other models have no such note."""
    notes = " ".join(pipeline.check(done.settings).notes)
    assert ("is given the first frame alone" in notes) == (not done.record.spatial_mask)
