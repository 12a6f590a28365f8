"""Operations and bytes counted without computing anything, held against formulas and against a real step on the CPU."""

from __future__ import annotations

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch import nn
from torch.utils.checkpoint import checkpoint

from lora_edit.models.runtime.step_cost import LiveMemoryTracker, StepCost, count_step_cost

WIDTH, FFN, LAYERS, TEXT = 48, 160, 3, 6
SHAPE = (1, 12, 2, 16, 16)
TOKENS = 2 * 8 * 8


def transformer(device: str) -> WanTransformer3DModel:
    """Frozen but for one matrix per block, which stands for a LoRA."""
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        model = WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=WIDTH // 2, in_channels=12, out_channels=4, text_dim=8, freq_dim=16, ffn_dim=FFN,
            num_layers=LAYERS, rope_max_seq_len=32,
        )  # fmt: skip
    model.requires_grad_(False)
    for block in model.blocks:
        block.attn1.to_out[0].weight.requires_grad_(True)
    return model


def forward(model: WanTransformer3DModel, device: str) -> torch.Tensor:
    latents, time, text = torch.zeros(SHAPE, device=device), torch.zeros(1, device=device), torch.zeros(1, TEXT, 8, device=device)
    out: torch.Tensor = model(latents, time, text, return_dict=False)[0]
    return out


@pytest.fixture(scope="module")
def cost() -> StepCost:
    model = transformer("meta")
    return count_step_cost(model, lambda: forward(model, "meta"))


def test_operations_are_those_of_the_formula(cost: StepCost) -> None:
    """Two per multiplication and addition: projections, both attentions, feed-forward; the layers around the blocks are few."""
    projections = (4 + 2) * 2 * TOKENS * WIDTH**2 + 2 * 2 * TEXT * WIDTH**2
    attention = 2 * 2 * TOKENS * (TOKENS + TEXT) * WIDTH
    feed = 2 * 2 * TOKENS * WIDTH * FFN
    blocks = LAYERS * (projections + attention + feed)
    assert blocks < cost.forward_flops < 1.1 * blocks
    # Forward twice; backward once through the frozen matrices, and two and a half times through attention.
    assert 3 * blocks < cost.step_flops < 1.1 * LAYERS * (3 * (projections + feed) + 4.5 * attention + 2 * TOKENS * WIDTH**2)


def test_weights_are_counted_by_block(cost: StepCost) -> None:
    model = transformer("meta")
    assert cost.num_trainable == LAYERS * WIDTH**2 and len(cost.block_bytes) == LAYERS
    frozen = sum(each.nbytes for each in model.parameters() if not each.requires_grad)
    assert sum(cost.block_bytes) + cost.rest_bytes == frozen and cost.rest_bytes > 0
    assert cost.hidden_state_bytes == 4 * TOKENS * WIDTH


def test_a_real_step_needs_as_much_memory(cost: StepCost) -> None:
    """On the CPU, where attention is fused too."""
    model = transformer("cpu")
    model.enable_gradient_checkpointing(gradient_checkpointing_func=lambda block, *args: checkpoint(block, *args, use_reentrant=False))
    model.train()
    with LiveMemoryTracker() as live:
        forward(model, "cpu").float().sum().backward()  # type: ignore[no-untyped-call]
    assert live.peak_bytes == pytest.approx(cost.step_peak_bytes, rel=0.02)
    with LiveMemoryTracker() as live, torch.no_grad():
        forward(model, "cpu")
    assert live.peak_bytes == pytest.approx(cost.forward_peak_bytes, rel=0.02)
    assert cost.forward_peak_bytes < cost.step_peak_bytes


def test_live_bytes_of_a_chain() -> None:
    """A chain keeps what every layer read; with checkpoints, the borders and one layer's."""
    size, width, count = 64 * 8 * 4, 4, 10
    chain = nn.ModuleList(nn.Sequential(nn.Linear(8, 8 * width), nn.GELU(), nn.Linear(8 * width, 8)) for _ in range(count)).requires_grad_(
        False
    )
    start = torch.zeros(64, 8, requires_grad=True)

    def held(*, checkpointed: bool) -> int:
        state = start
        with LiveMemoryTracker() as live:
            for layer in chain:
                state = checkpoint(layer, state, use_reentrant=False) if checkpointed else layer(state)
        return live.current_bytes // size

    # Of each layer: the activation's input; its output is the next layer's border. Nothing frozen keeps its own input.
    assert held(checkpointed=False) in range(count * width, count * (width + 1) + 2)
    assert held(checkpointed=True) in range(count, count + 2)
