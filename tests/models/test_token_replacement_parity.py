"""Models without a mask channel against diffusers' own pipelines around the same modules: whole runs with frame 0 given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import FlowMatchEulerDiscreteScheduler, LTXConditionPipeline, LTXImageToVideoPipeline, WanImageToVideoPipeline
from diffusers.pipelines.ltx import pipeline_ltx_condition, pipeline_ltx_image2video

from lora_edit.conditioning.method import build_inference_sample
from lora_edit.generation.denoise import compute_sigmas as our_sigmas
from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.families.ltx.record import LTX_VIDEO
from lora_edit.models.families.token_replacement import TokenReplaceFamily
from lora_edit.models.families.wan_ti2v.record import WAN22_TI2V_5B
from lora_edit.models.family import EncodedSample
from tiny_replace import LATENTS, tiny_components, tiny_family
from tiny_wan import WIDTH

FRAMES, ROWS, COLUMNS, STEPS, SEED = 17, 64, 96, 4, 7
SETTINGS = GenerationSettings(steps=STEPS, shift=5.0, guidance_scale=3.5)
PICTURE = torch.rand((3, FRAMES, ROWS, COLUMNS), generator=torch.Generator().manual_seed(0)) * 2 - 1
SIZE: dict[str, Any] = {"height": ROWS, "width": COLUMNS, "num_frames": FRAMES, "num_inference_steps": STEPS, "guidance_scale": 3.5}


def euler() -> Any:
    """Our grid, whatever a pipeline asks for."""
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=5.0)
    grid = scheduler.set_timesteps

    def set_timesteps(
        num_inference_steps: Any = None, device: Any = None, sigmas: Any = None, mu: Any = None, timesteps: Any = None
    ) -> None:
        grid(sigmas=np.linspace(1, 0, STEPS + 1)[:-1])
        torch.testing.assert_close(scheduler.sigmas, our_sigmas(STEPS, 5.0), atol=1e-6, rtol=0)
        scheduler.sigmas = our_sigmas(STEPS, 5.0)
        scheduler.timesteps = 1000 * scheduler.sigmas[:-1]

    scheduler.set_timesteps = set_timesteps
    return scheduler


def first_given(family: TokenReplaceFamily) -> tuple[EncodedSample, EncodedSample]:
    """With a prompt and with another one."""
    mask = torch.ones(FRAMES, ROWS, COLUMNS, dtype=torch.bool)
    encoded = family.encode_sample(build_inference_sample(PICTURE, PICTURE[:, 0], mask, "a red coat"))
    return encoded, replace(encoded, prompt_embeds=family.encode_prompt("green"))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def ours(family: TokenReplaceFamily) -> torch.Tensor:
    """Latents of a whole run."""
    encoded, negative = first_given(family)
    return denoise(family, encoded, SETTINGS, seeded(), negative=negative)


def test_wan_ti2v_runs_as_the_stock_pipeline() -> None:
    """From the same grid and first frame, what is generated is equal to the last bit; frame 0, which it pastes back, to rounding."""
    parts = tiny_components(WAN22_TI2V_5B)
    family = tiny_family(WAN22_TI2V_5B, parts)
    stock: Any = WanImageToVideoPipeline(
        parts.tokenizer, parts.text_encoder, parts.vae, euler(), None, None, parts.transformers[0], expand_timesteps=True
    )
    stock.set_progress_bar_config(disable=True)
    stock.check_inputs = lambda *args, **kwargs: None
    encoded, negative = first_given(family)
    prepare = stock.prepare_latents

    def prepared(*args: Any) -> Any:
        latents, condition, mask = prepare(*args)
        torch.testing.assert_close(encoded.condition[:, :, :1], condition, atol=1e-5, rtol=0)
        assert torch.equal(encoded.hole, mask)
        return latents, encoded.condition[:, :, :1], mask

    stock.prepare_latents = prepared
    theirs = stock(
        image=PICTURE[None, :, 0] * 0.5 + 0.5, prompt_embeds=encoded.prompt_embeds, negative_prompt_embeds=negative.prompt_embeds,
        latents=torch.randn((1, LATENTS, 5, 4, 6), generator=seeded()), output_type="latent", **SIZE,
    ).frames  # fmt: skip
    found = ours(family)
    assert torch.equal(found[:, :, 1:], theirs[:, :, 1:])
    torch.testing.assert_close(found[:, :, :1], theirs[:, :, :1], atol=1e-5, rtol=0)
    assert torch.equal(theirs[:, :, :1], encoded.condition[:, :, :1])


class LtxPair:
    """LTX-Video as ours and as the stock pipeline of its version, with the posterior's mode."""

    def __init__(self, newer: bool, patch: pytest.MonkeyPatch) -> None:
        parts = tiny_components(LTX_VIDEO, newer=newer)
        self.module: Any = pipeline_ltx_condition if newer else pipeline_ltx_image2video
        self.ours, self.newer = tiny_family(LTX_VIDEO, parts), newer
        kind: Any = LTXConditionPipeline if newer else LTXImageToVideoPipeline
        self.stock = kind(euler(), parts.vae, parts.text_encoder, parts.tokenizer, parts.transformers[0])
        self.stock.set_progress_bar_config(disable=True)
        patch.setattr(self.module, "retrieve_latents", lambda encoded, *_, **__: encoded.latent_dist.mode())

    def run(self, **options: Any) -> Any:
        """The stock run: 128 padded tokens and their mask; no noise on what is given."""
        encoded, negative = first_given(self.ours)
        texts: dict[str, torch.Tensor] = {}
        for name, each in (("prompt", encoded), ("negative_prompt", negative)):
            length = each.prompt_embeds.shape[1]
            # What stands in the padding is not seen.
            texts[f"{name}_embeds"] = F.pad(each.prompt_embeds, (0, 0, 0, 128 - length), value=3.0)
            texts[f"{name}_attention_mask"] = (torch.arange(128) < length)[None]
        calm = {"image_cond_noise_scale": 0.0} if self.newer else {}
        return self.stock(
            image=PICTURE[None, :, 0] * 0.5 + 0.5, generator=seeded(), frame_rate=25, **SIZE, **texts, **calm, **options
        ).frames

    def unpacked(self, latents: torch.Tensor) -> torch.Tensor:
        """The older pipeline returns a row of tokens."""
        return latents if self.newer else self.stock._unpack_latents(latents, 3, 2, 3)


@pytest.fixture(params=[False, True], ids=["0.9.0", "0.9.5"])
def ltx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> LtxPair:
    return LtxPair(request.param, monkeypatch)


def test_ltx_runs_as_the_stock_pipeline(ltx: LtxPair) -> None:
    """Of its version: positions in time changed with 0.9.5."""
    torch.testing.assert_close(ours(ltx.ours), ltx.unpacked(ltx.run(output_type="latent")), atol=1e-5, rtol=0)


def test_ltx_positions_follow_its_version(ltx: LtxPair) -> None:
    """The other version's positions give another clip, by far more than rounding."""
    family: Any = ltx.ours
    right = ours(family)
    family.causal_fix = not family.causal_fix
    assert (ours(family) - right).abs().max() > 1e-3


def test_ltx_decodes_as_the_stock_pipeline(ltx: LtxPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since 0.9.1 with a little noise and its time; the same noise every time."""
    if ltx.newer:
        draws = iter([seeded(), torch.Generator().manual_seed(0)])
        monkeypatch.setattr(ltx.module, "randn_tensor", lambda shape, **_: torch.randn(shape, generator=next(draws)))
    theirs = ltx.run(output_type="pt", decode_timestep=0.05, decode_noise_scale=0.025)[0].transpose(0, 1) * 2 - 1
    latents = ours(ltx.ours)
    assert torch.equal(ltx.ours.decode(latents), ltx.ours.decode(latents))
    torch.testing.assert_close(ltx.ours.decode(latents), theirs, atol=1e-4, rtol=0)


def test_ltx_prompts_are_their_real_tokens(ltx: LtxPair) -> None:
    """With the end token; the padding is masked in the text encoder, as in upstream's own pipeline."""
    for prompt, tokens in (("a red coat", 4), ("", 1), ("red " * 200, 128)):
        found = ltx.ours.encode_prompt(prompt)
        assert found.shape == (1, tokens, WIDTH)
        text = ltx.stock.tokenizer([prompt.strip()], max_length=128, truncation=True, return_tensors="pt")
        with torch.no_grad():
            torch.testing.assert_close(found, ltx.stock.text_encoder(text.input_ids).last_hidden_state, atol=1e-5, rtol=0)
