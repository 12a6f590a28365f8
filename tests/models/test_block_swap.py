"""Block swapping, offloaded activations and quantization: the same computation in less memory."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lora_edit.generation.denoise import denoise
from lora_edit.generation.settings import GenerationSettings
from lora_edit.models.families.wan.conditioning import WanFamily
from lora_edit.models.family import EncodedSample
from lora_edit.models.runtime import pinned_memory
from lora_edit.models.runtime.acceleration import accelerate_sampling
from lora_edit.models.runtime.block_swap import (
    NO_BLOCK,
    BlockSwapper,
    choose_evenly_spaced,
    get_blocks,
)
from lora_edit.models.runtime.device_manager import DeviceManager
from lora_edit.models.runtime.quantization import (
    QuantizedLinear,
    WeightFormat,
    dequantize_weight,
    quantize_blocks,
    quantize_linears,
    quantize_weight,
)
from lora_edit.training.loop import Stage, fit
from lora_edit.training.lora import add_lora, save_lora
from lora_edit.training.settings import LoraSettings, TrainingSettings
from tiny_random import tiny_random_family

CPU = torch.device("cpu")
BLOCKS = 5
SETTINGS = TrainingSettings(learning_rate=3e-3, motion_steps=4)


def deep_family() -> WanFamily:
    """Random weights, five blocks."""
    return tiny_random_family(blocks=BLOCKS)


def swapper_of(family: WanFamily) -> BlockSwapper:
    """The family's block swapper."""
    swapper = family.device_manager.get_block_swapper(family.transformer)
    assert swapper is not None
    return swapper


def sample_of(family: WanFamily) -> EncodedSample:
    """Return noise with the shapes of a training sample."""
    generator = torch.Generator().manual_seed(0)
    config: Any = family.transformer.config
    z, shape = family.z_dim, (2, 2, 2)
    condition = torch.randn(1, config.in_channels - z, *shape, generator=generator)
    text = torch.randn(1, 3, config.text_dim, generator=generator)
    return EncodedSample(condition, torch.ones(1, 1, *shape), text, torch.randn(1, z, *shape, generator=generator))


def trained(family: WanFamily, folder: Path) -> bytes:
    """Train four steps and return the bytes of the LoRA file."""
    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    fit(family, parameters, [Stage("motion", [sample_of(family)], [1.0], 4)], SETTINGS, 0, None, "", lambda *_: None)
    folder.mkdir(exist_ok=True)
    save_lora(family, folder / "edit.safetensors", {})
    return (folder / "edit.safetensors").read_bytes()


@pytest.mark.parametrize("swapped", [1, 2, 3, BLOCKS, 99])
def test_block_swap_changes_no_byte_of_the_lora(tmp_path: Path, swapped: int, single_thread: None) -> None:
    """Weights of a wrong block would change it."""
    plain = trained(deep_family(), tmp_path)
    family = deep_family()
    family.device_manager.swap_blocks(family.transformer, swapped)
    assert trained(family, tmp_path) == plain


@pytest.mark.parametrize("swapped", [2, BLOCKS])
@torch.no_grad()
def test_block_swap_changes_no_sample(swapped: int) -> None:
    """The same velocities, pass after pass."""
    family, sample = deep_family(), sample_of(deep_family())
    noise, time = torch.randn(sample.target.shape, generator=torch.Generator().manual_seed(1)), torch.tensor([0.5])  # type: ignore[union-attr]
    plain = family.predict_velocity(noise, time, sample)
    family.device_manager.swap_blocks(family.transformer, swapped)
    for _ in range(3):
        assert torch.equal(family.predict_velocity(noise, time, sample), plain)


@torch.no_grad()
def test_first_block_cache_works_with_swapped_blocks(single_thread: None) -> None:
    """FirstBlockCache wraps the blocks' forward; with swapped blocks its output is the same."""
    answers = []
    for swapped in (0, 3):
        family, sample = deep_family(), sample_of(deep_family())
        family.device_manager.swap_blocks(family.transformer, swapped)
        with accelerate_sampling(family, attention_backend="native", cache_threshold=0.9, compile_blocks=False):
            answers.append(denoise(family, sample, GenerationSettings(steps=4), torch.Generator().manual_seed(1), negative=sample))
    plain = denoise(deep_family(), sample, GenerationSettings(steps=4), torch.Generator().manual_seed(1), negative=sample)
    assert torch.equal(*answers) and not torch.equal(answers[0], plain)


def test_blocks_are_copied_once_and_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass copies every block once, except those already in a slot: 5 forward, 3 backward, then 3 and 3."""
    family = deep_family()
    family.device_manager.swap_blocks(family.transformer, BLOCKS)
    stream = swapper_of(family)
    begun: list[int] = []
    start = stream.copies.start_copy

    def noted(target: torch.Tensor, source: torch.Tensor) -> Any:
        begun.append(next(number for number, piece in enumerate(stream.host_blocks) if piece.buffer is source))
        return start(target, source)

    monkeypatch.setattr(stream.copies, "start_copy", noted)
    parameters = add_lora(family, LoraSettings(rank=4), seed=0)
    fit(family, parameters, [Stage("motion", [sample_of(family)], [1.0], 2)], SETTINGS, 0, None, "", lambda *_: None)
    assert begun == [0, 1, 2, 3, 4, 2, 1, 0, 2, 3, 4, 2, 1, 0]


def test_blocks_compute_with_the_copy_only() -> None:
    """With NaN in the blocks' own memory, copies from before still give the right output."""
    family, sample = deep_family(), sample_of(deep_family())
    noise, time = torch.randn(1, family.z_dim, *sample.latent_shape, generator=torch.Generator().manual_seed(1)), torch.tensor([0.5])
    family.device_manager.swap_blocks(family.transformer, 1)
    answer = family.predict_velocity(noise, time, sample)
    stream = swapper_of(family)
    stream.host_blocks[0].buffer.fill_(255)  # NaN, read as any floating-point number
    assert torch.equal(family.predict_velocity(noise, time, sample), answer)
    stream.release()
    assert family.predict_velocity(noise, time, sample).isnan().any()


def test_blocks_in_main_memory_never_move() -> None:
    """Other tensors move. A slot on the device holds the largest block and is freed by `release`."""
    family = deep_family()
    manager = DeviceManager(torch.device("meta"))
    manager.swap_blocks(family.transformer, 2)
    stream = manager.get_block_swapper(family.transformer)
    assert stream is not None
    manager.load(family.transformer)
    held = {id(each) for number in choose_evenly_spaced(BLOCKS, 2) for each in get_blocks(family.transformer)[number].parameters()}
    assert all((each.device.type == "cpu") == (id(each) in held) for each in family.transformer.parameters())
    stream._prepare_slot(0, exclude=None)
    assert [slot.buffer.device.type for slot in stream.slots] == ["meta", "meta"]
    stream.release()
    assert not stream.slots and stream.last_index == NO_BLOCK


def test_the_number_of_swapped_blocks_can_change(tmp_path: Path, single_thread: None) -> None:
    """More, fewer and no blocks, with a LoRA inside: the same bytes, and no replaced forward at the end."""
    plain = trained(deep_family(), tmp_path)
    family = deep_family()
    for swapped in (2, BLOCKS, 3, 1):
        family.device_manager.swap_blocks(family.transformer, swapped)
        assert len(swapper_of(family).host_blocks) == swapped
        assert trained(family, tmp_path) == plain
    family.device_manager.swap_blocks(family.transformer, 0)
    assert trained(family, tmp_path) == plain and family.device_manager.get_block_swapper(family.transformer) is None
    assert not any("forward" in vars(block) for block in get_blocks(family.transformer))


@pytest.mark.parametrize("swapped", [0, 3])
def test_offloaded_activations_change_no_byte(tmp_path: Path, swapped: int, single_thread: None) -> None:
    """One state for each block is kept in main memory, and no other tensor; all steps use the same buffers."""
    plain = trained(deep_family(), tmp_path)
    family, kept = deep_family(), []
    family.device_manager.offload_activations(family.transformer)
    family.device_manager.swap_blocks(family.transformer, swapped)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pinned_memory, "allocate_transfer_buffer", lambda count, device: kept.append(count) or torch.empty(count, dtype=torch.uint8)
        )
        assert trained(family, tmp_path) == plain
    tokens = 2 * 2 * 2
    assert sum(kept) == tokens * 24 * 4 * BLOCKS


def test_swapped_blocks_are_evenly_spaced() -> None:
    """So that each copy runs beside the blocks between."""
    assert choose_evenly_spaced(40, 0) == [] and choose_evenly_spaced(40, 40) == list(range(40)) == choose_evenly_spaced(40, 99)
    for chosen in range(1, 40):
        found = choose_evenly_spaced(40, chosen)
        gaps = [later - now for now, later in pairwise(found)]
        assert len(found) == chosen and (not gaps or max(gaps) - min(gaps) <= 1)


@pytest.mark.parametrize("storage", ["int8", "fp8", "nf4"])
def test_quantized_layers_equal_layers_with_rounded_weights(storage: WeightFormat) -> None:
    """Outputs and input gradients equal those of a layer with dequantized weights, which are close to the original ones."""
    torch.manual_seed(0)
    plain = nn.Linear(48, 32).requires_grad_(False)
    exact = plain.weight.clone()
    stored = QuantizedLinear.from_linear(plain, storage)
    plain.weight.data = dequantize_weight(stored.weight, stored.scale, torch.float32)
    lost = {"int8": 0.005, "fp8": 0.04, "nf4": 0.16}[storage]
    assert stored.weight.nbytes == exact.numel() // (2 if storage == "nf4" else 1)
    assert (plain.weight - exact).abs().max() < lost * exact.abs().max()
    given = torch.randn(2, 5, 48)
    outcomes = []
    for layer in (plain, stored):
        mine = given.clone().requires_grad_()
        out = layer(mine)
        out.square().sum().backward()
        outcomes.append((out.detach(), mine.grad))
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_rows_keep_their_own_scale() -> None:
    """A row a thousand times smaller loses no more than its neighbours; a row of zeros stays zero."""
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    weight[1] *= 1e-3
    weight[2] = 0
    storages: tuple[WeightFormat, ...] = ("int8", "fp8", "nf4")
    for storage in storages:
        values, scale = quantize_weight(weight, storage)
        error = (dequantize_weight(values, scale, torch.float32) - weight).abs().amax(1)
        assert error[1] < 0.16 * weight[1].abs().max() and error[2] == 0


@pytest.mark.parametrize("storage", ["int8", "fp8", "nf4"])
def test_quantized_blocks_are_swapped_as_stored(tmp_path: Path, storage: WeightFormat, single_thread: None) -> None:
    """Training on a quantized base gives the same bytes with and without swapping; the LoRA is trained in full precision."""
    files = []
    for swapped in (0, 3):
        family = deep_family()
        quantize_blocks(family.transformer, storage)
        family.device_manager.swap_blocks(family.transformer, swapped)
        files.append(trained(family, tmp_path))
    assert files[0] == files[1] != trained(deep_family(), tmp_path)
    assert all(each.dtype == torch.float32 for name, each in family.transformer.named_parameters() if "lora_" in name)


def test_nf4_uses_the_published_levels() -> None:
    """Those of QLoRA (2305.14314, appendix E); a weight at a level is exact."""
    published = [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0]
    published += [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
    weight = 3 * torch.tensor(published).repeat(2, 4)
    assert torch.allclose(dequantize_weight(*quantize_weight(weight, "nf4"), torch.float32), weight, atol=1e-5)
    values, scale = quantize_weight(torch.randn(8, 128, generator=torch.Generator().manual_seed(0)), "nf4")
    assert values.shape == (8, 64) and values.dtype == torch.uint8 and scale.shape == (8, 2)


def test_a_quantized_block_takes_half_the_memory() -> None:
    """Compared with bfloat16."""
    plain, stored = (get_blocks(deep_family().transformer)[0].to(torch.bfloat16) for _ in range(2))
    quantize_linears(stored, "int8")
    size = [sum(each.nbytes for each in (*b.parameters(), *b.buffers())) for b in (plain, stored)]
    assert size[1] < 0.75 * size[0]
