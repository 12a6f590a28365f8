"""DeQA: the mean over the frames, and the errors when the model cannot be loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from evaluation.pictures import still
from lora_edit.errors import ModelError
from lora_edit.evaluation.deqa import BATCH_SIZE, deqa, load_deqa


def test_mean_over_frames_in_batches() -> None:
    batches: list[int] = []

    def score(pictures: list[Image.Image]) -> torch.Tensor:
        batches.append(len(pictures))
        return torch.tensor([picture.getpixel((0, 0))[0] / 10 for picture in pictures])

    frames = still(BATCH_SIZE + 2)
    frames[:, 0, 0, 0] = torch.tensor([10, 20, 30, 40, 50, 40], dtype=torch.uint8)
    assert deqa(frames, score) == pytest.approx(19 / 6)
    assert batches == [BATCH_SIZE, 2]


def test_missing_checkpoint_error_has_download_command() -> None:
    with pytest.raises(ModelError, match="`hf download nobody/nothing`") as caught:
        load_deqa(checkpoint="nobody/nothing")
    assert "\n" not in str(caught.value)


def test_incompatible_checkpoint_code_raises(tmp_path: Path) -> None:
    classes = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "outdated", "auto_map": classes}))
    (tmp_path / "code.py").write_text("from transformers import an_outdated_name\n")
    with pytest.raises(ModelError, match=r"written for transformers 4\.36\.1 .*ImportError.*tools/deqa_scores\.py"):
        load_deqa(checkpoint=str(tmp_path))
