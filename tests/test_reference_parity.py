"""Ours against LoRAEdit, the reference: its packed training clip, one whole training step, its adapter's layers, its boxes, its time grid.

Its files ask for a device on import, so its functions are taken out of them and run around the official modules with our weights.
"""

from __future__ import annotations

import ast
import re
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lora_edit.conditioning.method import build_appearance_sample, build_motion_sample
from lora_edit.conditioning.sample import Sample
from lora_edit.generation.denoise import compute_sigmas, denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.loras.names import to_original
from lora_edit.masks.shapes import shape_mask
from lora_edit.models.families.base import FamilyParts
from lora_edit.models.families.condition_packing import pack_mask
from lora_edit.models.families.wan.conditioning import WAN_TARGETS, WanFamily
from lora_edit.models.families.wan.encoders import WanAutoencoder
from lora_edit.models.record import Geometry
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.training.loss import compute_velocity_loss
from lora_edit.training.settings import TrainingSettings
from lora_edit.types import EditMask
from official_wan import CLIP, TEXT, TOKENS, autoencoders_pair, transformers_pair, wan_module
from tiny_random import random_record
from upstream import agree, checkout, load, take

ROWS, COLUMNS, SEED = 32, 48, 11
GREY_128 = 128 / 127.5 - 1
"""The reference's hole after it went through eight bits."""

pytestmark = pytest.mark.filterwarnings("ignore:.*autocast:FutureWarning", "ignore:.*autocast:UserWarning")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def aligned_mask(frames: int) -> torch.Tensor:
    """Random cells of 8x8 pixels to edit, the same within each latent frame's pixels or not."""
    cells = torch.rand(frames, ROWS // 8, COLUMNS // 8, generator=torch.Generator().manual_seed(frames)) > 0.5
    return cells.repeat_interleave(8, 1).repeat_interleave(8, 2)


def layers_of(model: Any) -> list[Any]:
    """The reference's pipeline stages around an official transformer: what its trainer runs one after another."""
    file = checkout("LoRAEdit") / "models/wan.py"
    known = {
        "AUTOCAST_DTYPE": torch.float32,
        "sinusoidal_embedding_1d": wan_module("model").sinusoidal_embedding_1d,
        "make_contiguous": lambda *tensors: tuple(tensor.contiguous() for tensor in tensors),
    }
    offloader = SimpleNamespace(wait_for_block=lambda index: None, submit_move_blocks_forward=lambda index: None)
    inner = [take(file, "TransformerLayer", **known)(block, index, offloader) for index, block in enumerate(model.blocks)]
    return [take(file, "InitialLayer", **known)(model), *inner, take(file, "FinalLayer", **known)(model)]


@pytest.fixture(scope="module")
def parts() -> SimpleNamespace:
    """Our family and the official modules with its weights; text and picture tokens are fixed."""
    (transformer, official), (vae, official_vae) = transformers_pair("i2v"), autoencoders_pair()
    text, shown = drawn(7, TEXT, seed=2), drawn(1, TOKENS, CLIP, seed=3)
    padded = torch.cat([text, torch.zeros(512 - len(text), TEXT)])[None]
    family = WanFamily(
        FamilyParts(
            random_record("pair", Geometry(8, 4, 16, 49, ROWS * COLUMNS)), transformer, WanAutoencoder(vae), lambda _: padded,
            lambda _: shown, DeviceManager(torch.device("cpu")), torch.float32,
        )
    )  # fmt: skip
    return SimpleNamespace(family=family, official=official, vae=official_vae, text=text, shown=shown)


def packed(sample: Sample, white: torch.Tensor) -> torch.Tensor:
    """The reference's training clip `[1, 3, 1 + 3K, H, W]`: the picture for CLIP, then condition, target, and mask (white = edit).

    Lossless here; the reference writes it as video.
    """
    assert sample.v_target is not None
    shown = (white.float() * 2 - 1).expand(3, -1, -1, -1)
    return torch.cat([sample.image[:, None], sample.v_cond, sample.v_target, shown], 1)[None]


def reference_step(parts: SimpleNamespace, clip: torch.Tensor, noise: torch.Tensor, time: float) -> SimpleNamespace:
    """One training step of the reference on its own clip, with given draws: what its transformer is fed and says, and the loss."""
    file = checkout("LoRAEdit") / "models/wan.py"
    pipeline = SimpleNamespace(
        i2v=True, flf2v=False, vae=parts.vae, clip=SimpleNamespace(visual=lambda frames: parts.shown),
        model_config={"timestep_sample_method": "uniform"},
    )  # fmt: skip
    encode = take(file, "WanPipeline.get_call_vae_fn", vae_encode=take(file, "vae_encode"))
    cached = encode(pipeline, SimpleNamespace(vae=parts.vae.model, clip=pipeline.clip))(clip)
    padded = torch.cat([parts.text, torch.zeros(512 - len(parts.text), TEXT)])[None]
    inputs = {**cached, "text_embeddings": padded, "seq_lens": torch.tensor([len(parts.text)]), "mask": None}
    drawing = SimpleNamespace(**{**vars(torch), "randn_like": lambda _: noise})
    fed, (target, _) = take(file, "WanPipeline.prepare_inputs", torch=drawing)(pipeline, inputs, timestep_quantile=time)
    seen: list[torch.Tensor] = []
    handle = parts.official.patch_embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    passed: Any = fed
    for layer in layers_of(parts.official):
        passed = layer(passed)
    handle.remove()
    loss = take(checkout("LoRAEdit") / "models/base.py", "BasePipeline.get_loss_fn")(None)(passed, (target, torch.tensor([])))
    return SimpleNamespace(input=seen[0], x_t=fed[0].detach(), time=fed[2].detach(), target=target, velocity=passed, loss=loss)


def a_clip(frames: int) -> torch.Tensor:
    return drawn(3, frames, ROWS, COLUMNS, seed=5).tanh()


def stage(name: str) -> tuple[Sample, torch.Tensor]:
    """A sample of ours, and the mask frames that the reference writes for it: its first is black in the motion clip only."""
    if name == "appearance":
        mask = aligned_mask(1)
        return build_appearance_sample(a_clip(1)[:, 0], -a_clip(1)[:, 0], mask[0]), mask
    frames = int(name.rpartition(" ")[2])
    mask = aligned_mask(frames)
    white = mask.clone()
    white[0] = False
    return build_motion_sample(a_clip(frames), mask), white


@pytest.mark.parametrize("name", ["motion 1", "motion 5", "motion 9", "appearance"])
def test_one_training_step_is_the_references(parts: SimpleNamespace, name: str) -> None:
    """Mask, condition, noisy latents, time, target, velocity, loss, and the gradients of two weights."""
    sample, white = stage(name)
    encoded = parts.family.encode_sample(sample)
    generator = torch.Generator().manual_seed(SEED)
    noise, time = torch.randn(encoded.target.shape, generator=generator), torch.rand(1, generator=generator)
    trained = [(parts.family.transformer.blocks[n].get_submodule(ours).weight, parts.official.blocks[n].get_submodule(theirs).weight)
               for n, ours, theirs in ((0, "attn1.to_q", "self_attn.q"), (1, "ffn.net.2", "ffn.2"))]  # fmt: skip
    for weights in trained:
        for weight in weights:
            weight.requires_grad_(True).grad = None
    step = reference_step(parts, packed(sample, white), noise, time.item())
    assert torch.equal(encoded.condition[:, :4], step.input[:, 16:20]), "packed mask"
    agree(encoded.condition[:, 4:], step.input[:, 20:], 1e-5)
    agree((1 - time) * encoded.target + time * noise, step.x_t, 1e-5)
    agree(noise - encoded.target, step.target, 1e-5)
    agree(1000 * time, step.time, 1e-4)
    agree(parts.family.predict_velocity(step.x_t, step.time / 1000, encoded), step.velocity, 5e-5)
    loss = compute_velocity_loss(parts.family, encoded, TrainingSettings(), torch.Generator().manual_seed(SEED))
    agree(loss, step.loss, 1e-5)
    loss.backward()
    step.loss.backward()
    for ours, theirs in trained:
        agree(ours.grad, theirs.grad, 1e-6)
        ours.requires_grad_(False)
        theirs.requires_grad_(False)


@pytest.mark.parametrize("frames", [1, 5, 9, 49])
def test_masks_are_packed_as_by_the_reference(frames: int) -> None:
    """Equal on masks of whole cells. On others the reference keeps cells that touch the hole, and never fewer than we do."""
    unused = dict.fromkeys(("time_embedding", "text_embedding", "time_projection", "img_emb", "head"))
    seen: list[torch.Tensor] = []

    class Noted(Exception):
        """The packed mask was seen: what follows is not needed."""

    def note(latents: torch.Tensor) -> torch.Tensor:
        seen.append(latents)
        raise Noted

    note.weight = torch.zeros(1)  # type: ignore[attr-defined]
    layer = layers_of(SimpleNamespace(model_type="i2v", patch_embedding=note, freqs=torch.zeros(1), blocks=[], **unused))[0]

    def theirs(white: torch.Tensor) -> torch.Tensor:
        groups = (frames - 1) // 4 + 1
        latents = torch.zeros(1, 16, groups, ROWS // 8, COLUMNS // 8)
        mask_frames = (white.float() * 2 - 1).expand(1, 3, -1, -1, -1).contiguous()
        one = torch.ones(1, 1, 1)
        with pytest.raises(Noted):
            layer((latents, latents.clone(), torch.tensor([500.0]), one, torch.tensor([1]), one, mask_frames))
        return seen.pop()[:, 16:20].detach()

    aligned = aligned_mask(frames)
    assert torch.equal(pack_mask(1 - aligned[None, None].float()), theirs(aligned))
    ragged = torch.zeros(frames, ROWS, COLUMNS, dtype=torch.bool)
    ragged[:, 5:19, 13:37] = True
    ours, kept = pack_mask(1 - ragged[None, None].float()), theirs(ragged)
    assert (ours <= kept).all() and (ours < kept).any()
    assert torch.equal(ours, theirs(grown_to_cells(ragged)))


def grown_to_cells(mask: torch.Tensor) -> torch.Tensor:
    cells = mask.view(len(mask), ROWS // 8, 8, COLUMNS // 8, 8).any(4).any(2)
    return cells.repeat_interleave(8, 1).repeat_interleave(8, 2)


def test_the_references_hole_is_a_hair_brighter(parts: SimpleNamespace) -> None:
    """It writes 128 of 255 where we, and Wan's own padding, have exactly 0: the condition moves by so little."""
    sample, _ = stage("motion 9")
    theirs = torch.where(sample.m_cond > 0.5, sample.v_cond, torch.tensor(GREY_128))
    encode = parts.family.parts.autoencoder.encode
    agree(encode(sample.v_cond[None]), encode(theirs[None]), 2e-3)


def test_the_same_layers_are_adapted(parts: SimpleNamespace) -> None:
    """Every layer that the reference's adapter is put on, and no other, by both programs' names."""
    chosen: list[list[str]] = []
    library = SimpleNamespace(
        LoraConfig=lambda **given: chosen.append(given["target_modules"]), get_peft_model=lambda model, config: SimpleNamespace()
    )
    itself = SimpleNamespace(transformer=parts.official, adapter_target_modules=["WanAttentionBlock"])
    configure = take(checkout("LoRAEdit") / "models/base.py", "BasePipeline.configure_adapter", peft=library, is_main_process=lambda: False)
    settings = {
        "type": "lora",
        "rank": 16,
        "alpha": 16,
        "dropout": 0.0,
        "dtype": torch.float32,
        "exclude_linear_modules": ["k_img", "v_img"],
    }
    configure(itself, settings)
    linear = [name for name, module in parts.family.transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    ours = [name for name in linear if re.fullmatch(WAN_TARGETS["attention+ffn"], name)]
    assert sorted((to_original(name) or ("",))[0] for name in ours) == sorted(chosen[0]) and len(ours) == 20


def boxes(middle: tuple[int, int], radii: tuple[int, int], turn: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Our box and the reference's around an ellipse in a frame of 160x120."""
    mask = np.zeros((120, 160), np.uint8)
    cv2.ellipse(mask, middle, radii, turn, 0, 360, 1, -1)
    method = take(checkout("LoRAEdit") / "predata_app.py", mask_maker(), cv2=cv2, np=np)
    theirs = torch.from_numpy(method(None, mask.astype(bool), min_area=50, expand_ratio=0.1) > 0)
    return shape_mask(EditMask(torch.from_numpy(mask > 0)[None]), "box", 0.1, 1).frames[0], theirs


@pytest.mark.parametrize("number", range(10))
def test_a_box_covers_the_references(number: int) -> None:
    """One object in one frame: the same rectangle, but for its edges, which we round outward and the reference inward."""
    rng = np.random.default_rng(number)
    (x, y), (wide, high) = rng.integers(50, 70, 2).tolist(), rng.integers(6, 40, 2).tolist()
    ours, theirs = boxes((x, y), (wide, high), float(rng.uniform(0, 180)))
    assert not (theirs & ~ours).any(), "a pixel of the reference's box is missing"
    edges = [[int(side) for axis in (1, 0) for side in torch.nonzero(each.any(axis)).flatten()[[0, -1]]] for each in (ours, theirs)]
    assert max(abs(a - b) for a, b in zip(*edges, strict=True)) <= 1


def test_at_the_left_border_the_references_box_is_too_wide() -> None:
    """It puts the margin that the border cuts off on the other side; ours is cut there."""
    ours, theirs = boxes((0, 60), (40, 20), 0.0)
    ends = [int(torch.nonzero(each.any(0)).flatten()[-1]) for each in (ours, theirs)]
    assert ours[60, 0] and theirs[60, 0] and ends == [43, 44]


def mask_maker() -> str:
    """The class that holds the method, whatever it is called."""
    tree = ast.parse((checkout("LoRAEdit") / "predata_app.py").read_text("utf-8"))
    return next(
        f"{node.name}.create_bbox_mask"
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any(getattr(each, "name", "") == "create_bbox_mask" for each in node.body)
    )


@pytest.mark.parametrize("steps", [1, 4, 30])
def test_the_time_grid_is_the_references(steps: int) -> None:
    """Its sampler's scheduler (DiffSynth-Studio), made as the reference makes it; and its steps along a velocity that depends on time."""
    scheduler = load("DiffSynth-Studio", "diffsynth/schedulers", "flow_match").FlowMatchScheduler(
        shift=5, sigma_min=0.0, extra_one_step=True
    )
    scheduler.set_timesteps(steps, shift=5.0)
    grid = compute_sigmas(steps, 5.0)
    agree(grid[:-1], scheduler.sigmas, 1e-6)
    assert grid[-1] == 0
    latents = drawn(1, 16, 3, 4, 6)
    family = SimpleNamespace(z_dim=16, experts=lambda: (), predict_velocity=lambda latents, time, encoded: torch.sin(3 * latents) + time)
    encoded = SimpleNamespace(condition=latents, latent_shape=latents.shape[2:], blend=None, blend_keep=None)
    ours = denoise(family, encoded, GenerationSettings(steps=steps, shift=5.0), torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    for time in scheduler.timesteps:
        latents = scheduler.step(torch.sin(3 * latents) + time / 1000, time, latents)
    agree(ours, latents, 1e-5)
