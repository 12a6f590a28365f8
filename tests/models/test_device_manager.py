"""One large module on the device at a time, in the number format that each parameter needs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lora_edit.conditioning.method import build_motion_sample
from lora_edit.models.families.base import ExpertPair
from lora_edit.models.families.wan.loading import build_wan
from lora_edit.models.runtime.device_manager import DeviceManager, ManagedAutoencoder
from lora_edit.models.runtime.lazy_module import LoadedModule
from lora_edit.models.runtime.precision import cast_and_freeze, is_kept_in_fp32
from lora_edit.training.lora import add_lora
from lora_edit.training.loss import compute_velocity_loss
from lora_edit.training.settings import LoraSettings, TrainingSettings
from tiny_wan import WANS, tiny_components, tiny_transformer


class Traveller(nn.Module):
    """A module that logs its moves."""

    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__()
        self.name, self.log = name, log

    def to(self, device: Any) -> Any:
        """Log the device without moving."""
        self.log.append(f"{self.name} {device}")
        return self


def test_loading_a_module_first_offloads_the_active_one() -> None:
    """The two are never on the device together; the active module stays."""
    log: list[str] = []
    encoder, transformer = Traveller("encoder", log), Traveller("transformer", log)
    manager = DeviceManager(torch.device("meta"))
    for module in (encoder, encoder, transformer, transformer, encoder):
        manager.load(module)
    assert log == ["encoder meta", "encoder cpu", "transformer meta", "transformer cpu", "encoder meta"]


def test_a_module_larger_than_the_device_is_offloaded_by_layer() -> None:
    """The result is the same, and another module can become active."""
    torch.manual_seed(0)
    module, other = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)), nn.Linear(2, 2)
    given, manager = torch.randn(3, 4), DeviceManager(torch.device("cpu"), capacity_bytes=100)
    wanted = module(given)
    for _ in range(2):
        manager.load(module)
        assert manager._active_module is None and torch.equal(module(given), wanted)
        manager.load(other)
        assert manager._active_module is other
    assert "group_offloading" in str(list(module[0]._diffusers_hook.hooks))  # type: ignore[union-attr, operator]


def test_swapping_more_blocks_moves_an_active_transformer_as_a_whole() -> None:
    """The next set of blocks does not contain the first, whose blocks would stay in main memory, counted as moved."""
    transformer = tiny_transformer(WANS["wan2.1-i2v-480p"])
    manager = DeviceManager(torch.device("cpu"))
    moves: list[torch.device] = []
    move = manager._move
    manager._move = lambda module, device: (moves.append(device), move(module, device))[1]  # type: ignore[method-assign, func-returns-value]
    manager.load(transformer)
    manager.swap_blocks(transformer, 1)
    assert manager._active_module is None and len(moves) == 2, "it left the device"
    manager.load(transformer)
    assert manager._active_module is transformer and len(moves) == 3, "and returns as a whole"


def test_moving_modules_keeps_their_parameters() -> None:
    """`to` changes a parameter's data, not the parameter."""
    module = nn.Linear(2, 2)
    before = list(module.parameters())
    manager = DeviceManager(torch.device("cpu"))
    manager.load(module)
    manager.load(nn.Linear(2, 2))
    assert all(a is b for a, b in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize("name", ["wan2.1-i2v-480p", "skyreels-v2-i2v"])
def test_norms_times_and_the_rotary_table_stay_in_float32(name: str) -> None:
    """Also after `.to(bfloat16)`, which rounds all parameters; the others have the wanted format, and the model runs."""
    exact = tiny_transformer(WANS[name])
    tables = [table.clone() for table in exact.rope.buffers()]
    rounded: Any = cast_and_freeze(exact.to(torch.bfloat16), torch.bfloat16)
    kept = {key for key, value in rounded.named_parameters() if value.dtype == torch.float32}
    assert kept == {key for key, _ in rounded.named_parameters() if is_kept_in_fp32(rounded, key)}
    assert kept >= {"condition_embedder.time_embedder.linear_1.weight", "scale_shift_table", "blocks.0.scale_shift_table"}
    assert "blocks.0.norm2.weight" in kept
    assert "blocks.0.attn1.to_q.weight" not in kept and "patch_embedding.weight" not in kept
    assert all(torch.equal(table, own) for table, own in zip(tables, rounded.rope.buffers(), strict=True))
    assert not any(parameter.requires_grad for parameter in rounded.parameters())
    out = rounded(
        torch.zeros(1, 36, 1, 4, 4, dtype=torch.bfloat16), torch.tensor([500.0]), torch.zeros(1, 512, 16, dtype=torch.bfloat16),
        encoder_hidden_states_image=torch.zeros(1, 5, 16, dtype=torch.bfloat16), return_dict=False,
    )[0]  # fmt: skip
    assert out.shape == (1, 16, 1, 4, 4) and out.isfinite().all()


def test_the_pair_changes_experts_at_the_boundary() -> None:
    """0.9 belongs to the high-noise expert, as in diffusers; a batch may not cross the boundary; both experts decide the fingerprint."""
    record = WANS["wan2.2-i2v-a14b"]
    pair = build_wan(tiny_components(record), record, torch.device("cpu"), torch.float32)
    assert isinstance(pair, ExpertPair)
    high, low = pair.experts()
    assert (high.time_range, low.time_range) == ((0.9, 1.0), (0.0, 0.9))
    for time, expert in ((1.0, high), (0.9, high), (0.8999, low), (0.0, low)):
        assert pair.select_expert(torch.tensor([time])) is expert
    with pytest.raises(AssertionError, match="cross the boundary"):
        pair.select_expert(torch.tensor([0.95, 0.5]))
    with torch.no_grad():
        next(low.transformer.parameters()).add_(1)
    again = build_wan(tiny_components(record), record, torch.device("cpu"), torch.float32)
    assert low.fingerprint() != again.experts()[1].fingerprint() and pair.fingerprint() != again.fingerprint()
    assert high.fingerprint() == again.experts()[0].fingerprint()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["wan2.1-flf2v", "skyreels-v2-i2v"])
def test_checkpointing_changes_no_gradient(name: str) -> None:
    """A LoRA's gradients are equal with and without, bit for bit; each block is computed twice."""
    parts = tiny_components(WANS[name])
    family = build_wan(parts, WANS[name], torch.device("cpu"), torch.float32)
    expert = family.experts()[0]
    parameters = add_lora(expert, LoraSettings(rank=2), 0)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(0.01)
    clip = torch.rand(3, 5, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    sample = family.encode_sample(build_motion_sample(clip, torch.ones(5, 32, 32, dtype=torch.bool)))
    calls: list[int] = []
    transformer: Any = expert.transformer
    transformer.blocks[0].attn1.to_q.register_forward_pre_hook(lambda *_: calls.append(1))
    grads = []
    for checkpointed in (True, False):
        if not checkpointed:
            transformer.disable_gradient_checkpointing()
        compute_velocity_loss(expert, sample, TrainingSettings(), torch.Generator().manual_seed(3)).backward()  # type: ignore[no-untyped-call]
        grads.append([parameter.grad for parameter in parameters.values()])
        for parameter in parameters.values():
            parameter.grad = None
    assert all(torch.equal(a, b) and a.any() for a, b in zip(*grads, strict=True))
    assert len(calls) == 3


@pytest.mark.parametrize(("failures", "expected"), [(0, [False]), (1, [False, True]), (2, [False, True, True])])
@pytest.mark.parametrize("work", ["encode", "decode"])
def test_out_of_memory_repeats_this_step_alone(work: str, failures: int, expected: list[bool]) -> None:
    """In tiles, then on the CPU, with a note each; tiles stay in use. The caller's latents are processed again, not sampled again."""
    calls: list[bool] = []
    log: list[str] = []

    class Adapter:
        """Runs out of memory at its first calls."""

        def __init__(self, module: nn.Module) -> None:
            self.tiled = False

        def set_tiling(self, tiled: bool) -> None:
            self.tiled = tiled

        def encode(self, values: torch.Tensor) -> torch.Tensor:
            calls.append(self.tiled)
            if len(calls) <= failures:
                raise torch.OutOfMemoryError("injected")
            return values + 1

        decode = encode

    manager, notes = DeviceManager(torch.device("cpu")), []
    manager.on_note = notes.append
    autoencoder = ManagedAutoencoder(Adapter, LoadedModule(Traveller("vae", log)), 4, manager)
    process = getattr(autoencoder, work)
    assert torch.equal(process(torch.zeros(2)), torch.ones(2)) and calls == expected
    assert len(notes) == failures and all(f"continuing with {work[:-1]}ing" in note for note in notes)
    process(torch.zeros(2))
    assert calls[len(expected) :] == [failures > 0]
