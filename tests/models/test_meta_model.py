"""Families on torch's meta device: every model with a configuration, except those that are measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lora_edit.models.families.registry import KNOWN_MODELS
from lora_edit.models.families.vace.record import VACE_MODELS
from lora_edit.models.record import ModelRecord
from lora_edit.models.runtime.meta_model import build_meta_model, has_meta_model

MEASURED = {"tiny"}
"""Small enough to be measured."""

MODELS = {record.name: record for record in (*KNOWN_MODELS, *VACE_MODELS) if has_meta_model(record)}


def test_every_model_with_a_configuration_has_a_meta_model() -> None:
    assert {record.name for record in (*KNOWN_MODELS, *VACE_MODELS) if record.config} - set(MODELS) == MEASURED


@pytest.mark.parametrize("record", MODELS.values(), ids=list(MODELS))
def test_a_velocity_has_the_shape_of_the_target(record: ModelRecord, tmp_path: Path) -> None:
    """Without a value, with one block of each kind."""
    config = {
        key: 1 if key.startswith("num_") and key.endswith("layers") else value for key, value in record.read_transformer_config().items()
    }
    config |= {"vace_layers": [0]} if "vace_layers" in config else {}
    (tmp_path / "config.json").write_text(json.dumps(config), "utf-8")
    expert, sample = build_meta_model(replace(record, config=str(tmp_path / "config.json")), (2, 8, 8), torch.bfloat16)
    assert sample.target is not None
    velocity = expert.predict_velocity(sample.target, torch.empty(1, device="meta"), sample)
    assert velocity.shape == sample.target.shape and velocity.device.type == "meta"
