"""Wan's relatives against diffusers' own pipelines around the same modules: conditions, encoders, and whole runs."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SkyReelsV2ImageToVideoPipeline, WanImageToVideoPipeline
from diffusers.pipelines.skyreels_v2 import pipeline_skyreels_v2_i2v
from diffusers.pipelines.wan import pipeline_wan_i2v
from PIL import Image
from transformers import CLIPImageProcessor

from lora_edit.conditioning.method import build_inference_sample, build_motion_sample
from lora_edit.conditioning.sample import Sample
from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.families.wan.encoders import clean_prompt, get_last_image, resize_for_clip
from lora_edit.models.families.wan.loading import Components, build_wan
from lora_edit.models.record import ModelRecord
from tiny_wan import TOKENS, WANS, WIDTH, tiny_components

FRAMES, ROWS, COLUMNS, STEPS = 9, 32, 48, 4
CPU = torch.device("cpu")
NAMES = ("wan2.1-i2v-480p", "wan2.1-flf2v", "wan2.1-fun-1.3b", "skyreels-v2-i2v", "wan2.2-i2v-a14b", "wan2.2-fun-a14b")


class Pair:
    """One model as ours and as diffusers' pipeline."""

    def __init__(self, record: ModelRecord) -> None:
        self.record, self.parts = record, tiny_components(record)
        self.ours: Any = build_wan(self.parts, record, CPU, torch.float32)
        self.stock = stock_pipeline(record, self.parts)


def stock_pipeline(record: ModelRecord, parts: Components) -> Any:
    """The pipeline that the model is published with, on Euler's grid."""
    shared = {
        "tokenizer": parts.tokenizer, "text_encoder": parts.text_encoder, "vae": parts.vae, "image_encoder": parts.image_encoder,
        "image_processor": None, "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0), "transformer": parts.transformers[0],
    }  # fmt: skip
    if record.name.startswith("skyreels"):
        pipeline: Any = SkyReelsV2ImageToVideoPipeline(**shared)
    else:
        low = parts.transformers[1] if len(parts.transformers) == 2 else None
        pipeline = WanImageToVideoPipeline(**shared, transformer_2=low, boundary_ratio=record.boundary_ratio)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.check_inputs = lambda *args, **kwargs: None  # it refuses a picture beside its embeddings
    timesteps = pipeline.scheduler.set_timesteps
    pipeline.scheduler.set_timesteps = lambda *args, **kwargs: timesteps(sigmas=np.linspace(1, 0, STEPS + 1)[:-1])
    return pipeline


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest) -> Pair:
    """Each model once."""
    return Pair(WANS[request.param])


@pytest.fixture(scope="module")
def both_ends() -> Pair:
    """The model that takes the last frame."""
    return Pair(WANS["wan2.1-flf2v"])


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    """Random pixels in [-1, 1]."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def whole_edit(record: ModelRecord, clip: torch.Tensor) -> Sample:
    """Generate everything but the given images, as the stock pipelines do."""
    mask = torch.ones(FRAMES, ROWS, COLUMNS, dtype=torch.bool)
    anchors = {FRAMES - 1: clip[:, -1]} if record.last_frame else {}
    return build_inference_sample(clip, clip[:, 0], mask, "a red coat", anchors)


def test_the_condition_equals_the_stock_pipelines(pair: Pair) -> None:
    """Mask channels and latents; the last frame is kept too where there is one."""
    clip = pixels(3, FRAMES, ROWS, COLUMNS)
    last = clip[None, :, -1] if pair.record.last_frame else None
    _, theirs = pair.stock.prepare_latents(
        clip[None, :, 0], 1, 16, ROWS, COLUMNS, FRAMES, torch.float32, CPU, torch.Generator(), None, last
    )
    ours = pair.ours.encode_sample(whole_edit(pair.record, clip)).condition
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_whole_run_equals_the_stock_pipelines(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """From prompts to latents with guidance; experts change where theirs do."""
    for module in (pipeline_wan_i2v, pipeline_skyreels_v2_i2v):
        monkeypatch.setattr(module, "prompt_clean", lambda text: text)  # it needs ftfy
    clip = pixels(3, FRAMES, ROWS, COLUMNS)
    asked: list[tuple[int, float]] = []
    handles = [
        transformer.register_forward_pre_hook(lambda _, args, kw, n=n: asked.append((n, kw["timestep"].item())), with_kwargs=True)
        for n, transformer in enumerate(pair.parts.transformers)
    ]
    last = {"last_image": clip[None, :, -1] * 0.5 + 0.5} if pair.record.last_frame else {}
    encoded = pair.ours.encode_sample(whole_edit(pair.record, clip))
    theirs = pair.stock(
        image=clip[None, :, 0] * 0.5 + 0.5, prompt="a red coat", negative_prompt="green", height=ROWS, width=COLUMNS, num_frames=FRAMES,
        num_inference_steps=STEPS, guidance_scale=3.5, image_embeds=encoded.image_embeds, output_type="latent", max_sequence_length=512,
        latents=torch.randn((1, 16, 3, ROWS // 8, COLUMNS // 8), generator=torch.Generator().manual_seed(7)), **last,
    ).frames  # fmt: skip
    for handle in handles:
        handle.remove()
    settings = GenerationSettings(steps=STEPS, shift=5.0, guidance_scale=3.5)
    negative = type(encoded)(**{**vars(encoded), "prompt_embeds": pair.ours.encode_prompt("green")})
    ours = denoise(pair.ours, encoded, settings, torch.Generator().manual_seed(7), negative=negative)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    if pair.record.boundary_ratio is not None:
        assert [n for n, _ in asked] == [0] * 4 + [1] * 4, "two steps by each expert, two passes a step"
        for n, time in asked:
            assert pair.ours.select_expert(torch.tensor([time / 1000])) is pair.ours.experts()[n]


def test_prompts_are_encoded_as_by_the_stock_pipeline(both_ends: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """512 tokens, zero behind the real ones, also for a prompt that is too long; the pipeline's own default of 226 would not do."""
    monkeypatch.setattr(pipeline_wan_i2v, "prompt_clean", lambda text: text)
    for prompt, tokens in (("a red coat", 3), ("", 0), ("red " * 600, 512)):
        ours = both_ends.ours.encode_prompt(prompt)
        assert ours.shape == (1, 512, WIDTH)
        torch.testing.assert_close(ours, both_ends.stock._get_t5_prompt_embeds(prompt.strip(), max_sequence_length=512), atol=1e-6, rtol=0)
        assert not ours[:, tokens:].any() and (tokens == 0 or bool(ours[:, tokens - 1].any()))


def test_prompts_are_cleaned_as_by_the_stock_pipeline() -> None:
    """Where ftfy is installed, which it needs and we do not."""
    pytest.importorskip("ftfy")
    for prompt in ("  a \n red\tcoat ", "“quoted” and ‘so’", "R&amp;D &amp;lt;3", "cafe\u0301", "", "镜头晃动，红色　ＯＫ", "a ﬁne coat"):
        assert clean_prompt(prompt) == pipeline_wan_i2v.prompt_clean(prompt)


def test_pictures_are_stretched_not_cropped() -> None:
    """Near CLIP's own processor told to stretch; far from it as it is, which cuts the sides off a wide frame."""
    rows, columns = torch.meshgrid(torch.linspace(0, 6, 240), torch.linspace(0, 11, 416), indexing="ij")
    picture = torch.stack([torch.sin(rows + k) * torch.cos(columns * (1 + k / 3)) for k in range(3)])
    image = Image.fromarray(((picture.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy())
    processor = CLIPImageProcessor()
    stretched = processor(image, size={"height": 224, "width": 224}, do_center_crop=False, return_tensors="pt")["pixel_values"]
    cropped = processor(image, return_tensors="pt")["pixel_values"]
    ours = resize_for_clip(picture[None], 224)
    assert (ours - stretched).abs().mean() < 0.02 < 0.2 < (ours - cropped).abs().mean()


def test_the_image_encoder_gives_its_last_but_one_layer(both_ends: Pair) -> None:
    """Of the first picture and the last, in this order, one row each."""
    clip = pixels(3, FRAMES, ROWS, COLUMNS)
    embeds = both_ends.ours.encode_sample(whole_edit(both_ends.record, clip)).image_embeds
    encoder: Any = both_ends.parts.image_encoder
    shown = resize_for_clip(torch.stack([clip[:, 0], clip[:, -1]]), encoder.config.image_size)
    with torch.no_grad():
        torch.testing.assert_close(embeds, encoder(shown, output_hidden_states=True).hidden_states[-2])
    assert embeds is not None and embeds.shape == (2, TOKENS, WIDTH)


def test_a_withheld_last_frame_is_not_encoded() -> None:
    """A single edited frame, or a baseline that withholds it: the first picture stands in."""
    clip, mask = pixels(3, 5, 16, 16), torch.ones(5, 16, 16, dtype=torch.bool)
    assert torch.equal(get_last_image(build_motion_sample(clip, mask)), clip[:, 0])
    assert torch.equal(get_last_image(build_motion_sample(clip[:, :1], mask[:1])), clip[:, 0])
    mask[-1] = False
    assert torch.equal(get_last_image(build_motion_sample(clip, mask)), clip[:, -1])


def test_the_same_layers_are_adapted_in_every_relative(pair: Pair) -> None:
    """Ten linears a block; image keys and values never, whether the model has them or not."""
    for expert in pair.ours.experts():
        names = [name for name, module in expert.transformer.named_modules() if isinstance(module, torch.nn.Linear)]
        chosen = [name for name in names if re.fullmatch(expert.lora_targets["attention+ffn"], name)]
        assert len(chosen) == 10 and not any("add_" in name for name in chosen)
        assert any("add_k_proj" in name for name in names) == pair.record.image_encoder


def test_padded_clips_encode_the_real_last_frame(both_ends: Pair) -> None:
    """The autoencoder takes whole groups and drops what is over: the copies that fill the last group are given as well."""
    clip = pixels(3, FRAMES, ROWS, COLUMNS)
    vae = both_ends.ours.parts.autoencoder
    assert vae.encode(clip[None, :, :8]).shape[2] == 2, "three frames dropped without a word"
    sample = build_inference_sample(
        clip, clip[:, 0], torch.ones(FRAMES, ROWS, COLUMNS, dtype=torch.bool), "", {7: clip[:, 7], 8: clip[:, 7]}
    )
    mask = both_ends.ours.encode_sample(sample).condition[0, :4]
    assert mask[:, 0].all() and mask[:, 2].mean((1, 2)).tolist() == [0, 0, 1, 1] and not mask[:, 1].any()
