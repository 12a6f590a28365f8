"""Every Wan model through a whole edit: its real classes, tiny and random, from a folder to a finished clip."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from lora_edit import estimate, pipeline
from lora_edit.config import EditSettings, resolve_settings
from lora_edit.estimate import measure_steps, open_family
from lora_edit.models.checkpoints import locate
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.prepared_clip import prepare_clip
from lora_edit.reporting import SilentReporter
from lora_edit.resolved import resolve_edit
from lora_edit.run import Run
from lora_edit.types import Video
from lora_edit.video.png_frames import load_frames
from lora_edit.video.read import read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from tiny_wan import WANS, save_tiny

FRAMES, HEIGHT, WIDTH = 7, 40, 56
QUICK = ("training.motion_steps=3", "training.appearance_steps=1", "training.batch_size=1", "training.learning_rate=1e-2", "lora.rank=2",
         "generation.steps=2", "video.codec=ffv1")  # fmt: skip


@dataclass
class Done:
    """A finished edit, and the calls of the models."""

    record: ModelRecord
    settings: EditSettings
    folder: Path
    asked: list[tuple[str, float, bool]] = field(default_factory=list)
    """Expert, time, and whether gradients were enabled."""
    taken: list[str] = field(default_factory=list)
    """Classes of the modules that came to the device, in order."""
    masks: dict[bool, torch.Tensor] = field(default_factory=dict)
    """The packed mask of the first motion step (True) and of generation."""


def edit_settings(folder: Path, model: str, last_frame: bool) -> EditSettings:
    """Seven frames of noise, a box, a red first frame, a reference; an anchor where the model takes the last frame."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (FRAMES, HEIGHT // 8, WIDTH // 8, 3), generator=generator, dtype=torch.uint8)
    frames = frames.repeat_interleave(8, 1).repeat_interleave(8, 2)
    write_video(folder / "source.mkv", Video(frames, Fraction(8), tuple(i / 8 for i in range(FRAMES))), "ffv1")
    for number in (0, 3, FRAMES - 1):
        picture = frames[number].clone()
        picture[12:28, 20:40] = torch.tensor([200, 30, 30], dtype=torch.uint8)
        save_image(folder / f"{number}.png", picture)
    given: dict[str, Any] = {"source": str(folder / "source.mkv"), "first_frame": str(folder / "0.png")}
    given["boxes"] = [{"x": 20, "y": 12, "width": 20, "height": 16}]
    given["references"] = [{"frame": 3, "image": str(folder / "3.png")}]
    if last_frame:
        given["anchors"] = [{"frame": FRAMES - 1, "image": str(folder / f"{FRAMES - 1}.png")}]
    return resolve_settings({"input": given, "model": model, "prompt": "a red coat"}, QUICK)


@pytest.fixture(scope="module", params=sorted(WANS))
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """Train three steps and one, generate two, composite."""
    folder = tmp_path_factory.mktemp("wan")
    record = save_tiny(WANS[request.param], folder / "model")
    predict, take = WanFamily.predict_velocity, DeviceManager.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locate, "KNOWN_MODELS", (record,))
        patch.setattr(estimate, "estimate_large_model", lambda *_: None)  # it asks the model too
        settings = edit_settings(folder, f"{record.name}@{folder / 'model'}", record.last_frame)
        out = Done(record, settings, folder)

        def asked(family: WanFamily, latents: torch.Tensor, time: torch.Tensor, encoded: Any) -> torch.Tensor:
            out.asked.append((family.part, time.item(), torch.is_grad_enabled()))
            out.masks.setdefault(torch.is_grad_enabled(), encoded.condition[:, :4])
            assert encoded.image_embeds is None or len(encoded.image_embeds) == 1 + record.last_frame
            return predict(family, latents, time, encoded)

        def taken(manager: DeviceManager, module: Any) -> Any:
            before, found = manager._active_module, take(manager, module)
            if found is not before:
                out.taken.append(type(found).__name__)
            return found

        patch.setattr(WanFamily, "predict_velocity", asked)
        patch.setattr(DeviceManager, "load", taken)
        pipeline.edit(settings, folder / "out.mkv", folder / "run", SilentReporter())
        yield out


def test_the_result_differs_from_the_source_in_the_region_only(done: Done) -> None:
    """Frame count, size, and every pixel outside the region are the source's; inside, something else; the first frame is the edited one."""
    clip, made = pipeline.check(done.settings), read_video(done.folder / "out.mkv").frames
    assert made.shape == (FRAMES, HEIGHT, WIDTH, 3)
    region = clip.edit_mask.frames
    assert torch.equal(made[~region], clip.video.frames[~region])
    assert all(not torch.equal(made[n][region[n]], clip.video.frames[n][region[n]]) for n in range(FRAMES))
    assert torch.equal(made, load_frames(done.folder / "run" / "result"))
    if done.record.last_frame:
        inner = (slice(FRAMES - 1, None), slice(16, 24), slice(26, 34))
        assert torch.equal(made[inner], clip.anchors[FRAMES - 1][inner[1:]][None]), "the anchor is shown as it is"


def test_each_expert_has_a_trained_lora(done: Done) -> None:
    """Files by expert, with the times they are for; ten layers a block, none of them image keys or values; no B is zero."""
    parts = [""] if len(done.record.transformer_parts) == 1 else ["high-noise", "low-noise"]
    run = Run(done.folder / "run")
    assert sorted((run.folder / "lora").iterdir()) == sorted(run.lora_file(part) for part in parts)
    times = {"high-noise": "0.9-1", "low-noise": "0-0.9", "": "0-1"}
    for part in parts:
        with safe_open(str(run.lora_file(part)), "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            metadata = file.metadata()
        assert len(tensors) == 2 * 10 and not [key for key in tensors if "add_" in key]
        assert all(tensor.any() for tensor in tensors.values())
        assert metadata["base_model"] == done.record.name
        assert (metadata.get("expert"), metadata["time_range"]) == (part or None, times[part])
    manifest = run.read_manifest()
    names = [f"{stage}, {part}" if part else stage for part in parts for stage in ("motion", "appearance")]
    assert [name for name, _ in manifest["stages"]] == names and len(manifest["losses"]) == 4 * len(parts)


def test_each_expert_predicts_in_its_time_range(done: Done) -> None:
    """In training and generation; trained one after the other; four training steps each."""
    trained = [(part, time) for part, time, learning in done.asked if learning]
    if done.record.boundary_ratio is None:
        assert {part for part, _, _ in done.asked} == {""} and len(trained) == 4
        return
    assert [part for part, _ in trained] == ["high-noise"] * 4 + ["low-noise"] * 4
    assert {part for part, _, learning in done.asked if not learning} == {"high-noise", "low-noise"}
    for part, time, _ in done.asked:
        assert (time >= done.record.boundary_ratio) == (part == "high-noise"), (part, time)


def test_training_and_generation_use_the_same_mask(done: Done) -> None:
    """Seven frames fill two groups by repeating the last; a model that is shown the last frame has it whole in both."""
    assert torch.equal(done.masks[True], done.masks[False])
    last = done.masks[True][0, :, -1]
    assert bool(last[1:].all()) == done.record.last_frame and not done.masks[True][0, :, 1].all()


def test_encoders_are_released_for_the_transformer(done: Done) -> None:
    """No encoder is loaded within training or a window: each is loaded once, for any number of steps."""
    kind = done.record.read_transformer_config()["_class_name"]
    pair = ["CLIPVisionModel", "AutoencoderKLWan"] if done.record.image_encoder else ["AutoencoderKLWan"]
    samples = 2 if done.record.image_encoder else 1  # each of them is looked at, then encoded
    training = ["UMT5EncoderModel", *pair * samples, *[kind] * len(done.record.transformer_parts)]
    generation = [*pair, "UMT5EncoderModel", *[kind] * len(done.record.transformer_parts), "AutoencoderKLWan"]
    assert done.taken == [*training, *generation]


def test_generating_again_needs_no_training(done: Done) -> None:
    """The run opens with the model and its LoRAs, and another seed makes another clip."""
    loras = [(path, path.read_bytes()) for path in sorted((done.folder / "run" / "lora").iterdir())]
    result = pipeline.generate(done.folder / "run", SilentReporter(), seed=5)
    assert not any(learning for *_, learning in done.asked[-2:])
    assert all(path.read_bytes() == before for path, before in loras)
    assert not torch.equal(read_video(result.output).frames, read_video(done.folder / "out.mkv").frames)
    assert json.loads((done.folder / "run" / "manifest.json").read_text())["training_key"]


def test_an_estimate_counts_every_experts_steps(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three motion steps and one of appearance for each expert; one window of two steps of two passes."""
    clip = pipeline.check(done.settings)
    family = open_family(resolve_edit(done.settings, clip))
    ticks = iter(range(100))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    found = measure_steps(family, prepare_clip(family, clip, done.settings), done.settings)
    assert found.seconds_train == pytest.approx(4 * len(done.record.transformer_parts) + 0.1)
    assert found.seconds_generate == 2 * 2 * found.windows == 4
