"""DeQA: the mean over the frames, and what is said where the model cannot be had."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from evaluation.pictures import still
from lora_edit.errors import ModelError
from lora_edit.evaluation.deqa import BATCH_SIZE, deqa, load_deqa


def test_the_mean_of_every_frame_in_small_batches() -> None:
    batches: list[int] = []

    def score(pictures: list[Image.Image]) -> torch.Tensor:
        batches.append(len(pictures))
        return torch.tensor([picture.getpixel((0, 0))[0] / 10 for picture in pictures])

    frames = still(BATCH_SIZE + 2)
    frames[:, 0, 0, 0] = torch.tensor([10, 20, 30, 40, 50, 40], dtype=torch.uint8)
    assert deqa(frames, score) == pytest.approx(19 / 6)
    assert batches == [BATCH_SIZE, 2]


def test_a_missing_checkpoint_is_named_with_its_command() -> None:
    with pytest.raises(ModelError, match="`hf download nobody/nothing`") as caught:
        load_deqa("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_code_for_another_transformers_is_told_as_such(tmp_path: Path) -> None:
    classes = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "of_old", "auto_map": classes}))
    (tmp_path / "code.py").write_text("from transformers import a_name_of_old\n")
    with pytest.raises(ModelError, match=r"written for transformers 4\.36\.1 .*ImportError.*tools/deqa_scores\.py"):
        load_deqa(str(tmp_path))
