"""Given tokens in place of noisy ones: their selection, the model's inputs, their final latents, and the loss."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LTXImageToVideoPipeline, WanImageToVideoPipeline
from safetensors import safe_open

from lora_edit.conditioning.baselines import APPEARANCE_BUILDERS, INFERENCE_BUILDERS, MOTION_BUILDERS
from lora_edit.conditioning.method import build_appearance_after_first_sample, build_inference_sample, build_motion_sample
from lora_edit.conditioning.sample import Sample
from lora_edit.errors import InputError, ModelError
from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.loras.files import export_lora
from lora_edit.models.families.ltx.loading import build_ltx
from lora_edit.models.families.ltx.record import LTX_VIDEO
from lora_edit.models.families.token_replacement import TokenReplaceFamily, compute_velocity_to, pack_given_cells
from lora_edit.models.families.wan_ti2v.record import WAN22_TI2V_5B
from lora_edit.models.family import EncodedSample
from lora_edit.training.lora import add_lora, get_lora_parameters, load_lora, remove_lora, save_lora
from lora_edit.training.loss import compute_velocity_loss
from lora_edit.training.noise import add_noise
from lora_edit.training.settings import LoraSettings, TrainingSettings
from tiny_replace import LATENTS, REPLACERS, ltx_vae, tiny_components, tiny_family, tiny_transformer

FRAMES, ROWS, COLUMNS = 17, 64, 96
CLIP = torch.rand((3, FRAMES, ROWS, COLUMNS), generator=torch.Generator().manual_seed(0)) * 2 - 1
TRAINING = TrainingSettings()


@pytest.fixture(scope="module", params=sorted(REPLACERS))
def family(request: pytest.FixtureRequest) -> TokenReplaceFamily:
    """Both models, once."""
    return tiny_family(REPLACERS[request.param], tiny_components(REPLACERS[request.param]))


def drawn(seed: int = 3) -> torch.Tensor:
    """A mask without any order in space or time, in few enough frames that some tokens stay whole."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand((FRAMES, ROWS, COLUMNS), generator=generator) < 2e-4
    mask[9:] &= torch.rand((8, 1, 1), generator=generator) < 0.3
    return mask


def shown(family: TokenReplaceFamily, latents: torch.Tensor, time: float, encoded: EncodedSample) -> dict[str, torch.Tensor]:
    """Return the transformer's arguments by name."""
    names = ("hidden_states", "timestep", "encoder_hidden_states")
    found: dict[str, torch.Tensor] = {}

    def caught(_: Any, args: tuple[torch.Tensor, ...], given: dict[str, Any]) -> None:
        found.update(zip(names, args, strict=False))
        found.update({name: value for name, value in given.items() if isinstance(value, torch.Tensor)})

    handle = family.transformer.register_forward_pre_hook(caught, with_kwargs=True)
    with torch.no_grad():
        family.predict_velocity(latents, torch.tensor([time]), encoded)
    handle.remove()
    return found


def noise_for(encoded: EncodedSample, seed: int = 5) -> torch.Tensor:
    return torch.randn((1, LATENTS, *encoded.latent_shape), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("record", REPLACERS.values(), ids=list(REPLACERS))
@pytest.mark.parametrize("seed", [3, 4])
def test_a_token_is_given_when_all_of_it_is(record: Any, seed: int) -> None:
    """Counted pixel by pixel: all its frames, all its pixels; every latent cell of a token alike."""
    grid, mask = record.geometry, drawn(seed)
    given = pack_given_cells((~mask).float()[None, None], grid)
    cells = (1, 1, (FRAMES - 1) // grid.temporal_compression + 1, ROWS // grid.spatial_compression, COLUMNS // grid.spatial_compression)
    assert given.shape == cells and 0.1 < given.mean() < 0.9
    for f in range(cells[2]):
        frames = slice(0, 1) if f == 0 else slice(grid.temporal_compression * (f - 1) + 1, grid.temporal_compression * f + 1)
        for y in range(cells[3]):
            for x in range(cells[4]):
                top, left = (place * grid.spatial_compression // grid.token_size * grid.token_size for place in (y, x))
                hole = mask[frames, top : top + grid.token_size, left : left + grid.token_size].any()
                assert given[0, 0, f, y, x] == (0 if hole else 1)


def test_the_input_is_clean_at_time_zero_or_noisy(family: TokenReplaceFamily) -> None:
    """The rows of tokens go through frames, rows, columns."""
    encoded = family.encode_sample(build_inference_sample(CLIP, -CLIP[:, 0], drawn(), "a coat"))
    noise, grid = noise_for(encoded), family.geometry
    found = shown(family, noise, 0.75, encoded)
    mixed = encoded.condition * (1 - encoded.hole) + noise * encoded.hole
    tokens = encoded.hole[0, 0, :, :: grid.token_size // grid.spatial_compression, :: grid.token_size // grid.spatial_compression].flatten()
    assert 0 < tokens.mean() < 1 and not tokens[:6].any(), "frame 0 is given whole"
    rows = found["hidden_states"] if found["hidden_states"].ndim == 5 else found["hidden_states"].mT.reshape(mixed.shape)
    assert torch.equal(rows, mixed)
    assert torch.equal(found["timestep"], 750 * tokens[None])


def test_the_velocity_in_the_hole_is_the_transformers(family: TokenReplaceFamily) -> None:
    """Independent of the velocity at given tokens."""
    encoded = family.encode_sample(build_inference_sample(CLIP, -CLIP[:, 0], drawn(), "a coat"))
    noise, time = noise_for(encoded), torch.tensor([0.5])
    generate = (encoded.hole > 0).expand(noise.shape)
    with torch.no_grad():
        velocity = family.predict_velocity(noise, time, encoded)
        all_asked = replace(encoded, hole=torch.ones_like(encoded.hole))
        moved = family.predict_velocity(noise, time, replace(encoded, condition=encoded.condition + 1))
        other = family.predict_velocity(noise, time, all_asked)
    line = ((noise - encoded.condition) / 0.5)[~generate]
    assert torch.equal(velocity[~generate], line)
    assert not torch.isclose(velocity[generate], moved[generate]).all(), "what is given is seen"
    assert not torch.isclose(velocity[generate], other[generate]).all(), "and told from noise"


@pytest.mark.parametrize("setting", ["mask-aware", "feature-level", "first-frame", "all-zeros"])
def test_the_hidden_source_does_not_affect_the_input(family: TokenReplaceFamily, setting: str) -> None:
    """Other pixels in the hole: the transformer's input is the same to the last bit. A single one outside that is given shows."""
    mask = drawn()
    mask[0] = False
    other, outside = CLIP.clone(), CLIP.clone()
    other[:, mask] = -other[:, mask]
    place = torch.nonzero(pack_given_cells((~mask).float()[None, None], family.geometry)[0, 0, 1:])[0]
    cell, group = family.geometry.spatial_compression, family.geometry.temporal_compression
    outside[:, 1 + group * int(place[0]), cell * int(place[1]), cell * int(place[2])] *= -1
    encoded = [family.encode_sample(INFERENCE_BUILDERS[setting](clip, CLIP[:, 0], mask, "a coat")) for clip in (CLIP, other, outside)]
    ours, theirs, seen = (shown(family, noise_for(each), 0.75, each) for each in encoded)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(ours["hidden_states"], seen["hidden_states"]) == (setting != "mask-aware")


def test_given_tokens_end_at_the_clean_latents(family: TokenReplaceFamily) -> None:
    """Through the loop as it is, with guidance; generated ones do not."""
    encoded = family.encode_sample(build_inference_sample(CLIP, -CLIP[:, 0], drawn(), "a coat"))
    negative = replace(encoded, prompt_embeds=family.encode_prompt("green"))
    for steps in (1, 2, 7):
        settings = GenerationSettings(steps=steps, guidance_scale=4.0)
        made = denoise(family, encoded, settings, torch.Generator().manual_seed(1), negative=negative)
        away = (made - encoded.condition).abs() * (1 - encoded.hole)
        assert away.max() < 2e-6
        assert ((made - encoded.condition).abs() * encoded.hole).max() > 0.1


def test_the_loss_is_zero_at_given_tokens(family: TokenReplaceFamily) -> None:
    """The clip's target differs there from the given latents, because the autoencoder mixes in the hole; the given latents count."""
    sample = build_motion_sample(CLIP, drawn(), "a coat")
    encoded = family.encode_sample(sample)
    assert encoded.target is not None
    whole = family.parts.autoencoder.encode(CLIP[None])
    generate = (encoded.hole > 0).expand(whole.shape)
    assert torch.equal(encoded.target[generate], whole[generate])
    assert not torch.isclose(encoded.target[~generate], whole[~generate]).all()
    noise = noise_for(encoded)
    for value, bound in ((0.9, 2e-6), (0.1, 2e-5), (1e-3, 2e-3)):
        time = torch.tensor([value])
        with torch.no_grad():
            velocity = family.predict_velocity(add_noise(encoded.target, noise, time), time, encoded)
        fault = (velocity - (noise - encoded.target)).abs()
        assert fault[~generate].max() < bound
        assert fault[generate].max() > 0.1
    for value in (0.0, 1e-9):
        time = torch.tensor([value])
        assert torch.isfinite(compute_velocity_to(encoded.condition, add_noise(encoded.target, noise, time), time)).all()


def test_gradients_come_from_generated_tokens_alone(family: TokenReplaceFamily) -> None:
    """A clip that is given whole has zero gradients, and training continues; checkpointed blocks give the same gradients."""
    parameters = add_lora(family, LoraSettings(rank=2), seed=0)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.05)

    def gradients(sample: Sample) -> list[torch.Tensor]:
        family.transformer.zero_grad()
        compute_velocity_loss(family, family.encode_sample(sample), TRAINING, torch.Generator().manual_seed(2)).backward()  # type: ignore[no-untyped-call]
        return [parameter.grad.clone() for parameter in parameters.values() if parameter.grad is not None]

    transformer: Any = family.transformer
    assert transformer.is_gradient_checkpointing
    spared = gradients(build_motion_sample(CLIP, drawn(), "a coat"))
    transformer.disable_gradient_checkpointing()
    plain = gradients(build_motion_sample(CLIP, drawn(), "a coat"))
    transformer.enable_gradient_checkpointing()
    assert len(plain) == 20 and all(each.any() for each in plain)
    torch.testing.assert_close(spared, plain)
    nothing = gradients(MOTION_BUILDERS["all-ones"](CLIP, drawn(), "a coat"))
    assert len(nothing) == 20 and not any(each.any() for each in nothing)
    remove_lora(family)


def test_every_conditioning_trains_and_generates(family: TokenReplaceFamily) -> None:
    """The baselines too: finite losses, and latents of the clip's shape."""
    mask = torch.zeros(FRAMES, ROWS, COLUMNS, dtype=torch.bool)
    mask[:, 36:56, 36:60] = True
    group = family.geometry.temporal_compression
    samples = [build(CLIP, mask, "a coat") for build in MOTION_BUILDERS.values()]
    samples += [build(CLIP[:, 3], -CLIP[:, 3], mask[3], "a coat") for build in APPEARANCE_BUILDERS.values()]
    samples.append(build_appearance_after_first_sample(CLIP[:, : group + 1], CLIP[:, 0], -CLIP[:, 3], mask[: group + 1], "a coat"))
    for sample in samples:
        encoded = family.encode_sample(sample)
        with torch.no_grad():
            for debias in ("none", "anchor", "offset-noise"):
                settings = TRAINING.model_copy(update={"debias": debias})
                assert torch.isfinite(compute_velocity_loss(family, encoded, settings, torch.Generator().manual_seed(2)))
    for name, infer in INFERENCE_BUILDERS.items():
        encoded = family.encode_sample(infer(CLIP, -CLIP[:, 0], mask, "a coat"))
        made = denoise(family, encoded, GenerationSettings(steps=2, guidance_scale=1.0), torch.Generator().manual_seed(1))
        assert torch.isfinite(made).all() and family.decode(made).shape == CLIP.shape, name
        if name == "all-zeros":
            assert encoded.hole.all()
        if name == "feature-level":
            assert encoded.blend_latents is not None and encoded.blend_mask is not None
            kept = (encoded.blend_mask > 0).expand(made.shape)
            torch.testing.assert_close(made[kept], encoded.blend_latents[kept], atol=2e-6, rtol=0)
            assert not encoded.hole[:, :, 0].any() and encoded.hole[:, :, 1:].all()


@pytest.mark.parametrize(
    ("frames", "rows", "columns", "fault"),
    [
        (8, 64, 96, "k \\+ 1 frames"),
        (7, 64, 96, "not 7; set training.window"),
        (9, 80, 96, "whole 32 pixels, not 96x80"),
        (1, 64, 88, "not 88x64"),
    ],
)
def test_other_sizes_are_refused(family: TokenReplaceFamily, frames: int, rows: int, columns: int, fault: str) -> None:
    """With one line, instead of being dropped by the autoencoder."""
    clip, mask = CLIP.new_zeros(3, frames, rows, columns), torch.zeros(frames, rows, columns, dtype=torch.bool)
    with pytest.raises(InputError, match=f"^{family.name} takes .*{fault}"):
        family.encode_sample(build_motion_sample(clip, mask))


def test_half_precision_keeps_given_tokens_exact() -> None:
    """The transformer's numbers are coarse, the latents of the clip are not."""
    for record in REPLACERS.values():
        family = tiny_family(record, tiny_components(record))
        encoded = family.encode_sample(build_inference_sample(CLIP, -CLIP[:, 0], drawn(), "a coat"))
        settings = GenerationSettings(steps=2, guidance_scale=1.0)
        fine = denoise(family, encoded, settings, torch.Generator().manual_seed(1))
        parts = tiny_components(record)
        build: Any = type(family)
        half = replace(family.parts, transformer=parts.transformers[0].to(torch.bfloat16), dtype=torch.bfloat16)
        coarse_family = build(half, *([True] if record is LTX_VIDEO else []))
        again = coarse_family.encode_sample(build_inference_sample(CLIP, -CLIP[:, 0], drawn(), "a coat"))
        assert torch.equal(again.condition, encoded.condition) and again.prompt_embeds.dtype == torch.bfloat16
        coarse = denoise(coarse_family, again, settings, torch.Generator().manual_seed(1))
        given = (encoded.hole == 0).expand(fine.shape)
        assert torch.equal(coarse[given], fine[given])
        assert 0 < (coarse - fine)[~given].abs().max() < 0.1


def test_the_same_layers_as_in_wan_are_adapted(family: TokenReplaceFamily) -> None:
    """Attention and feed-forward of every block; eight layers without the feed-forward, four of queries and keys."""
    modules = tiny_transformer(REPLACERS[family.name]).named_modules()
    linears = [name for name, module in modules if isinstance(module, torch.nn.Linear)]
    for targets, count in (("attention+ffn", 10), ("attention", 8), ("query+key", 4)):
        assert sum(bool(re.fullmatch(family.lora_targets[targets], name)) for name in linears) == count


@pytest.mark.parametrize("alpha", [None, 8.0])
def test_the_lora_opens_in_the_stock_pipeline_and_here(family: TokenReplaceFamily, tmp_path: Path, alpha: float | None) -> None:
    """ComfyUI's names; LTX-Video's blocks have those of diffusers, whose loader rejects their alphas in ComfyUI's layout."""
    lora = LoraSettings(rank=4, alpha=alpha)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in add_lora(family, lora, seed=0).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    path = tmp_path / "edit.safetensors"
    save_lora(family, path, {"base_model": family.name})
    wan = family.name == WAN22_TI2V_5B.name
    prefix = "diffusion_model.blocks." if wan else f"{'transformer' if alpha else 'diffusion_model'}.transformer_blocks."
    with safe_open(path, "pt") as file:
        assert all(key.startswith(prefix) for key in file.keys())  # noqa: SIM118
    fresh = tiny_transformer(REPLACERS[family.name])
    stock: Any = WanImageToVideoPipeline(None, None, None, None, None, None, fresh) if wan else None  # type: ignore[arg-type]
    stock = stock or LTXImageToVideoPipeline(None, None, None, None, fresh)  # type: ignore[arg-type]
    stock.load_lora_weights(str(tmp_path), weight_name=path.name)
    encoded = family.encode_sample(build_inference_sample(CLIP, -CLIP[:, 0], drawn(), "a coat"))
    ours, theirs = family.transformer, fresh
    with torch.no_grad():
        velocity = family.predict_velocity(noise_for(encoded), torch.tensor([0.5]), encoded)
        family.transformer = theirs
        assert torch.equal(family.predict_velocity(noise_for(encoded), torch.tensor([0.5]), encoded), velocity)
    family.transformer = ours
    kept = {name: parameter.clone() for name, parameter in get_lora_parameters(family).items()}
    add_lora(family, lora, seed=9)
    load_lora(family, path)
    assert all(torch.equal(parameter, kept[name]) for name, parameter in get_lora_parameters(family).items())
    remove_lora(family)
    export_lora(path, tmp_path / "copy.safetensors", "diffusers")
    with safe_open(tmp_path / "copy.safetensors", "pt") as file:
        assert all(key.startswith("transformer.") for key in file.keys())  # noqa: SIM118


def test_ltx_s_input_has_the_clip_s_frame_rate() -> None:
    """Times of tokens are seconds: at half the rate each latent frame is twice as late."""
    family = tiny_family(LTX_VIDEO, tiny_components(LTX_VIDEO))
    seen: list[torch.Tensor] = []
    family.transformer.register_forward_pre_hook(lambda _, __, inputs: seen.append(inputs["video_coords"][0, 0]), with_kwargs=True)
    encoded = family.encode_sample(build_motion_sample(CLIP, torch.ones(FRAMES, ROWS, COLUMNS, dtype=torch.bool)))
    assert encoded.target is not None
    for frame_rate in (25.0, 12.5):
        family.frame_rate = frame_rate
        with torch.no_grad():
            family.predict_velocity(encoded.target, torch.tensor([0.5]), encoded)
    assert torch.allclose(seen[1], 2 * seen[0]) and float(seen[0].max()) > 0


def test_a_decoder_with_unseeded_noise_is_refused() -> None:
    """That of 0.9.1."""
    parts = tiny_components(LTX_VIDEO)
    vae: Any = ltx_vae()
    vae.register_to_config(decoder_inject_noise=(True, True, True, False))
    with pytest.raises(ModelError, match="another clip each time; give the folder of another version"):
        build_ltx(replace(parts, vae=vae), LTX_VIDEO, torch.device("cpu"), torch.float32)
