"""Our conditioning and loops against diffusers' own pipeline, with the real classes at tiny random size."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)

from lora_edit.conditioning.method import build_inference_sample, build_motion_sample
from lora_edit.conditioning.sample import Sample
from lora_edit.generation.denoise import compute_sigmas, denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.families.base import FamilyParts
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.models.families.wan.encoders import WanAutoencoder
from lora_edit.models.record import Geometry
from lora_edit.models.runtime.device_manager import DeviceManager
from tiny_random import random_record
from upstream import agree

FRAMES, HEIGHT, WIDTH, TEXT = 9, 32, 48, 12


@pytest.fixture(scope="module")
def family() -> WanFamily:
    """Wan 2.1 I2V with CLIP image tokens, every size tiny, random weights."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]).eval()
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=36, out_channels=16, text_dim=16, freq_dim=16,
        ffn_dim=32, num_layers=2, image_dim=8, added_kv_proj_dim=24, rope_max_seq_len=32,
    ).eval()  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    prompt, image = torch.randn(1, TEXT, 16, generator=generator), torch.randn(1, 257, 8, generator=generator)
    return WanFamily(
        FamilyParts(
            random_record("wan-random", Geometry(8, 4, 16, 81, HEIGHT * WIDTH)),
            transformer,
            WanAutoencoder(vae),
            lambda _: prompt,
            lambda _: image,
            DeviceManager(torch.device("cpu")),
            torch.float32,
        )
    )


@pytest.fixture(scope="module")
def stock(family: WanFamily) -> WanImageToVideoPipeline:
    """diffusers' pipeline around the same modules."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=5.0)
    parts = family.parts
    pipeline = WanImageToVideoPipeline(None, None, parts.autoencoder.vae, scheduler, None, None, parts.transformer)  # type: ignore[attr-defined]
    pipeline.set_progress_bar_config(disable=True)
    pipeline.check_inputs = lambda *args, **kwargs: None  # it refuses a picture beside its embeddings
    return pipeline


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random pixels in [-1, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_default_condition_equals_the_stock_pipelines(family: WanFamily, stock: WanImageToVideoPipeline) -> None:
    """With everything after frame 0 to generate, our condition is what `prepare_latents` builds."""
    clip = pixels(3, FRAMES, HEIGHT, WIDTH)
    ours = family.encode_sample(build_motion_sample(clip, torch.ones(FRAMES, HEIGHT, WIDTH, dtype=torch.bool))).condition
    _, theirs = stock.prepare_latents(clip[None, :, 0], 1, 16, HEIGHT, WIDTH, FRAMES, torch.float32, torch.device("cpu"), torch.Generator())
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_sampler_equals_the_stock_pipeline_with_its_condition_channels_overwritten(
    family: WanFamily, stock: WanImageToVideoPipeline, guidance: float
) -> None:
    """A hook puts a user's V_cond and M_cond into the stock pipeline; latents agree."""
    clip, edited = pixels(3, FRAMES, HEIGHT, WIDTH), pixels(3, HEIGHT, WIDTH, seed=3)
    mask = torch.zeros(FRAMES, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, 8:24, 16:32] = True
    encoded = family.encode_sample(build_inference_sample(clip, edited, mask))
    settings = GenerationSettings(steps=4, shift=5.0, guidance_scale=guidance)
    negative = replace(encoded, prompt_embeds=encoded.prompt_embeds * 0.5)
    ours = denoise(family, encoded, settings, torch.Generator().manual_seed(7), negative=negative)

    def overwrite(
        module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, torch.Tensor]
    ) -> tuple[object, dict[str, torch.Tensor]]:
        kwargs["hidden_states"] = torch.cat([kwargs["hidden_states"][:, :16], encoded.condition], 1)
        return args, kwargs

    start = torch.randn((1, 16, 3, HEIGHT // 8, WIDTH // 8), generator=torch.Generator().manual_seed(7))
    stock.scheduler.set_timesteps(sigmas=np.linspace(1, 0, 5)[:-1])
    original = stock.scheduler.set_timesteps
    stock.scheduler.set_timesteps = lambda *a, **k: original(sigmas=np.linspace(1, 0, 5)[:-1])  # type: ignore[method-assign]
    handle = family.transformer.register_forward_pre_hook(overwrite, with_kwargs=True)
    try:
        theirs = stock(
            image=pixels(1, 3, HEIGHT, WIDTH) * 0.5 + 0.5, height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=4,
            guidance_scale=guidance, latents=start, prompt_embeds=encoded.prompt_embeds, negative_prompt_embeds=negative.prompt_embeds,
            image_embeds=encoded.image_embeds, output_type="latent",
        ).frames  # fmt: skip
    finally:
        handle.remove()
        stock.scheduler.set_timesteps = original  # type: ignore[method-assign]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_sampler_equals_a_subclass_of_the_stock_pipeline(family: WanFamily, stock: WanImageToVideoPipeline) -> None:
    """One that returns a user's condition from `prepare_latents`, and is a stock pipeline otherwise."""
    clip, edited = pixels(3, FRAMES, HEIGHT, WIDTH), pixels(3, HEIGHT, WIDTH, seed=3)
    mask = torch.zeros(FRAMES, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, 8:24, 16:32] = True
    encoded = family.encode_sample(build_inference_sample(clip, edited, mask))

    class Edit(WanImageToVideoPipeline):  # type: ignore[misc]
        """A user's masks and frames."""

        def prepare_latents(self, *args: object, **kwargs: object) -> tuple[torch.Tensor, torch.Tensor]:
            """Noise and condition."""
            noise = torch.randn((1, 16, 3, HEIGHT // 8, WIDTH // 8), generator=torch.Generator().manual_seed(7))
            return noise, encoded.condition

        def check_inputs(self, *args: object, **kwargs: object) -> None:
            """It refuses a picture beside its embeddings."""

    theirs = Edit(None, None, stock.vae, FlowMatchEulerDiscreteScheduler(shift=5.0), None, None, family.transformer)
    theirs.set_progress_bar_config(disable=True)
    grid = theirs.scheduler.set_timesteps
    theirs.scheduler.set_timesteps = lambda *args, **kwargs: grid(sigmas=np.linspace(1, 0, 5)[:-1])
    latents = theirs(
        image=edited[None] * 0.5 + 0.5, height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=4, guidance_scale=1.0,
        prompt_embeds=encoded.prompt_embeds, image_embeds=encoded.image_embeds, output_type="latent",
    ).frames  # fmt: skip
    settings = GenerationSettings(steps=4, shift=5.0, guidance_scale=1.0)
    torch.testing.assert_close(denoise(family, encoded, settings, torch.Generator().manual_seed(7)), latents, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("steps", "shift", "guidance"), [(6, 3.0, 5.0), (4, 5.0, 1.0), (1, 3.0, 1.0)])
def test_unipc_equals_the_stock_pipeline(
    family: WanFamily, stock: WanImageToVideoPipeline, steps: int, shift: float, guidance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A whole run with the scheduler that Wan's checkpoints carry, the first frame given, as that pipeline gives it."""
    edited = pixels(3, HEIGHT, WIDTH, seed=3)
    clip = torch.zeros(3, FRAMES, HEIGHT, WIDTH)
    encoded = family.encode_sample(build_inference_sample(clip, edited, torch.ones(FRAMES, HEIGHT, WIDTH, dtype=torch.bool)))
    negative = replace(encoded, prompt_embeds=encoded.prompt_embeds + 0.5)
    settings = GenerationSettings(steps=steps, shift=shift, guidance_scale=guidance, sampler="unipc")
    ours = denoise(family, encoded, settings, torch.Generator().manual_seed(7), negative=negative)
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    monkeypatch.setattr(stock, "scheduler", scheduler)
    start = torch.randn((1, 16, *encoded.latent_shape), generator=torch.Generator().manual_seed(7))
    theirs = stock(
        image=edited[None] * 0.5 + 0.5, height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=steps, guidance_scale=guidance,
        latents=start, prompt_embeds=encoded.prompt_embeds, negative_prompt_embeds=negative.prompt_embeds,
        image_embeds=encoded.image_embeds, output_type="latent",
    ).frames  # fmt: skip
    agree(ours, theirs, 1e-5)
    euler = denoise(family, encoded, settings.model_copy(update={"sampler": "euler"}), torch.Generator().manual_seed(7), negative=negative)
    assert (euler - ours).abs().max() > (1e-2 if steps > 1 else 0)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_time_grid_equals_the_scheduler_given_explicit_sigmas(shift: float) -> None:
    """Euler's grid, last zero included."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 0, 31)[:-1])
    torch.testing.assert_close(compute_sigmas(30, shift), scheduler.sigmas, atol=1e-6, rtol=0)


def test_changing_the_first_frame_reencodes_everything(family: WanFamily) -> None:
    """The mask channels stay; the latents are those of a full encode of the changed video."""
    clip, edited = pixels(3, FRAMES, HEIGHT, WIDTH), pixels(3, HEIGHT, WIDTH, seed=9)
    mask = torch.zeros(FRAMES, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, 8:24, 16:32] = True
    before, sample = family.encode_sample(build_motion_sample(clip, mask)).condition, build_inference_sample(clip, edited, mask)
    after = family.encode_sample(sample).condition
    assert torch.equal(before[:, :4], after[:, :4])
    assert torch.equal(after[:, 4:], family.parts.autoencoder.encode(sample.v_cond[None]))
    assert not torch.equal(before[:, 4:], after[:, 4:])


@pytest.mark.parametrize("build", [build_motion_sample, build_inference_sample])
def test_nothing_hidden_reaches_the_latents(family: WanFamily, build: Callable[..., Sample]) -> None:
    """Other source pixels inside the hole: condition, mask and picture tokens stay the same bit for bit; one pixel outside changes them."""
    clip, edited = pixels(3, FRAMES, HEIGHT, WIDTH), pixels(3, HEIGHT, WIDTH, seed=3)
    mask = torch.zeros(FRAMES, HEIGHT, WIDTH, dtype=torch.bool)
    mask[:, 8:24, 16:32] = True
    mask[0] = False
    hidden, seen = clip.clone(), clip.clone()
    hidden[:, mask] = -clip[:, mask]
    seen[:, 5, 0, 0] = -clip[:, 5, 0, 0]
    more = (edited, mask) if build is build_inference_sample else (mask,)
    first, same, other = (family.encode_sample(build(each, *more)).condition for each in (clip, hidden, seen))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_the_autoencoder_is_causal(family: WanFamily) -> None:
    """Frames from 5 on do not touch the first two latent frames; frame 0 touches every one."""
    clip = pixels(3, 13, HEIGHT, WIDTH)
    later, first = clip.clone(), clip.clone()
    later[:, 5:], first[:, 0] = pixels(3, 8, HEIGHT, WIDTH, seed=4), pixels(3, HEIGHT, WIDTH, seed=5)
    before, after, swapped = (family.parts.autoencoder.encode(each[None]) for each in (clip, later, first))
    assert torch.equal(before[:, :, :2], after[:, :, :2]) and not torch.equal(before[:, :, 2], after[:, :, 2])
    assert all(not torch.equal(before[:, :, n], swapped[:, :, n]) for n in range(4))


def test_lora_targets_are_the_references(family: WanFamily) -> None:
    """Ten linears a block with the feed-forward layers, eight without, none of the image keys and values."""
    names = [name for name, module in family.transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    counts = {kind: sum(bool(re.fullmatch(pattern, name)) for name in names) for kind, pattern in family.lora_targets.items()}
    assert counts == {"attention+ffn": 20, "attention": 16, "query+key": 8}
    assert not any(re.fullmatch(family.lora_targets["attention+ffn"], name) for name in names if "add_" in name)
