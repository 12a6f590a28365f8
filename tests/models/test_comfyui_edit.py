"""A whole edit from ComfyUI's folder, on the command line: from its single files to a LoRA and a clip."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from lora_edit.cli.main import app
from lora_edit.models.checkpoints import locate
from lora_edit.types import Video
from lora_edit.video.read import read_video
from lora_edit.video.sheet import save_image
from lora_edit.video.write import write_video
from single_files import save, save_comfyui, scaled
from tiny_wan import WANS

QUICK = ("training.motion_steps=2", "lora.rank=2", "generation.steps=2", "training.learning_rate=1e-2")


def edit(folder: Path, model: str, *more: str) -> Path:
    """Six frames of noise with a red first one; returns the clip."""
    frames = torch.randint(0, 256, (6, 24, 32, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_video(folder / "source.mkv", Video(frames, Fraction(8), tuple(i / 8 for i in range(6))), "ffv1")
    first = frames[0].clone()
    first[8:16, 8:20] = torch.tensor([200, 30, 30], dtype=torch.uint8)
    save_image(folder / "first.png", first)
    options = [text for setting in QUICK for text in ("--set", setting)]
    outcome = CliRunner().invoke(
        app,
        ["edit", str(folder / "source.mkv"), "--first-frame", str(folder / "first.png"), "--box", "8,8,12,8", "--model", model,
         "--prompt", "a red coat", "--output", str(folder / "out.mkv"), "--codec", "ffv1", "--json", *options, *more],
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.stderr
    return Path(json.loads(outcome.stdout)["output"])


@pytest.mark.parametrize("name", ["wan2.1-fun-1.3b", "wan2.2-i2v-a14b"])
def test_an_edit_from_comfyui_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The transformer's file given by a relative path, with 8-bit weights; then once more from the run, with the whole folder instead."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    record, _, files = save_comfyui(WANS[name], tmp_path / "models")
    monkeypatch.setattr(locate, "KNOWN_MODELS", (record,))
    for file in files:
        stored = load_file(file)
        linears = {key for key in stored if key.endswith(("attn.q.weight", "attn.k.weight", "attn.v.weight", "attn.o.weight"))}
        assert linears
        save(scaled(stored, linears)[0], file)
    monkeypatch.chdir(tmp_path)
    clip = read_video(edit(tmp_path, f"{name}@{files[0].relative_to(tmp_path)}"))
    assert clip.frames.shape == (6, 24, 32, 3)
    run = tmp_path / "out.run"
    assert f'model = "{name}@{files[0]}"' in (run / "edit.toml").read_text("utf-8")
    loras = sorted((run / "lora").iterdir())
    assert len(loras) == len(record.transformer_parts) and all(tensor.any() for file in loras for tensor in load_file(file).values())
    before = [file.read_bytes() for file in loras]
    again = CliRunner().invoke(app, ["generate", str(run), "--model", f"{name}@models", "--output", "again.mkv"])
    assert again.exit_code == 0, again.stderr
    assert [file.read_bytes() for file in loras] == before, "nothing is trained again"
    assert json.loads((run / "manifest.json").read_text("utf-8"))["generated_with"] == f"{name}@{tmp_path / 'models'}"
    other = CliRunner().invoke(app, ["generate", str(run), "--model", "tiny"])
    assert other.exit_code == 2


def test_a_model_to_train_on_is_no_gguf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the clip is opened, and in one line."""
    record, _, (file,) = save_comfyui(WANS["wan2.1-i2v-480p"], tmp_path / "models")
    monkeypatch.setattr(locate, "KNOWN_MODELS", (record,))
    file.with_suffix(".gguf").write_bytes(b"GGUF")
    clip, picture = tmp_path / "no.mp4", tmp_path / "no.png"
    for path in (clip, picture):
        path.touch()
    for verb, output in (("edit", "--output"), ("new", "--run")):
        outcome = CliRunner().invoke(
            app, [verb, str(clip), "--first-frame", str(picture), "--model", f"{record.name}@{file.with_suffix('.gguf')}", output, "x"]
        )
        assert outcome.exit_code == 2 and "a GGUF file only generates" in outcome.stderr and outcome.stderr.count("\n") == 1
