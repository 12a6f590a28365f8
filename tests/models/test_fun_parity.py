"""Wan2.2-Fun against VideoX-Fun's own pipeline around the same modules: the condition of masked clips, times, and whole runs.

The numbers in `tests/golden/fun.json` are those of the pipeline at commit 804a4258e2608f855ccaec8fffa279e75a3b89c6, for tests without its
checkout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional, Union

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.image_processor import VaeImageProcessor
from einops import rearrange

import tiny_fun
import tiny_wan
from lora_edit.conditioning.method import build_appearance_sample, build_inference_sample
from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.families.wan.loading import Components, build_wan
from lora_edit.models.families.wan.record import WAN22_FUN_A14B
from lora_edit.models.families.wan_ti2v.loading import build_fun_ti2v
from lora_edit.models.families.wan_ti2v.record import WAN22_FUN_5B
from upstream import agree, checkout, take

FRAMES, STEPS, SEED, SHIFT, GUIDANCE = 9, 4, 7, 5.0, 6.0
GOLDEN = Path(__file__).parents[1] / "golden" / "fun.json"
CPU = torch.device("cpu")


@dataclass
class Model:
    """One model as ours, with its parts and its grid; `calls` are the inputs of the transformers."""

    name: str
    parts: Components
    family: Any
    rows: int
    columns: int
    spatial: int
    calls: list[dict[str, torch.Tensor]] = field(default_factory=list)

    @property
    def z_dim(self) -> int:
        return int(self.parts.vae.config.z_dim)

    @property
    def pixels(self) -> torch.Tensor:
        return torch.rand((3, FRAMES, self.rows, self.columns), generator=torch.Generator().manual_seed(0)) * 2 - 1

    @property
    def mask(self) -> torch.Tensor:
        """Random tokens to edit in each later frame; frame 0 is given."""
        side = 2 * self.spatial
        cells = torch.rand(FRAMES, self.rows // side, self.columns // side, generator=torch.Generator().manual_seed(3)) > 0.5
        cells[0] = False
        return cells.repeat_interleave(side, 1).repeat_interleave(side, 2)

    def noise(self) -> torch.Tensor:
        shape = (1, self.z_dim, 3, self.rows // self.spatial, self.columns // self.spatial)
        return torch.randn(shape, generator=torch.Generator().manual_seed(SEED))


def build_model(name: str) -> Model:
    """Build a model of random weights."""
    if name == WAN22_FUN_5B.name:
        parts = tiny_fun.tiny_components()
        return Model(name, parts, build_fun_ti2v(parts, WAN22_FUN_5B, CPU, torch.float32), 64, 96, 16)
    parts = tiny_wan.tiny_components(WAN22_FUN_A14B)
    return Model(name, parts, build_wan(parts, WAN22_FUN_A14B, CPU, torch.float32), 32, 48, 8)


@pytest.fixture(params=[WAN22_FUN_A14B.name, WAN22_FUN_5B.name])
def model(request: pytest.FixtureRequest) -> Model:
    return build_model(request.param)


class Vae:
    """Our autoencoder with VideoX-Fun's interface: latents are normalised, and the posterior has a mode."""

    def __init__(self, model: Model) -> None:
        self.dtype, self.latent_channels = torch.float32, model.z_dim
        self.spatial_compression_ratio, self.temporal_compression_ratio = model.spatial, 4
        self.config = SimpleNamespace(latent_channels=model.z_dim)
        self.model = model

    def encode(self, pixels: torch.Tensor) -> Any:
        return [SimpleNamespace(mode=lambda: self.model.family.experts()[0].parts.autoencoder.encode(pixels))]


class Transformer:
    """One of our transformers with VideoX-Fun's interface."""

    def __init__(self, model: Model, number: int) -> None:
        self.model, self.module = model, model.parts.transformers[number]
        self.config = SimpleNamespace(patch_size=(1, 2, 2), boundary=0.9)

    def __call__(self, *, x: torch.Tensor, context: Any, t: torch.Tensor, seq_len: int, y: torch.Tensor) -> torch.Tensor:
        embeds = torch.stack([torch.nn.functional.pad(each, (0, 0, 0, 512 - len(each))) for each in context])
        self.model.calls.append({"x": x, "t": t, "y": y})
        output: torch.Tensor = self.module(torch.cat([x, y], 1), t, embeds, return_dict=False)[0]
        return output


def build_scheduler() -> Any:
    """Euler's grid of the family."""
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    grid = scheduler.set_timesteps
    scheduler.set_timesteps = lambda *args, **kwargs: grid(sigmas=np.linspace(1, 0, STEPS + 1)[:-1])
    return scheduler


def run_upstream(model: Model, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Run VideoX-Fun's pipeline with the clip and its mask; returns latents. Skips without its checkout."""
    file = checkout("VideoX-Fun") / "videox_fun/pipeline/pipeline_wan2_2_fun_inpaint.py"
    monkeypatch.setattr(torch.cuda.amp, "autocast", lambda **_: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda **_: nullcontext())
    unused: Any = type("Unused", (), {})
    known = {
        "Optional": Optional, "Union": Union, "List": list, "Callable": Callable, "Dict": dict, "Any": Any, "Tuple": tuple, "math": math,
        "rearrange": rearrange, "replace_example_docstring": lambda _: lambda function: function, "EXAMPLE_DOC_STRING": "",
        "PipelineCallback": unused, "MultiPipelineCallbacks": unused, "WanPipelineOutput": unused,
        "FlowMatchEulerDiscreteScheduler": FlowMatchEulerDiscreteScheduler, "FlowUniPCMultistepScheduler": unused,
        "FlowDPMSolverMultistepScheduler": unused, "resize_mask": take(file, "resize_mask"),
    }  # fmt: skip

    def retrieve_timesteps(scheduler: Any, *_: Any, **__: Any) -> Any:
        scheduler.set_timesteps()
        return scheduler.timesteps, STEPS

    bar = SimpleNamespace(update=lambda: None)
    transformers = [Transformer(model, number) for number in range(len(model.parts.transformers))]
    embeds = [model.family.encode_prompt(text)[0] for text in ("a red coat", "green")]
    pipeline = SimpleNamespace(
        check_inputs=lambda *_: None, _execution_device=CPU, text_encoder=SimpleNamespace(dtype=torch.float32), vae=Vae(model),
        encode_prompt=lambda *_, **__: (embeds[:1], embeds[1:]), scheduler=build_scheduler(),
        image_processor=VaeImageProcessor(vae_scale_factor=model.spatial),
        mask_processor=VaeImageProcessor(
            vae_scale_factor=model.spatial, do_normalize=False, do_binarize=True, do_convert_grayscale=True
        ),
        prepare_extra_step_kwargs=lambda *_: {}, interrupt=False, maybe_free_model_hooks=lambda: None,
        progress_bar=lambda **_: nullcontext(bar), prepare_latents=lambda *_: model.noise(), guidance_scale=GUIDANCE,
        transformer=transformers[-1], transformer_2=transformers[0] if len(transformers) == 2 else None,
    )  # fmt: skip
    pipeline.prepare_mask_latents = lambda *args, **kwargs: take(file, "Wan2_2FunInpaintPipeline.prepare_mask_latents")(
        pipeline, *args, **kwargs
    )
    call = take(file, "Wan2_2FunInpaintPipeline.__call__", **known, retrieve_timesteps=retrieve_timesteps)
    latents: torch.Tensor = call(
        pipeline, prompt="a red coat", negative_prompt="green", height=model.rows, width=model.columns, num_frames=FRAMES,
        video=model.pixels[None] * 0.5 + 0.5, mask_video=255.0 * model.mask[None, None], num_inference_steps=STEPS,
        guidance_scale=GUIDANCE, boundary=0.9, output_type="latent", return_dict=False,
    )  # fmt: skip
    return latents


def run_ours(model: Model) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Run ours; returns latents, and the condition with the times of each call."""
    times: list[torch.Tensor] = []
    handles = [
        transformer.register_forward_pre_hook(lambda _, args: times.append(args[1].clone())) for transformer in model.parts.transformers
    ]
    encoded = model.family.encode_sample(build_inference_sample(model.pixels, model.pixels[:, 0], model.mask, "a red coat"))
    negative = replace(encoded, prompt_embeds=model.family.encode_prompt("green"))
    settings = GenerationSettings(steps=STEPS, shift=SHIFT, guidance_scale=GUIDANCE)
    latents = denoise(model.family, encoded, settings, torch.Generator().manual_seed(SEED), negative=negative)
    for handle in handles:
        handle.remove()
    return latents, [encoded.condition, *times]


def summarize(latents: torch.Tensor, condition: torch.Tensor) -> dict[str, list[float]]:
    """Sums over space and time of each channel's values and magnitudes."""
    return {
        name: [round(value, 4) for values in (tensor, tensor.abs()) for value in values.double().sum((0, 2, 3, 4)).tolist()]
        for name, tensor in (("latents", latents), ("condition", condition))
    }


@pytest.mark.filterwarnings("ignore:.*autocast:FutureWarning")
def test_a_masked_run_equals_the_publishers(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mask channels, masked latents, times of tokens, and latents after a whole run with guidance."""
    theirs = run_upstream(model, monkeypatch)
    ours, (condition, *times) = run_ours(model)
    agree(condition, model.calls[0]["y"][:1], 1e-5)
    for number, call in enumerate(model.calls):
        agree(times[2 * number].expand_as(call["t"][:1]), call["t"][:1], 1e-3)
    agree(ours, theirs, 5e-5)


def test_a_masked_run_equals_the_recorded_one(model: Model, single_thread: None) -> None:
    """Sums of channels of VideoX-Fun's condition and latents."""
    golden: dict[str, list[float]] = json.loads(GOLDEN.read_text("utf-8"))[model.name]
    latents, (condition, *_) = run_ours(model)
    for name, values in summarize(latents, condition).items():
        torch.testing.assert_close(torch.tensor(values), torch.tensor(golden[name]), atol=5e-3, rtol=1e-4)


def test_a_first_frame_with_a_hole_is_noisy_throughout() -> None:
    """As in VideoX-Fun's training: all tokens have the sample's time, and no latents are replaced."""
    family: Any = build_fun_ti2v(tiny_fun.tiny_components(), WAN22_FUN_5B, CPU, torch.float32)
    frame, mask = torch.zeros(3, 1, 64, 96), torch.zeros(1, 64, 96, dtype=torch.bool)
    mask[:, 32:, 32:64] = True
    encoded = family.encode_sample(build_appearance_sample(frame[:, 0], frame[:, 0] + 0.1, mask[0], "a red coat"))
    noise = torch.randn(encoded.target.shape, generator=torch.Generator().manual_seed(1))
    given, scale, model_input = family._precondition(noise, torch.tensor([0.5]), encoded.condition)
    assert not given.any() and bool((scale == 1).all()) and torch.equal(model_input, noise)
    assert family._compute_timesteps(torch.tensor([0.5]), encoded.condition).unique().tolist() == [500]


def record_golden() -> None:
    """Write the golden numbers: `LORA_EDIT_UPSTREAM=FOLDER PYTHONPATH=src:tests python -m models.test_fun_parity`."""
    golden = {}
    for name in (WAN22_FUN_A14B.name, WAN22_FUN_5B.name):
        with pytest.MonkeyPatch.context() as patch:
            made = build_model(name)
            latents = run_upstream(made, patch)
            golden[name] = summarize(latents, made.calls[0]["y"][:1])
    GOLDEN.write_text(json.dumps(golden) + "\n", "utf-8")


if __name__ == "__main__":
    record_golden()
