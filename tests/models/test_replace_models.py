"""Models without a mask channel through a whole edit: real classes, tiny and random, from a folder to a finished clip."""

from __future__ import annotations

import json
import shutil
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
from lora_edit.errors import ModelError, SettingsError
from lora_edit.models.checkpoints import locate
from lora_edit.models.families.token_replacement import TokenReplaceFamily
from lora_edit.models.family import EncodedSample, load_family
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.reporting import SilentReporter
from lora_edit.run import Run
from lora_edit.types import Video
from lora_edit.video.png_frames import load_frames
from lora_edit.video.read import read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from tiny_replace import REPLACERS, save_tiny

FRAMES, HEIGHT, WIDTH = 11, 64, 96
BOX = {"x": 36, "y": 36, "width": 24, "height": 20}
"""Within the token of row 1, column 1 of the two rows of three."""
QUICK = ("training.motion_steps=3", "training.appearance_steps=1", "training.batch_size=1", "training.learning_rate=1e-2", "lora.rank=2",
         "generation.steps=2", "video.codec=ffv1", "compositing.crop=false")  # fmt: skip


@dataclass
class Done:
    """A finished edit, and the calls of the model."""

    record: ModelRecord
    settings: EditSettings
    folder: Path
    asked: list[tuple[EncodedSample, bool]] = field(default_factory=list)
    """Encoded sample, and whether gradients were enabled."""
    taken: list[str] = field(default_factory=list)
    """Classes of the modules that came to the device, in order."""


def edit_settings(folder: Path, model: str) -> EditSettings:
    """Eleven frames of noise, a box, a red first frame, a reference."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (FRAMES, HEIGHT // 8, WIDTH // 8, 3), generator=generator, dtype=torch.uint8)
    frames = frames.repeat_interleave(8, 1).repeat_interleave(8, 2)
    write_video(folder / "source.mkv", Video(frames, Fraction(8), tuple(i / 8 for i in range(FRAMES))), "ffv1")
    for number in (0, 3):
        picture = frames[number].clone()
        picture[36:56, 36:60] = torch.tensor([200, 30, 30], dtype=torch.uint8)
        save_image(folder / f"{number}.png", picture)
    given: dict[str, Any] = {"source": str(folder / "source.mkv"), "first_frame": str(folder / "0.png"), "boxes": [BOX]}
    given["references"] = [{"frame": 3, "image": str(folder / "3.png")}]
    return resolve_settings({"input": given, "model": model, "prompt": "a red coat"}, QUICK)


@pytest.fixture(scope="module", params=sorted(REPLACERS))
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """Train three steps and one, generate two, composite."""
    folder = tmp_path_factory.mktemp("replace")
    record = save_tiny(REPLACERS[request.param], folder / "model")
    predict, take = TokenReplaceFamily.predict_velocity, DeviceManager.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locate, "KNOWN_MODELS", (record,))
        patch.setattr(estimate, "estimate_large_model", lambda *_: None)  # it asks the model too
        out = Done(record, edit_settings(folder, f"{record.name}@{folder / 'model'}"), folder)

        def asked(family: TokenReplaceFamily, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
            out.asked.append((encoded, torch.is_grad_enabled()))
            return predict(family, latents, time, encoded)

        def taken(manager: DeviceManager, module: Any) -> Any:
            before, found = manager._active_module, take(manager, module)
            if found is not before:
                out.taken.append(type(found).__name__)
            return found

        patch.setattr(TokenReplaceFamily, "predict_velocity", asked)
        patch.setattr(DeviceManager, "load", taken)
        pipeline.edit(out.settings, folder / "out.mkv", folder / "run", SilentReporter())
        yield out


def test_the_result_differs_from_the_source_in_the_region_only(done: Done) -> None:
    """Frame count, size, and every pixel outside the region are the source's; inside, something else; the first frame is the edited one."""
    clip, made = pipeline.check(done.settings), read_video(done.folder / "out.mkv").frames
    assert made.shape == (FRAMES, HEIGHT, WIDTH, 3)
    region = clip.edit_mask.frames
    assert torch.equal(made[~region], clip.video.frames[~region])
    assert all(not torch.equal(made[n][region[n]], clip.video.frames[n][region[n]]) for n in range(FRAMES))
    assert torch.equal(made, load_frames(done.folder / "run" / "result"))


def test_training_and_generation_generate_the_same_tokens(done: Done) -> None:
    """The box's token in every latent frame but the first; eleven frames fill whole groups by repeating the last."""
    trained, generated = (next(encoded for encoded, learning in done.asked if learning == which) for which in (True, False))
    side = done.record.geometry.token_size // done.record.geometry.spatial_compression
    frames = {4: 4, 8: 3}[done.record.geometry.temporal_compression]
    wanted = torch.zeros(1, 1, frames, 2 * side, 3 * side)
    wanted[:, :, 1:, side:, side : 2 * side] = 1
    assert torch.equal(trained.hole, wanted) and torch.equal(generated.hole, wanted)
    assert trained.target is not None and trained.condition.shape == trained.target.shape
    given = wanted.expand_as(trained.target) == 0
    assert torch.equal(trained.target[given], trained.condition[given])


def test_the_lora_is_trained(done: Done) -> None:
    """Ten layers a block, no B is zero; in the layout that ComfyUI opens."""
    with safe_open(str(Run(done.folder / "run").lora_file("")), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    prefix = "diffusion_model.blocks.0." if done.record.name.startswith("wan") else "diffusion_model.transformer_blocks.0."
    assert len(tensors) == 2 * 10 and all(key.startswith(prefix) for key in tensors)
    assert all(tensor.any() for tensor in tensors.values())
    assert metadata["base_model"] == done.record.name
    assert len(Run(done.folder / "run").read_manifest()["losses"]) == 4


def test_the_encoder_is_released_for_the_transformer(done: Done) -> None:
    """One turn each in training and in generation."""
    text = "UMT5EncoderModel" if done.record.name.startswith("wan") else "T5EncoderModel"
    codec = "AutoencoderKLWan" if done.record.name.startswith("wan") else "AutoencoderKLLTXVideo"
    transformer = done.record.read_transformer_config()["_class_name"]
    assert done.taken == [text, codec, transformer, codec, text, transformer, codec]


def test_generating_again_needs_no_training(done: Done) -> None:
    """The run opens with the model and its LoRA, and another seed makes another clip."""
    before = len(done.asked)
    result = pipeline.generate(done.folder / "run", SilentReporter(), seed=5)
    assert not any(learning for _, learning in done.asked[before:]) and len(done.asked) == before + 4
    assert not torch.equal(read_video(result.output).frames, read_video(done.folder / "out.mkv").frames)


def test_windows_of_other_lengths_are_refused_before_anything_is_loaded(done: Done) -> None:
    """The autoencoders would drop the remainder silently."""
    group = done.record.geometry.temporal_compression
    for room, window, instead in (("training", group, group + 1), ("generation", group + 2, group + 1), ("training", 1, group + 1)):
        tables = done.settings.model_dump(mode="json")
        tables[room]["window"] = window
        with pytest.raises(
            SettingsError, match=rf"{room}.window is {window}, but {done.record.name}.*{group} k \+ 1.*set it to {instead},"
        ):
            pipeline.check(EditSettings.model_validate(tables))
    tables["training"]["window"] = group + 1
    assert pipeline.check(EditSettings.model_validate(tables)).video.num_frames == FRAMES


def test_long_clips_are_generated_in_windows(done: Done, tmp_path: Path) -> None:
    """Of the shortest length that there is."""
    tables = done.settings.model_dump(mode="json")
    for room in ("training", "generation"):
        tables[room]["window"] = done.record.geometry.temporal_compression + 1
    before = len(done.asked)
    pipeline.edit(EditSettings.model_validate(tables), tmp_path / "out.mkv", tmp_path / "run", SilentReporter())
    assert {encoded.hole.shape[2] for encoded, _ in done.asked[before:]} <= {1, 2}
    assert read_video(tmp_path / "out.mkv").frames.shape == (FRAMES, HEIGHT, WIDTH, 3)


def test_parts_of_another_width_are_refused(done: Done, tmp_path: Path) -> None:
    """By their configuration, whatever its key is called."""
    folder = tmp_path / "x"
    for part, own in (("vae", "latent_channels" if done.record.name == "ltx-video" else "z_dim"), ("text_encoder", "d_model")):
        for each in ("transformer", "vae", "text_encoder"):
            (folder / each).mkdir(parents=True, exist_ok=True)
            config = json.loads((done.folder / "model" / each / "config.json").read_text())
            (folder / each / "config.json").write_text(json.dumps(config | ({own: 3} if each == part else {})))
        with pytest.raises(ModelError, match=rf"{part} is not that of {done.record.name} \({own} 3 instead of"):
            load_family(f"{done.record.name}@{folder}", torch.device("cpu"), torch.float32)


def test_an_unreadable_sentencepiece_tokenizer_is_reported(done: Done, tmp_path: Path) -> None:
    """LTX-Video's is such a file; the fault is found before weights are read."""
    shutil.copytree(done.folder / "model", tmp_path / "x", ignore=shutil.ignore_patterns("tokenizer*"))
    (tmp_path / "x" / "tokenizer").mkdir()
    (tmp_path / "x" / "tokenizer" / "spiece.model").write_bytes(b"no tokenizer.json beside it")
    with pytest.raises(ModelError, match=r"spiece\.model: its tokenizer cannot be read .*; put the text encoder's own tokenizer\.json"):
        load_family(f"{done.record.name}@{tmp_path / 'x'}", torch.device("cpu"), torch.float32)
