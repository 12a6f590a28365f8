"""HunyuanVideo against diffusers' own pipelines around the same modules, and against the publisher's training loss."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideoImageToVideoPipeline,
)
from PIL import Image
from torch import nn

from lora_edit.conditioning.method import build_inference_sample, build_motion_sample
from lora_edit.conditioning.sample import Sample
from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.families.hunyuan.conditioning import encode_condition
from lora_edit.models.families.hunyuan.encoders import GLYPH_MAX_LENGTH, pack_text, to_pil_image, unpack_text
from lora_edit.models.families.hunyuan.loading import HunyuanComponents, build_hunyuan
from lora_edit.models.family import EncodedSample
from lora_edit.models.record import ModelRecord
from lora_edit.training.noise import add_noise, draw_time
from lora_edit.video.ranges import to_signed
from tiny_hunyuan import GLYPHS, HUNYUANS, POOLED, WIDTH, tiny_components
from upstream import skip_reason

FRAMES, ROWS, COLUMNS, STEPS, SHIFT = 9, 48, 80, 4, 7.0
CPU = torch.device("cpu")
UPSTREAM = Path(os.environ.get("LORA_EDIT_UPSTREAM", "nowhere")) / "HunyuanVideo-I2V"
PROMPTS = ("a red coat", "", 'a red coat says "HI" and “NO”, "HI"', "red " * 1200)


class Pair:
    """One model as ours and as diffusers' pipeline."""

    def __init__(self, record: ModelRecord) -> None:
        self.record, self.parts = record, tiny_components(record)
        self.ours: Any = build_hunyuan(self.parts, record, CPU, torch.float32)
        self.stock = stock_pipeline(self.parts)


def stock_pipeline(parts: HunyuanComponents) -> Any:
    """The pipeline that the model is published with."""
    shared = {
        "transformer": parts.transformer, "vae": parts.vae, "scheduler": FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        "text_encoder": parts.text_encoder, "tokenizer": parts.tokenizer, "text_encoder_2": parts.text_encoder_2,
        "tokenizer_2": parts.tokenizer_2,
    }  # fmt: skip
    if parts.image_encoder is None:
        pipeline: Any = HunyuanVideoImageToVideoPipeline(**shared, image_processor=parts.processor)
    else:
        pipeline = HunyuanVideo15ImageToVideoPipeline(
            **shared,
            guider=ClassifierFreeGuidance(guidance_scale=2.5),
            image_encoder=parts.image_encoder,
            feature_extractor=parts.processor,
        )
        pipeline.target_size = 64  # its smallest sizes are then 48x80 and the like
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module", params=sorted(HUNYUANS))
def pair(request: pytest.FixtureRequest) -> Pair:
    """Each model once."""
    return Pair(HUNYUANS[request.param])


@pytest.fixture(scope="module")
def pairs() -> dict[str, Pair]:
    """All of them, for tests of what is one model's alone."""
    return {name: Pair(record) for name, record in HUNYUANS.items()}


def clip(frames: int = FRAMES, rows: int = ROWS, columns: int = COLUMNS, seed: int = 0) -> torch.Tensor:
    """Return random frames with values of uint8, `[3, T, H, W]`."""
    return to_signed(torch.randint(0, 256, (frames, rows, columns, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8))


def whole_edit(source: torch.Tensor, prompt: str = "a red coat") -> Sample:
    """Generate everything behind the first frame, as the stock pipelines do."""
    return build_inference_sample(source, source[:, 0], torch.ones(source.shape[1:], dtype=torch.bool), prompt)


def image_of(source: torch.Tensor) -> Image.Image:
    """Return the first frame in a pipeline's format."""
    return to_pil_image(source[:, 0])


def test_the_condition_equals_the_stock_pipelines(pair: Pair) -> None:
    """Latents of the first frame alone, zeros behind, and the mask last; the 16-channel model has no mask."""
    source = clip()
    ours = pair.ours.encode_sample(whole_edit(source)).condition
    z, shape = (
        pair.ours.z_dim,
        (1, pair.ours.z_dim, 3, ROWS // pair.record.geometry.spatial_compression, COLUMNS // pair.record.geometry.spatial_compression),
    )
    if pair.record.image_encoder:
        latents, mask = pair.stock.prepare_cond_latents_and_mask(torch.zeros(shape), image_of(source), 1, ROWS, COLUMNS, torch.float32, CPU)
    else:
        _, latents = pair.stock.prepare_latents(
            source[None, :, 0], 1, z, ROWS, COLUMNS, FRAMES, torch.float32, CPU, latents=torch.zeros(shape)
        )
        latents[:, :, 1:] = 0
        mask = torch.zeros_like(latents[:, :1])
        mask[:, :, 0] = 1
    assert latents[:, :, 0].std() > 0.01
    torch.testing.assert_close(ours, torch.cat([latents, mask], 1) if pair.record.spatial_mask else latents, atol=1e-6, rtol=0)


def run_stock(pair: Pair, source: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Latents of a whole run that starts at `noise`; the first version's mixes the picture in, which is undone before."""
    given: dict[str, Any] = {
        "image": image_of(source), "prompt": "a red coat", "negative_prompt": "green", "num_frames": FRAMES,
        "num_inference_steps": STEPS, "output_type": "latent",
    }  # fmt: skip
    if pair.record.image_encoder:
        return pair.stock(**given, latents=noise).frames
    still = pair.ours.parts.autoencoder.encode(source[None, :, :1])
    mixed = torch.tensor(0.999)
    latents = (noise - still * (1 - mixed)) / mixed
    return pair.stock(**given, latents=latents, height=ROWS, width=COLUMNS, true_cfg_scale=2.5, guidance_scale=6.0).frames


def test_a_whole_run_equals_the_stock_pipelines(pair: Pair) -> None:
    """From prompts and image to latents with guidance, all frames; the stock pipeline of 33 channels drops the first latent."""
    source = clip()
    encoded = pair.ours.encode_sample(whole_edit(source))
    shape = (1, pair.ours.z_dim, *encoded.latent_shape)
    theirs = run_stock(pair, source, torch.randn(shape, generator=torch.Generator().manual_seed(7)))
    negative = EncodedSample(**{**vars(encoded), "prompt_embeds": pair.ours.encode_prompt("green")})
    settings = GenerationSettings(steps=STEPS, shift=SHIFT, guidance_scale=2.5)
    ours = denoise(pair.ours, encoded, settings, torch.Generator().manual_seed(7), negative=negative)
    dropped = ours.shape[2] - theirs.shape[2]
    assert dropped == (pair.record.name == "hunyuan-i2v")
    torch.testing.assert_close(ours[:, :, dropped:], theirs, atol=1e-5, rtol=1e-5)
    assert pair.ours.decode(ours).shape == (3, FRAMES, ROWS, COLUMNS), "every frame of the source has one of the result"


def test_the_first_frame_ends_at_its_clean_latents(pairs: dict[str, Pair]) -> None:
    """In the model that replaces it, by the loop that all models share."""
    ours: Any = pairs["hunyuan-i2v-16"].ours
    encoded = ours.encode_sample(whole_edit(clip()))
    latents = denoise(ours, encoded, GenerationSettings(steps=STEPS, shift=SHIFT, guidance_scale=1), torch.Generator().manual_seed(7))
    torch.testing.assert_close(latents[:, :, 0], encoded.condition[:, :, 0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("prompt", PROMPTS, ids=["plain", "empty", "quoted", "long"])
def test_prompts_are_encoded_as_by_the_stock_pipelines(pairs: dict[str, Pair], prompt: str) -> None:
    """Without the stock's padding; the first version's prompt holds the image, by every second or fourth token."""
    source = clip()
    for name in ("hunyuan-i2v", "hunyuan-i2v-16"):
        pair, every = pairs[name], 2 if name == "hunyuan-i2v" else 4
        rows, pooled, mask = pair.stock.encode_prompt(image_of(source), prompt, image_embed_interleave=every)
        ours = unpack_text(pair.ours.encode_sample(whole_edit(source, prompt)).prompt_embeds, WIDTH, POOLED)
        torch.testing.assert_close(ours[0], rows[mask > 0.5][None], atol=2e-6, rtol=0)
        torch.testing.assert_close(ours[1][:, 0], pooled, atol=1e-6, rtol=0)
        assert 576 // every < ours[0].shape[1] <= 576 // every + 256
    pair = pairs["hunyuan-1.5-i2v"]
    rows, mask, glyphs, glyph_mask = pair.stock.encode_prompt(prompt, batch_size=1)
    ours = unpack_text(pair.ours.encode_prompt(prompt), WIDTH, GLYPHS)
    torch.testing.assert_close(ours[0], rows[mask > 0.5][None], atol=2e-6, rtol=0)
    torch.testing.assert_close(ours[1], glyphs[glyph_mask > 0.5][None], atol=2e-6, rtol=0)
    assert (ours[1].shape[1] > 0) == ('"' in prompt) and ours[1].shape[1] <= GLYPH_MAX_LENGTH


def test_a_negative_prompt_uses_a_black_image(pairs: dict[str, Pair]) -> None:
    """As in diffusers, where half the picture's tokens are kept then in both models."""
    for name in ("hunyuan-i2v", "hunyuan-i2v-16"):
        rows, _, mask = pairs[name].stock.encode_prompt(Image.new("RGB", (COLUMNS, ROWS)), "green")
        ours = unpack_text(pairs[name].ours.encode_prompt("green"), WIDTH, POOLED)[0]
        torch.testing.assert_close(ours, rows[mask > 0.5][None], atol=2e-6, rtol=0)


def test_the_encoders_take_the_current_first_frame(pair: Pair) -> None:
    """The edited one at inference: other tokens than with the source's; a clip that differs elsewhere changes nothing."""

    def seen(source: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        encoded = pair.ours.encode_sample(
            build_inference_sample(source, first, torch.ones(source.shape[1:], dtype=torch.bool), "a red coat")
        )
        return encoded.prompt_embeds if encoded.image_embeds is None else encoded.image_embeds

    source, other = clip(), clip(seed=1)
    assert not torch.equal(seen(source, source[:, 0]), seen(source, other[:, 0]))
    assert torch.equal(seen(source, other[:, 0]), seen(other, other[:, 0]))


def test_packed_text_is_unpacked_exactly() -> None:
    """Whichever is wider, and with no rows of the second."""
    for wide, narrow, rows in ((16, 8, 3), (8, 16, 3), (16, 8, 0)):
        first, second = torch.randn(1, 5, wide), torch.randn(1, rows, narrow)
        packed = pack_text(first, second)
        assert packed.shape == (1, 5 + rows, 17)
        for was, now in zip((first, second), unpack_text(packed.bfloat16(), wide, narrow), strict=True):
            assert torch.equal(was.bfloat16(), now)


def hole(frames: int = FRAMES) -> torch.Tensor:
    """A region that ends within cells."""
    mask = torch.zeros(frames, ROWS, COLUMNS, dtype=torch.bool)
    mask[3:, 10:34, 20:52] = True
    return mask


def test_nothing_hidden_reaches_the_condition(pair: Pair) -> None:
    """Source pixels in the region of later frames change no bit of the input; those outside do, where there is a mask."""
    source, mask = clip(), hole()
    inside, outside = source.clone(), source.clone()
    inside[:, mask] = -inside[:, mask]
    outside[:, 8, ~mask[8]] = -outside[:, 8, ~mask[8]]
    encoded, same, other = (pair.ours.encode_sample(build_motion_sample(each, mask, "a red coat")) for each in (source, inside, outside))
    for name in ("condition", "hole", "prompt_embeds", "image_embeds"):
        before, after = getattr(encoded, name), getattr(same, name)
        assert before is after is None or torch.equal(before, after), name
    assert not torch.equal(encoded.target, same.target)
    assert torch.equal(encoded.condition, other.condition) == (not pair.record.spatial_mask)


def test_a_cell_is_given_only_whole(pairs: dict[str, Pair]) -> None:
    """Frames 3 and 4 share a latent frame, so frame 3's region counts there; cells that the region touches are withheld: exactly zero."""
    for name, rows, columns in (("hunyuan-i2v", (1, 5), (2, 7)), ("hunyuan-1.5-i2v", (0, 3), (1, 4))):
        ours: Any = pairs[name].ours
        encoded = ours.encode_sample(build_motion_sample(clip(), hole()))
        expected = torch.ones(3, ROWS // ours.geometry.spatial_compression, COLUMNS // ours.geometry.spatial_compression)
        expected[1:, rows[0] : rows[1], columns[0] : columns[1]] = 0
        given = encoded.condition[0, -1]
        assert torch.equal(given, expected) and torch.equal(encoded.hole[0, 0], 1 - expected)
        latents = encoded.condition[0, :-1]
        assert not latents[:, expected == 0].any() and bool(latents[:, expected == 1].all())


@pytest.mark.parametrize(("frames", "rows", "columns"), [(6, 32, 32), (8, 32, 32), (5, 40, 32), (5, 32, 24)])
def test_sizes_that_the_autoencoder_would_crop_are_refused(pair: Pair, frames: int, rows: int, columns: int) -> None:
    """It would encode them silently and return another length or size."""
    with pytest.raises(AssertionError, match=r"not (4 \* k \+ 1|a multiple of 16)"):
        pair.ours.encode_sample(whole_edit(clip(frames, rows, columns)))


@pytest.mark.parametrize("frames", [1, 5, 17, 21, 33])
def test_clips_of_any_length_keep_their_frames(pairs: dict[str, Pair], frames: int) -> None:
    """The first version's autoencoder works in stretches of 16 frames: all of them come back, and frame 0 is encoded alone either way."""
    for name in ("hunyuan-i2v", "hunyuan-1.5-i2v"):
        codec: Any = pairs[name].ours.parts.autoencoder
        source = clip(frames, 16, 16)[None]
        latents = encode_condition(codec, source)
        assert latents.shape[2] == (frames - 1) // 4 + 1 and codec.decode(latents).shape == source.shape
        assert torch.equal(latents[:, :, :1], codec.encode(source[:, :, :1]))
        if frames > 1:
            assert torch.equal(latents[:, :, 1:], codec.encode(source)[:, :, 1:]), "later frames are the clip's, encoded whole"


def test_time_tiling_is_the_same_in_training_and_inference(pairs: dict[str, Pair]) -> None:
    """It changes latents of longer clips, so it must not be switched between the two; within a clip frame 0 has other latents."""
    codec: Any = pairs["hunyuan-i2v"].ours.parts.autoencoder
    source = clip(33, 16, 16)[None]
    tiled = codec.encode(source)
    codec.module.load_module().use_framewise_encoding = False
    try:
        whole = codec.encode(source)
    finally:
        codec.module.load_module().use_framewise_encoding = True
    assert torch.equal(tiled, codec.encode(source)) and (tiled - whole).abs().max() > 1e-3
    short = source[:, :, :13]
    assert (codec.encode(short)[:, :, :1] - codec.encode(short[:, :, :1])).abs().max() > 1e-3
    later: Any = pairs["hunyuan-1.5-i2v"].ours.parts.autoencoder
    torch.testing.assert_close(later.encode(short)[:, :, :1], later.encode(short[:, :, :1]), atol=1e-5, rtol=0)


class Stub(nn.Module):
    """A transformer that returns fixed latents and records its inputs."""

    def __init__(self, config: Any, answer: torch.Tensor) -> None:
        super().__init__()
        self.config, self.answer = config, answer
        self.asked: dict[str, torch.Tensor] = {}

    def forward(self, *args: torch.Tensor, **kwargs: Any) -> Any:
        """Called as diffusers' classes are, and as the publisher's."""
        named = dict(zip(("hidden_states", "timestep"), args, strict=False)) | kwargs
        self.asked = {key: named[key] for key in ("hidden_states", "timestep", "guidance")}
        return {"x": self.answer} if args else (self.answer,)


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The publisher's `transport.py`, from a checkout of HunyuanVideo-I2V in the folder that LORA_EDIT_UPSTREAM names."""
    if not (UPSTREAM / "hyvideo" / "diffusion" / "flow" / "transport.py").is_file():
        pytest.skip(skip_reason("HunyuanVideo-I2V"))
    for name in ("hyvideo", "hyvideo.diffusion"):  # their own files import everything else
        package = ModuleType(name)
        package.__path__ = [str(UPSTREAM.joinpath(*name.split(".")))]
        monkeypatch.setitem(sys.modules, name, package)
    yield importlib.import_module("hyvideo.diffusion.flow.transport")
    for name in [name for name in sys.modules if name.startswith("hyvideo.diffusion.") or name == "hyvideo.constants"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["hunyuan-i2v", "hunyuan-i2v-16"])
def test_inputs_and_targets_equal_the_publishers(pairs: dict[str, Pair], transport: Any, name: str) -> None:
    """Input, time, guidance and loss of one draw, with a model that answers the same; zero at the replaced frame, so its mean is lower."""
    ours: Any = pairs[name].ours
    encoded = ours.encode_sample(whole_edit(clip()))
    sample = whole_edit(clip())
    encoded = ours.encode_sample(Sample(sample.v_cond, sample.m_cond, clip(), sample.image, "a red coat"))
    assert encoded.target is not None
    answer = torch.randn(encoded.target.shape, generator=torch.Generator().manual_seed(3))
    theirs, mine = Stub(None, answer), Stub(ours.config, answer)
    method = "latent_concat" if name == "hunyuan-i2v" else "token_replace"
    args = SimpleNamespace(i2v_condition_type=method, embedded_cfg_scale=6.0 if method == "token_replace" else None, precision="fp32")
    loss_of = transport.Transport(
        model_type=transport.ModelType.VELOCITY, path_type=transport.PathType.LINEAR, loss_type=transport.WeightType.NONE, train_eps=0,
        sample_eps=0, snr_type=transport.SNRType.LOGNORM, shift=SHIFT, video_shift=SHIFT, reverse=True,
    )  # fmt: skip
    torch.manual_seed(11)
    first = ours.parts.autoencoder.encode(clip()[None, :, :1])
    _, terms = loss_of.training_losses(theirs, encoded.target, i2v_mode=True, cond_latents=first, args=args)

    generator = torch.Generator().manual_seed(11)
    noise = torch.randn(encoded.target.shape, generator=generator)
    time = draw_time("logit-normal", SHIFT, generator)
    before, ours.transformer = ours.transformer, mine
    try:
        velocity = ours.predict_velocity(add_noise(encoded.target, noise, time), time, encoded)
    finally:
        ours.transformer = before
    error = (velocity - (noise - encoded.target)).square()
    for key in ("hidden_states", "timestep"):
        torch.testing.assert_close(mine.asked[key], theirs.asked[key], atol=1e-4 if key == "timestep" else 1e-6, rtol=0)
    assert (mine.asked["guidance"] is None) == (theirs.asked["guidance"] is None)
    if method == "token_replace":
        assert error[:, :, 0].max() < 1e-9
        assert torch.equal(mine.asked["guidance"], theirs.asked["guidance"])
        error = error[:, :, 1:]
    torch.testing.assert_close(error.mean()[None], terms["loss"], atol=1e-6, rtol=1e-6)
