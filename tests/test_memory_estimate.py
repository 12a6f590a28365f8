"""Estimates for large models without their weights, and rejection of edits that do not fit the machine."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
import torch

from lora_edit import estimate, pipeline
from lora_edit.config import EditSettings, resolve_settings
from lora_edit.devices import Machine
from lora_edit.errors import ModelError
from lora_edit.inputs import Clip
from lora_edit.memory_estimate import COUNTED_BLOCKS, ResourceEstimate, _count_step_cost, estimate_resources, supports_estimate
from lora_edit.models.families.embedded.record import TINY
from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.families.wan.record import WAN21_FUN_1_3B, WAN21_I2V_480P
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.quantization import WeightFormat
from lora_edit.resolved import resolve_edit
from lora_edit.training.settings import LoraSettings
from lora_edit.types import EditMask, Size, Video

CARD = Machine(24e9, 128e9, 1.6e14, torch.bfloat16)
"""A card of 24 GB."""


def settings(*assignments: str, model: str = WAN21_FUN_1_3B.name, preset: str = "standard") -> EditSettings:
    return resolve_settings({"input": {"source": "a.mp4", "first_frame": "b.png"}, "model": model, "preset": preset}, assignments)


@cache
def at(frames: int, *assignments: str, references: bool = False) -> ResourceEstimate:
    return estimate_resources(settings(*assignments), WAN21_FUN_1_3B, Size(480, 832), frames, references, CARD)


@pytest.fixture
def clip() -> Clip:
    frames = torch.zeros(49, 480, 832, 3, dtype=torch.uint8)
    mask = torch.ones(49, 480, 832, dtype=torch.bool)
    return Clip(Video(frames, Fraction(8), tuple(i / 8 for i in range(49))), EditMask(mask), frames[0], {}, {})


def test_step_cost_follows_number_of_tokens() -> None:
    """1.3 billion parameters, 13 latent frames of 30 x 52 tokens: attention is quadratic in tokens, all other layers are linear."""
    tokens, width, feed, layers = 13 * 30 * 52, 1536, 8960, 30
    linear, attention = 2 * tokens * width * (6 * width + 2 * feed), 4 * tokens**2 * width
    expected = layers * (3 * linear + 4.5 * attention)
    assert at(49).seconds_train == pytest.approx(100 * expected / (0.5 * CARD.flops_per_second), rel=0.1)
    assert at(49, references=True).seconds_train == 2 * at(49).seconds_train
    assert at(49, "generation.guidance_scale=1").seconds_generate == at(49).seconds_generate / 2


def test_short_windows_reduce_training_cost() -> None:
    """Nine frames instead of 49 need less memory and time, in training only."""
    short = at(49, "training.window=9")
    assert short.train_bytes < 0.6 * at(49).train_bytes and short.seconds_train < 0.2 * at(49).seconds_train
    assert (short.generate_bytes, short.seconds_generate) == (at(49).generate_bytes, at(49).seconds_generate)


def test_weights_are_counted_once() -> None:
    """In bfloat16, on the device, and in main memory together with the encoders while loading."""
    weights = 2 * 1.56e9
    assert at(9).generate_bytes > weights and at(9).host_bytes == pytest.approx(weights + 14.4e9, rel=0.05)


COUNTED = [facts for facts in KNOWN_MODELS if supports_estimate(facts) and facts is not WAN21_I2V_480P]


@pytest.mark.parametrize("facts", COUNTED, ids=lambda facts: facts.name)
def test_all_large_models_have_estimates(facts: ModelRecord) -> None:
    """At a small size. The embedded model is measured instead."""
    small = replace(facts, config=_shallow(facts))
    estimated = estimate_resources(
        settings(model=facts.name), small, Size(256, 256), 4 * facts.geometry.temporal_compression + 1, False, CARD
    )
    assert 0 < estimated.generate_bytes < estimated.train_bytes and estimated.seconds_train > 0


def _shallow(facts: ModelRecord, depth: int = 1) -> str:
    """Write the configuration with few blocks of each type to a temporary file."""
    config = {
        key: depth if key.startswith("num_") and key.endswith("layers") else value for key, value in facts.read_transformer_config().items()
    }
    path = Path(mkdtemp()) / "config.json"
    path.write_text(json.dumps(config), "utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["wan2.1-i2v-480p", "hunyuan-i2v"])
def test_cost_is_extrapolated_from_few_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a model of four blocks, the extrapolated cost equals that of counting all blocks."""
    facts = next(facts for facts in KNOWN_MODELS if facts.name == name)
    deep = replace(facts, config=_shallow(facts, 4))
    estimated = []
    for count in (COUNTED_BLOCKS, 4):
        monkeypatch.setattr("lora_edit.memory_estimate.COUNTED_BLOCKS", count)
        _count_step_cost.cache_clear()
        estimated.append(_count_step_cost(deep, (2, 8, 8), torch.bfloat16, LoraSettings()))
    assert estimated[0] == estimated[1] and len(estimated[0].block_bytes) in (4, 8)


def test_smallest_number_of_blocks_is_swapped() -> None:
    """Then hidden states are offloaded as well. Explicit settings stay."""
    size = Size(256, 448)

    def on(device_bytes: float, *assignments: str) -> ResourceEstimate:
        return estimate_resources(settings(*assignments), WAN21_FUN_1_3B, size, 49, False, replace(CARD, device_bytes=device_bytes))

    whole, none = on(80e9), on(80e9, "training.blocks_to_swap=99")
    offloaded = on(80e9, "training.blocks_to_swap=99", "training.offload_activations=true")
    assert (whole.offload_plan.blocks_to_swap, none.offload_plan.blocks_to_swap, whole.blocks) == (0, 30, 30)
    assert offloaded.train_bytes < none.train_bytes < whole.train_bytes
    some = on((whole.train_bytes + none.train_bytes) / 2)
    assert 0 < some.offload_plan.blocks_to_swap < 30 and not some.offload_plan.offload_activations
    fewer = on(
        (whole.train_bytes + none.train_bytes) / 2,
        f"training.blocks_to_swap={some.offload_plan.blocks_to_swap - 1}",
        "training.offload_activations=false",
    )
    assert fewer.list_shortfalls(replace(CARD, device_bytes=(whole.train_bytes + none.train_bytes) / 2))
    least = on((offloaded.train_bytes + none.train_bytes) / 2)
    assert (least.offload_plan.blocks_to_swap, least.offload_plan.offload_activations) == (30, True)
    assert on(24e9, "training.blocks_to_swap=3").offload_plan.blocks_to_swap == 3


def test_decoding_is_tiled_if_whole_frames_do_not_fit() -> None:
    tiled = [
        estimate_resources(settings(), WAN21_FUN_1_3B, Size(480, 832), 49, False, replace(CARD, device_bytes=1e9 * gigabytes))
        for gigabytes in (8, 24)
    ]
    assert [each.offload_plan.tile_decoding for each in tiled] == [True, False]
    assert not any(each.offload_plan.tile_encoding for each in tiled) and not tiled[0].list_shortfalls(replace(CARD, device_bytes=8e9))


def test_rejection_names_preset_that_fits(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded."""
    monkeypatch.setattr(estimate, "load_record", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(estimate, "measure_machine", lambda: replace(CARD, device_bytes=8e9))
    name = WAN21_I2V_480P.name
    with pytest.raises(
        ModelError, match=rf"{name} does not fit here: it takes 12\.\d GB on the device, which has 8\.0 free; give --preset low-vram"
    ):
        estimate.open_family(resolve_edit(settings(model=name), clip))
    estimated = estimate.estimate_edit(resolve_edit(settings(model=name, preset="low-vram"), clip), clip)
    assert estimated.memory_bytes < 8e9 and estimated.host_bytes > 28e9 and estimated.offload_plan is not None and estimated.blocks == 40
    assert estimated.describe_offloading() == f"; {estimated.offload_plan.blocks_to_swap} of its 40 blocks wait in main memory"
    monkeypatch.setattr(estimate, "measure_machine", lambda: replace(CARD, host_bytes=8e9))
    with pytest.raises(ModelError, match=r"main memory, of which 8\.0 are free; choose a smaller model"):
        estimate.estimate_edit(resolve_edit(settings(), clip), clip)


def test_rejected_edit_writes_nothing(clip: Clip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(estimate, "measure_machine", lambda: replace(CARD, device_bytes=1e9))
    monkeypatch.setattr(pipeline, "check", lambda *_: clip)
    with pytest.raises(ModelError, match="does not fit here"):
        pipeline.create_run(settings(), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_machine_without_device_uses_main_memory(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "measure_machine", lambda: Machine(0, 24e9, 1e11, torch.float32))
    with pytest.raises(ModelError, match=r"does not fit here: it takes \d+\.\d GB of main memory"):
        estimate.open_family(resolve_edit(settings(model=WAN21_I2V_480P.name), clip))


def test_small_models_have_no_estimate(clip: Clip) -> None:
    assert not supports_estimate(TINY) and estimate.estimate_large_model(resolve_edit(settings(model="tiny"), clip)) is None


def test_main_memory_counts_page_locked_blocks_and_states() -> None:
    """Of two experts both; with torch's rounding to powers of two, in slabs."""

    def on(*assignments: str) -> ResourceEstimate:
        machine = replace(CARD, device_bytes=80e9)
        return estimate_resources(settings(*assignments), WAN21_FUN_1_3B, Size(256, 448), 49, False, machine)

    swapped, stored = (
        on("training.blocks_to_swap=99", f"training.offload_activations={states}", "training.base=int8") for states in ("false", "true")
    )
    assert stored.host_bytes >= swapped.host_bytes > 1e9 * WAN21_FUN_1_3B.encoders_gb
    assert stored.train_bytes < swapped.train_bytes


def test_8_bit_files_need_half_the_memory() -> None:
    """They are not converted; the plan that is applied quantizes nothing else."""

    def on(stored_format: WeightFormat) -> ResourceEstimate:
        return estimate_resources(settings(), WAN21_FUN_1_3B, Size(256, 448), 9, False, CARD, stored_format)

    full, stored = on("full"), on("fp8")
    assert stored.offload_plan.weight_format == full.offload_plan.weight_format == "full"
    assert full.generate_bytes - stored.generate_bytes > 1e9 and full.host_bytes - stored.host_bytes > 1e9
