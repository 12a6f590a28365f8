"""Tests of contact sheets and side-by-side clips."""

import pytest
import torch

from lora_edit.errors import VideoError
from lora_edit.video import sheet
from lora_edit.video.read import read_image
from video.clips import make_clip


def test_contact_sheet_and_side_by_side(tmp_path):
    long, short = make_clip(20).frames, make_clip(3).frames
    image = sheet.build_contact_sheet([long, short], ["source", "edited é"], columns=8, cell_height=40)
    assert image.dtype == torch.uint8 and image.shape[2] == 3
    sheet.save_image(tmp_path / "new" / "sheet.png", image)
    assert torch.equal(read_image(tmp_path / "new" / "sheet.png"), image)
    assert sheet.join_side_by_side(long, make_clip(20, 24, 32).frames).shape == (20, 48, 128, 3)
    with pytest.raises(VideoError, match="20 and 3"):
        sheet.join_side_by_side(long, short)
