"""LTX-2 against diffusers' own pipelines and LTX-2's own trainer: prompts, whole runs, the input of a training step, LoRA files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTX2Audio, LTX2ConditionPipeline, LTX2ImageToVideoPipeline
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from einops import rearrange

from lora_edit.conditioning.method import build_inference_sample, build_motion_sample
from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.family import EncodedSample
from models.test_token_replacement_parity import euler
from tiny_ltx2 import LATENTS, LTX2S, TOKENS, tiny_components, tiny_family

FRAMES, ROWS, COLUMNS, STEPS, SEED = 17, 64, 96, 4, 7
SETTINGS = GenerationSettings(steps=STEPS, shift=5.0, guidance_scale=3.5)
PICTURE = torch.randint(0, 256, (3, FRAMES, ROWS, COLUMNS), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
GRID = (3, ROWS // 32, COLUMNS // 32)


def holes(whole: bool) -> torch.Tensor:
    """Later frames to edit: all of them, or one token of each."""
    mask = torch.zeros(FRAMES, ROWS, COLUMNS, dtype=torch.bool)
    mask[1:, 0 if whole else 32 :, 0 if whole else 32 : COLUMNS if whole else 64] = True
    return mask


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Latents to rows of tokens."""
    return rearrange(latents, "b z f h w -> b (f h w) z")


class Pair:
    """One version as ours and as a stock pipeline whose picture does not attend to the sound."""

    def __init__(self, name: str, pipeline_class: Any) -> None:
        record = LTX2S[name]
        parts: Any = tiny_components(record)
        self.ours, self.condition = tiny_family(record, parts), pipeline_class is LTX2ConditionPipeline
        with torch.random.fork_rng():
            sound = AutoencoderKLLTX2Audio(
                base_channels=4, output_channels=2, ch_mult=(1,), num_res_blocks=1, in_channels=2, resolution=32, latent_channels=2,
                norm_type="pixel", causality_axis="height", mid_block_add_attention=False, mel_bins=8,
            )  # fmt: skip
            vocoder = LTX2Vocoder(
                in_channels=16, hidden_channels=32, out_channels=2, upsample_kernel_sizes=[4, 4], upsample_factors=[2, 2],
                resnet_kernel_sizes=[3], resnet_dilations=[[1, 3, 5]],
            )  # fmt: skip
        self.stock = pipeline_class(
            scheduler=euler(), vae=parts.vae, audio_vae=sound, text_encoder=parts.text_encoder, tokenizer=parts.tokenizer,
            connectors=parts.connectors, transformer=parts.transformer, vocoder=vocoder,
        )  # fmt: skip
        self.stock.set_progress_bar_config(disable=True)

        def isolate(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
            return args, kwargs | {"isolate_modalities": True}

        parts.transformer.register_forward_pre_hook(isolate, with_kwargs=True)

    def encode(self, mask: torch.Tensor) -> tuple[EncodedSample, EncodedSample]:
        """With a prompt and with another one."""
        encoded = self.ours.encode_sample(build_inference_sample(PICTURE, PICTURE[:, 0], mask, "a red coat"))
        return encoded, replace(encoded, prompt_embeds=self.ours.encode_prompt("green"))

    def run_stock(self, **options: Any) -> torch.Tensor:
        """Normalised latents of the stock run, with guidance by prompts alone."""
        off = {f"{sound}{name}": value for sound in ("", "audio_") for name, value in
               (("stg_scale", 0.0), ("modality_scale", 1.0), ("guidance_rescale", 0.0))}  # fmt: skip
        self.stock.scheduler = type(self.stock.scheduler).from_config(self.stock.scheduler.config)  # a run leaves its steps in it
        latents = self.stock(
            prompt="a red coat", negative_prompt="green", height=ROWS, width=COLUMNS, num_frames=FRAMES, num_inference_steps=STEPS,
            guidance_scale=3.5, generator=torch.Generator().manual_seed(SEED), output_type="latent", max_sequence_length=TOKENS,
            **off, **options,
        ).frames  # fmt: skip
        vae = self.stock.vae
        normalized: torch.Tensor = self.stock._normalize_latents(latents, vae.latents_mean, vae.latents_std)
        return normalized


def run_ours(pair: Pair, mask: torch.Tensor) -> torch.Tensor:
    """Latents of a whole run, from the stock pipeline's noise; the newer one draws rows of tokens."""
    encoded, negative = pair.encode(mask)
    if not pair.condition:
        return denoise(pair.ours, encoded, SETTINGS, torch.Generator().manual_seed(SEED), negative=negative)
    noise = torch.randn((1, GRID[0] * GRID[1] * GRID[2], LATENTS), generator=torch.Generator().manual_seed(SEED))
    noise = rearrange(noise, "b (f h w) z -> b z f h w", f=GRID[0], h=GRID[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randn", lambda *_, **__: noise)
        return denoise(pair.ours, encoded, SETTINGS, torch.Generator().manual_seed(SEED), negative=negative)


@pytest.fixture(scope="module", params=sorted(LTX2S))
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param, LTX2ConditionPipeline)


def test_prompts_are_encoded_as_by_the_stock_pipeline(pair: Pair) -> None:
    """All rows: the prompt's, then the registers'."""
    for prompt in ("a red coat", "", "red " * 60):
        embeds, mask = pair.stock._get_gemma_prompt_embeds(prompt, max_sequence_length=TOKENS)
        with torch.no_grad():
            theirs, _, valid = pair.stock.connectors(embeds, mask)
        assert bool((valid == 1).all())
        torch.testing.assert_close(pair.ours.encode_prompt(prompt), theirs, atol=1e-6, rtol=0)


def test_a_run_with_a_given_first_frame_equals_the_stock_pipeline(pair: Pair) -> None:
    """With guidance, where the sound is kept out of the picture."""
    frame = np.asarray(((PICTURE[:, 0] + 1) * 127.5).round().permute(1, 2, 0).to(torch.uint8))
    theirs = pair.run_stock(conditions=[LTX2VideoCondition(frame, crf=0)])
    torch.testing.assert_close(run_ours(pair, holes(True)), theirs, atol=2e-5, rtol=0)


def test_a_masked_run_equals_the_stock_pipeline(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given tokens by a mask over tokens, the denoise mask of LTX-2's `VideoConditionByMask`; the pipeline's own loop does the rest."""
    encoded, _ = pair.encode(holes(False))
    given, clean, prepare = pack(1 - encoded.hole), pack(encoded.condition), pair.stock.prepare_latents

    def prepared(**options: Any) -> Any:
        noise = prepare(**options | {"conditions": None})[0]
        return torch.where(given > 0, clean, noise), given.clone(), given * clean, None

    monkeypatch.setattr(pair.stock, "prepare_latents", prepared)
    theirs = pair.run_stock()
    torch.testing.assert_close(run_ours(pair, holes(False)), theirs, atol=2e-5, rtol=0)
    assert 0 < given.mean() < 1


@pytest.mark.parametrize("name", sorted(LTX2S))
def test_a_run_equals_the_stock_image_to_video_pipeline(name: str) -> None:
    """The older of the two, whose first frame is a picture."""
    pair = Pair(name, LTX2ImageToVideoPipeline)
    theirs = pair.run_stock(image=PICTURE[None, :, 0] * 0.5 + 0.5, image_crf=0)
    torch.testing.assert_close(run_ours(pair, holes(True)), theirs, atol=2e-5, rtol=0)


def test_decoding_equals_the_stock_autoencoder(pair: Pair) -> None:
    """The convolutional decoder, clamped."""
    encoded, _ = pair.encode(holes(True))
    vae = pair.stock.vae
    with torch.no_grad():
        raw = pair.stock._denormalize_latents(encoded.condition, vae.latents_mean, vae.latents_std)
        theirs = vae.decode(raw, return_dict=False)[0][0].clamp(-1, 1)
    torch.testing.assert_close(pair.ours.decode(encoded.condition), theirs, atol=1e-5, rtol=0)


def test_the_sound_has_no_effect_and_no_layers(pair: Pair) -> None:
    """Removing its layers changes nothing of the picture; the LoRA adapts the picture's ten layers a block."""
    import re

    names = [name for name, module in pair.ours.transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    assert not [name for name in names if re.search(r"blocks.*(audio|video_to)", name)]
    assert len([name for name in names if re.fullmatch(pair.ours.lora_targets["attention+ffn"], name)]) == 10


def test_a_training_step_has_the_input_of_ltx_2s_trainer(pair: Pair) -> None:
    """Clean tokens at time 0 where the mask gives them, noisy ones at the sample's time elsewhere, noise minus data, and no loss on given
    tokens (LTX-2 `ltx_trainer/training_strategies/flexible.py: _initialize_noisy_target, _apply_intrinsic_condition`)."""
    encoded = pair.ours.encode_sample(build_motion_sample(PICTURE, holes(False), "a red coat"))
    assert encoded.target is not None
    given, clean = pack(1 - encoded.hole), pack(encoded.target)
    noise, sigma = torch.randn(encoded.target.shape, generator=torch.Generator().manual_seed(1)), torch.tensor([0.6])
    noisy = 0.4 * encoded.target + 0.6 * noise
    calls: list[dict[str, Any]] = []
    handle = pair.ours.transformer.register_forward_pre_hook(lambda _, args, kwargs: calls.append(kwargs), with_kwargs=True)
    velocity = pair.ours.predict_velocity(noisy, sigma, encoded)
    handle.remove()
    torch.testing.assert_close(calls[0]["hidden_states"], torch.where(given > 0, clean, pack(noisy)))
    torch.testing.assert_close(calls[0]["timestep"] / 1000, (1 - given[..., 0]) * 0.6)
    torch.testing.assert_close(calls[0]["sigma"] / 1000, sigma)
    torch.testing.assert_close(pack(velocity)[given[..., 0] > 0], pack(noise - encoded.target)[given[..., 0] > 0], atol=1e-5, rtol=0)
