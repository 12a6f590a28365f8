"""What a large model will need, reckoned without its weights; and that an edit that cannot fit is refused before anything is read."""

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


def test_a_step_costs_what_its_tokens_do() -> None:
    """1.3 billion parameters at 13 latent frames of 30 x 52 tokens: attention grows with the square, the rest with the number."""
    tokens, width, feed, layers = 13 * 30 * 52, 1536, 8960, 30
    linear, attention = 2 * tokens * width * (6 * width + 2 * feed), 4 * tokens**2 * width
    expected = layers * (3 * linear + 4.5 * attention)
    assert at(49).seconds_train == pytest.approx(100 * expected / (0.5 * CARD.flops_per_second), rel=0.1)
    assert at(49, references=True).seconds_train == 2 * at(49).seconds_train
    assert at(49, "generation.guidance_scale=1").seconds_generate == at(49).seconds_generate / 2


def test_short_windows_need_less() -> None:
    """Nine frames instead of 49: less to hold, and less to compute, in training alone."""
    short = at(49, "training.window=9")
    assert short.train_bytes < 0.6 * at(49).train_bytes and short.seconds_train < 0.2 * at(49).seconds_train
    assert (short.generate_bytes, short.seconds_generate) == (at(49).generate_bytes, at(49).seconds_generate)


def test_weights_are_there_once() -> None:
    """In bfloat16, on the device and, while they are read, in main memory beside the encoders."""
    weights = 2 * 1.56e9
    assert at(9).generate_bytes > weights and at(9).host_bytes == pytest.approx(weights + 14.4e9, rel=0.05)


COUNTED = [facts for facts in KNOWN_MODELS if supports_estimate(facts) and facts is not WAN21_I2V_480P]


@pytest.mark.parametrize("facts", COUNTED, ids=lambda facts: facts.name)
def test_every_large_model_can_be_counted(facts: ModelRecord) -> None:
    """At a size that is counted quickly; the embedded model is measured instead."""
    small = replace(facts, config=_shallow(facts))
    found = estimate_resources(settings(model=facts.name), small, Size(256, 256), 4 * facts.geometry.temporal_compression + 1, False, CARD)
    assert 0 < found.generate_bytes < found.train_bytes and found.seconds_train > 0


def _shallow(facts: ModelRecord, depth: int = 1) -> str:
    """The model's configuration with few blocks of each kind, in a file of its own."""
    config = {
        key: depth if key.startswith("num_") and key.endswith("layers") else value for key, value in facts.read_transformer_config().items()
    }
    path = Path(mkdtemp()) / "config.json"
    path.write_text(json.dumps(config), "utf-8")
    return str(path)


@pytest.mark.parametrize("name", ["wan2.1-i2v-480p", "hunyuan-i2v"])
def test_few_blocks_tell_of_many(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted with few blocks of a kind and one more, a model of four costs what it does counted whole."""
    facts = next(facts for facts in KNOWN_MODELS if facts.name == name)
    deep = replace(facts, config=_shallow(facts, 4))
    found = []
    for few in (COUNTED_BLOCKS, 4):
        monkeypatch.setattr("lora_edit.memory_estimate.COUNTED_BLOCKS", few)
        _count_step_cost.cache_clear()
        found.append(_count_step_cost(deep, (2, 8, 8), torch.bfloat16, LoraSettings()))
    assert found[0] == found[1] and len(found[0].block_bytes) in (4, 8)


def test_the_fewest_blocks_that_let_it_fit_are_swapped() -> None:
    """Then hidden states wait too; what a person sets stays as it is."""
    size = Size(256, 448)

    def on(device_bytes: float, *assignments: str) -> ResourceEstimate:
        return estimate_resources(settings(*assignments), WAN21_FUN_1_3B, size, 49, False, replace(CARD, device_bytes=device_bytes))

    whole, none = on(80e9), on(80e9, "training.blocks_to_swap=99")
    parked = on(80e9, "training.blocks_to_swap=99", "training.offload_activations=true")
    assert (whole.offload_plan.blocks_to_swap, none.offload_plan.blocks_to_swap, whole.blocks) == (0, 30, 30)
    assert parked.train_bytes < none.train_bytes < whole.train_bytes
    some = on((whole.train_bytes + none.train_bytes) / 2)
    assert 0 < some.offload_plan.blocks_to_swap < 30 and not some.offload_plan.offload_activations
    fewer = on(
        (whole.train_bytes + none.train_bytes) / 2,
        f"training.blocks_to_swap={some.offload_plan.blocks_to_swap - 1}",
        "training.offload_activations=false",
    )
    assert fewer.list_shortfalls(replace(CARD, device_bytes=(whole.train_bytes + none.train_bytes) / 2))
    least = on((parked.train_bytes + none.train_bytes) / 2)
    assert (least.offload_plan.blocks_to_swap, least.offload_plan.offload_activations) == (30, True)
    assert on(24e9, "training.blocks_to_swap=3").offload_plan.blocks_to_swap == 3


def test_clips_are_decoded_in_tiles_where_whole_frames_are_too_large() -> None:
    tiled = [
        estimate_resources(settings(), WAN21_FUN_1_3B, Size(480, 832), 49, False, replace(CARD, device_bytes=1e9 * gigabytes))
        for gigabytes in (8, 24)
    ]
    assert [each.offload_plan.tile_decoding for each in tiled] == [True, False] and not tiled[0].list_shortfalls(
        replace(CARD, device_bytes=8e9)
    )


def test_what_does_not_fit_is_refused_with_what_does(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is loaded. The named preset is one that fits."""
    monkeypatch.setattr(estimate, "load_record", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(estimate, "measure_machine", lambda: replace(CARD, device_bytes=8e9))
    name = WAN21_I2V_480P.name
    with pytest.raises(
        ModelError, match=rf"{name} does not fit here: it takes 12\.\d GB on the device, which has 8\.0; give --preset low-vram"
    ):
        estimate.open_family(resolve_edit(settings(model=name), clip))
    found = estimate.estimate_edit(resolve_edit(settings(model=name, preset="low-vram"), clip), clip)
    assert found.memory_bytes < 8e9 and found.host_bytes > 28e9 and found.offload_plan is not None and found.blocks == 40
    assert found.describe_offloading() == f"; {found.offload_plan.blocks_to_swap} of its 40 blocks wait in main memory"
    monkeypatch.setattr(estimate, "measure_machine", lambda: replace(CARD, host_bytes=8e9))
    with pytest.raises(ModelError, match=r"main memory, of which the machine has 8\.0; choose a smaller model"):
        estimate.estimate_edit(resolve_edit(settings(), clip), clip)


def test_nothing_is_written_for_an_edit_that_cannot_fit(clip: Clip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(estimate, "measure_machine", lambda: replace(CARD, device_bytes=1e9))
    monkeypatch.setattr(pipeline, "check", lambda *_: clip)
    with pytest.raises(ModelError, match="does not fit here"):
        pipeline.create_run(settings(), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_a_machine_without_a_device_holds_all_in_main_memory(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "measure_machine", lambda: Machine(0, 24e9, 1e11, torch.float32))
    with pytest.raises(ModelError, match=r"does not fit here: it takes \d+\.\d GB of main memory"):
        estimate.open_family(resolve_edit(settings(model=WAN21_I2V_480P.name), clip))


def test_small_models_are_measured(clip: Clip) -> None:
    assert not supports_estimate(TINY) and estimate.estimate_large_model(resolve_edit(settings(model="tiny"), clip)) is None
