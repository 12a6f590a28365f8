"""LTX-2 through a whole edit: its real classes, tiny and random, from a folder to a finished clip; its LoRA in diffusers and ComfyUI."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import LTX2ConditionPipeline
from safetensors import safe_open

from lora_edit import estimate, pipeline
from lora_edit.config import EditSettings
from lora_edit.loras.files import export_lora, read_lora
from lora_edit.models.checkpoints import locate
from lora_edit.models.families.ltx2.conditioning import Ltx2Family
from lora_edit.models.families.token_replacement import TokenReplaceFamily
from lora_edit.models.family import EncodedSample, Expert, load_family
from lora_edit.models.record import ModelRecord
from lora_edit.reporting import SilentReporter
from lora_edit.run import Run
from lora_edit.training.lora import add_lora, load_lora
from lora_edit.video.read import read_video
from models.test_replace_models import FRAMES, HEIGHT, WIDTH, edit_settings
from tiny_ltx2 import LTX2S, save_tiny


@dataclass
class Done:
    """A finished edit, the samples that its model was given, and whether gradients were enabled."""

    record: ModelRecord
    folder: Path
    settings: EditSettings
    asked: list[tuple[EncodedSample, bool]]

    @property
    def lora(self) -> Path:
        return Run(self.folder / "run").lora_file("")


@pytest.fixture(scope="module", params=sorted(LTX2S))
def done(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """Train three steps and one, generate two, composite."""
    folder = tmp_path_factory.mktemp("ltx2")
    record = save_tiny(LTX2S[request.param], folder / "model")
    predict = TokenReplaceFamily.predict_velocity
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locate, "KNOWN_MODELS", (record,))
        patch.setattr(estimate, "estimate_large_model", lambda *_: None)
        out = Done(record, folder, edit_settings(folder, f"{record.name}@{folder / 'model'}"), [])

        def ask(family: Ltx2Family, latents: torch.Tensor, time: torch.Tensor, encoded: EncodedSample) -> torch.Tensor:
            out.asked.append((encoded, torch.is_grad_enabled()))
            return predict(family, latents, time, encoded)

        patch.setattr(TokenReplaceFamily, "predict_velocity", ask)
        pipeline.edit(out.settings, folder / "out.mkv", folder / "run", SilentReporter())
        yield out


def test_the_result_differs_from_the_source_in_the_region_only(done: Done) -> None:
    clip, made = pipeline.check(done.settings), read_video(done.folder / "out.mkv").frames
    region = clip.edit_mask.frames
    assert made.shape == (FRAMES, HEIGHT, WIDTH, 3) and torch.equal(made[~region], clip.video.frames[~region])
    assert all(not torch.equal(made[n][region[n]], clip.video.frames[n][region[n]]) for n in range(FRAMES))


def test_training_and_generation_generate_the_same_tokens(done: Done) -> None:
    """The box's token in every latent frame but the first."""
    trained, generated = (next(encoded for encoded, learning in done.asked if learning == which) for which in (True, False))
    wanted = torch.zeros(1, 1, 3, 2, 3)
    wanted[:, :, 1:, 1, 1] = 1
    assert torch.equal(trained.hole, wanted) and torch.equal(generated.hole, wanted)


def test_the_lora_has_the_original_names(done: Done) -> None:
    """Ten layers of the picture a block, under ComfyUI's prefix; blocks have the same names in the original checkpoint."""
    with safe_open(str(done.lora), "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert len(tensors) == 20 and all(tensor.any() for tensor in tensors.values())
    layers = {key.partition(".lora_")[0] for key in tensors}
    block = "diffusion_model.transformer_blocks.0."
    attention = {f"{block}attn{n}.{layer}" for n in (1, 2) for layer in ("to_q", "to_k", "to_v", "to_out.0")}
    assert layers == attention | {f"{block}ff.net.0.proj", f"{block}ff.net.2"}


@torch.no_grad()
def predict(transformer: Any, config: dict[str, Any]) -> torch.Tensor:
    """Return the picture's output for one fixed input."""
    draw = torch.Generator().manual_seed(5)
    output: torch.Tensor = transformer(
        hidden_states=torch.randn((1, 12, config["in_channels"]), generator=draw),
        audio_hidden_states=torch.zeros(1, 1, config["audio_in_channels"]),
        encoder_hidden_states=torch.randn((1, 8, config["cross_attention_dim"]), generator=draw),
        audio_encoder_hidden_states=torch.zeros(1, 1, config["audio_cross_attention_dim"]),
        timestep=torch.full((1, 12), 500.0), audio_timestep=torch.tensor([500.0]), sigma=torch.tensor([500.0]), num_frames=2, height=2,
        width=3, audio_num_frames=1, isolate_modalities=True, use_cross_timestep=True, return_dict=False,
    )[0]  # fmt: skip
    return output


@pytest.mark.parametrize("layout", ["comfyui", "diffusers"])
def test_the_lora_opens_in_diffusers(done: Done, tmp_path: Path, layout: Any) -> None:
    """In both layouts, with `load_lora_weights`: the output is that of our own adapter, and not that of the base."""
    config = done.record.read_transformer_config()
    family: Any = load_family(f"{done.record.name}@{done.folder / 'model'}", torch.device("cpu"), torch.float32)
    expert: Expert = family.experts()[0]
    base = predict(expert.transformer, config)
    add_lora(expert, done.settings.lora, 0)
    load_lora(expert, done.lora)
    ours = predict(expert.transformer, config)
    part = done.folder / "model" / done.record.transformer_parts[0]
    stock = LTX2ConditionPipeline(
        **dict.fromkeys(("scheduler", "vae", "audio_vae", "text_encoder", "tokenizer", "connectors", "vocoder")),
        transformer=diffusers.LTX2VideoTransformer3DModel.from_pretrained(part, dtype=torch.float32).eval(),
    )  # type: ignore[arg-type]
    export_lora(done.lora, tmp_path / "lora.safetensors", layout)
    stock.load_lora_weights(str(tmp_path / "lora.safetensors"))
    torch.testing.assert_close(predict(stock.transformer, config), ours, atol=1e-6, rtol=0)
    assert (ours - base).abs().max() > 1e-4
    assert read_lora(tmp_path / "lora.safetensors").layout == layout
